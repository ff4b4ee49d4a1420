use std::str::FromStr;

use drawbridge_sdk::is_loopback;
use url::Url;

/// The base URL of a helpdesk: `https`, or `http` on loopback.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BaseUrl(Url);

/// The URL is not acceptable: no token is sent to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a helpdesk URL must be https, or http on loopback, without user, query and fragment")]
pub struct BaseUrlError;

impl BaseUrl {
    /// The URL of an endpoint of the API, whose path has these segments.
    pub(super) fn endpoint(&self, path: &[&str]) -> Url {
        let mut url = self.0.clone();
        // INVARIANT: it has a host, so it has segments.
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(["api", "v1"]).extend(path);
        }
        url
    }
}

impl FromStr for BaseUrl {
    type Err = BaseUrlError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let url: Url = text.parse().map_err(|_| BaseUrlError)?;
        let is_private = url.scheme() == "https" || (url.scheme() == "http" && is_loopback(&url));
        let is_plain = url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none();
        if is_private && is_plain && url.has_host() { Ok(Self(url)) } else { Err(BaseUrlError) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_https_and_loopback_urls_are_accepted() {
        for url in [
            "https://desk.example",
            "https://desk.example/zammad/",
            "http://127.0.0.1:1",
            "http://[::1]:1",
        ] {
            assert!(url.parse::<BaseUrl>().is_ok(), "{url}");
        }
        for url in [
            "http://desk.example",
            "http://127.0.0.1.desk.example",
            "http://10.0.0.1",
            "ftp://127.0.0.1",
            "https://user:secret@desk.example",
            "https://desk.example/?a=b",
            "https://desk.example/#a",
            "data:text/plain,a",
            "desk.example",
            "",
        ] {
            assert_eq!(url.parse::<BaseUrl>(), Err(BaseUrlError), "{url}");
        }
    }

    #[test]
    fn an_endpoint_stays_below_the_base_for_any_segments() {
        let base: BaseUrl = "https://desk.example/zammad".parse().unwrap();
        for (path, expected) in [
            (["tickets", "7"], "https://desk.example/zammad/api/v1/tickets/7"),
            (["tickets", "a/b?c#d"], "https://desk.example/zammad/api/v1/tickets/a%2Fb%3Fc%23d"),
            (["tickets", ".."], "https://desk.example/zammad/api/v1/tickets"),
        ] {
            assert_eq!(base.endpoint(&path).as_str(), expected);
        }
    }
}
