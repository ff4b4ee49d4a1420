//! Admin ports that commands ask.

use std::str::FromStr;

use drawbridge_mesh::state::MeshState;
use drawbridge_runtime::{ParseUrlError, parse_url};
use url::Url;

/// The admin port of a service: `URL`, or `NAME=URL` for another name than its host and port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AdminTarget {
    /// The name in reports.
    pub(crate) name: String,
    /// Its URL, without a path.
    pub(crate) url: Url,
}

impl FromStr for AdminTarget {
    type Err = ParseUrlError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_name = |name: &&str| !name.contains([':', '/']);
        let named = text.split_once('=').filter(|(name, _)| is_name(name));
        let url = parse_url(named.map_or(text, |(_, url)| url))?;
        let host = url.host_str().unwrap_or_default();
        let place = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        Ok(Self { name: named.map_or(place, |(name, _)| name.to_owned()), url })
    }
}

/// The admin ports of a mesh.
pub(crate) fn of_mesh(state: &MeshState) -> Vec<AdminTarget> {
    let admin = state.admin.iter();
    admin.map(|(name, url)| AdminTarget { name: name.clone(), url: url.clone() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_admin_port_may_have_a_name() {
        let parse = |text: &str| {
            let target: AdminTarget = text.parse().unwrap();
            (target.name, target.url.to_string())
        };
        let url = "http://10.0.0.4:7181/".to_owned();
        assert_eq!(parse("http://10.0.0.4:7181"), ("10.0.0.4:7181".to_owned(), url.clone()));
        assert_eq!(parse("edge-1=http://10.0.0.4:7181"), ("edge-1".to_owned(), url));
        assert_eq!(parse("http://a/?x=y").0, "a");
        assert!("edge-1".parse::<AdminTarget>().is_err());
    }
}
