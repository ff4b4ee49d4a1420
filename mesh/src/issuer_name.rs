//! Issuer identifiers in their exact spelling.

use std::{fmt, ops::Deref, str::FromStr};

use drawbridge_runtime::{ParseUrlError, parse_url};
use serde::{Deserialize, Serialize};
use url::Url;

/// An issuer identifier, spelled exactly as in `iss` (RFC 8414 section 2). A parsed URL may have a
/// trailing slash that the identifier lacks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct IssuerName {
    name: String,
    url: Url,
}

impl IssuerName {
    /// The identifier.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// As a URL, the base of its metadata URL.
impl Deref for IssuerName {
    type Target = Url;

    fn deref(&self) -> &Url {
        &self.url
    }
}

impl fmt::Display for IssuerName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.name)
    }
}

impl FromStr for IssuerName {
    type Err = ParseUrlError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let name = text.trim().to_owned();
        Ok(Self { url: parse_url(&name)?, name })
    }
}

impl TryFrom<String> for IssuerName {
    type Error = ParseUrlError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<IssuerName> for String {
    fn from(issuer: IssuerName) -> Self {
        issuer.name
    }
}

/// The identifier of an issuer of which only the URL is known: without the slash of an empty path.
impl From<Url> for IssuerName {
    fn from(url: Url) -> Self {
        let text = url.as_str();
        let name = if url.path() == "/" { text.trim_end_matches('/') } else { text };
        Self { name: name.to_owned(), url }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_issuer_keeps_its_spelling() {
        for text in
            ["http://127.0.0.1:7100", "https://acme.auth0.example/", "https://sso.example/realms/a"]
        {
            let issuer: IssuerName = text.parse().unwrap();
            assert_eq!(serde_json::to_value(&issuer).unwrap(), text);
            assert_eq!(serde_json::from_value::<IssuerName>(text.into()).unwrap(), issuer);
            assert_eq!(issuer.join("/x").unwrap().path(), "/x");
        }
        let url: Url = "http://127.0.0.1:7100".parse().unwrap();
        assert_eq!(IssuerName::from(url).name(), "http://127.0.0.1:7100");
        assert!("127.0.0.1:7100".parse::<IssuerName>().is_err());
    }
}
