use std::fmt;

use serde::{Deserialize, Serialize};
use url::form_urlencoded::{byte_serialize, parse};

/// The identity of a caller in one text: subject, tenant and issuer, each URL-encoded, joined by
/// `@`. Vault identifies callers by it: a subject alone would be the same user at every issuer.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Principal(String);

impl Principal {
    /// The subject of an issuer, acting for a tenant.
    #[must_use]
    pub fn new(issuer: &str, subject: &str, tenant: Option<&str>) -> Self {
        let encode = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
        Self(format!(
            "{}@{}@{}",
            encode(subject),
            encode(tenant.unwrap_or_default()),
            encode(issuer)
        ))
    }

    /// Parses the text of a principal into subject, tenant and issuer. A missing part is empty.
    #[must_use]
    pub fn parts(text: &str) -> [String; 3] {
        let decode = |part: &str| parse(part.as_bytes()).next().map(|(name, _)| name.into_owned());
        let mut parts = text.split('@').map(|part| decode(part).unwrap_or_default());
        std::array::from_fn(|_| parts.next().unwrap_or_default())
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn different_callers_have_different_principals() {
        assert_eq!(
            Principal::new("https://idp.example", "alice", Some("acme")).as_str(),
            "alice@acme@https%3A%2F%2Fidp.example"
        );
        let of = Principal::new;
        assert_ne!(of("i", "a", None), of("j", "a", None));
        assert_ne!(of("i", "a", Some("t")), of("i", "a", None));
        assert_ne!(of("i", "a@t", None), of("i", "a", Some("t")));
        assert_ne!(of("i", "a", Some("t@u")), of("u@i", "a", Some("t")));
    }

    #[test]
    fn the_parts_of_a_principal_round_trip() {
        for [subject, tenant, issuer] in
            [["alice", "", "https://idp.example"], ["a@b=c&d +%", "t@u", "i"]]
        {
            let principal =
                Principal::new(issuer, subject, Some(tenant).filter(|tenant| !tenant.is_empty()));
            assert_eq!(Principal::parts(principal.as_str()), [subject, tenant, issuer]);
        }
        assert_eq!(Principal::parts("alice"), ["alice", "", ""]);
    }
}
