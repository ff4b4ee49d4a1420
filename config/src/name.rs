//! Names that an operator gives.

use std::{borrow::Cow, fmt, ops::Deref, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;

const NAME_BYTES_MAX: usize = 64;
const NAMESPACE_BYTES_MAX: usize = 32;

/// The name of a tool, a limit or a pattern.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct Name(String);

/// A text is not a valid name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid name: expected 1 to {NAME_BYTES_MAX} of the characters A-Z a-z 0-9 _ -")]
pub struct NameError;

impl Name {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a text is a valid name.
    #[must_use]
    pub fn is_valid(text: &str) -> bool {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        (1..=NAME_BYTES_MAX).contains(&text.len()) && text.bytes().all(allowed)
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        text.to_owned().try_into()
    }
}

impl TryFrom<String> for Name {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        if Self::is_valid(&text) { Ok(Self(text)) } else { Err(NameError) }
    }
}

impl Deref for Name {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl JsonSchema for Name {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Name".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$" })
    }
}

/// The namespace of a tool service, with which the names of its items begin, or of a virtual
/// server.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct Namespace(String);

/// A text is not a valid namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid namespace: expected 1 to {NAMESPACE_BYTES_MAX} of the characters a-z 0-9 _, \
     beginning with a letter"
)]
pub struct NamespaceError;

impl Namespace {
    /// The namespace as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Namespace {
    type Err = NamespaceError;

    fn from_str(text: &str) -> Result<Self, NamespaceError> {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        let begins_with_letter = text.starts_with(|first: char| first.is_ascii_lowercase());
        let is_valid =
            begins_with_letter && text.len() <= NAMESPACE_BYTES_MAX && text.bytes().all(allowed);
        is_valid.then(|| Self(text.to_owned())).ok_or(NamespaceError)
    }
}

impl TryFrom<String> for Namespace {
    type Error = NamespaceError;

    fn try_from(text: String) -> Result<Self, NamespaceError> {
        text.parse()
    }
}

impl std::borrow::Borrow<str> for Namespace {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl JsonSchema for Namespace {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Namespace".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[a-z][a-z0-9_]{0,31}$" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_and_a_namespace_have_only_the_documented_characters() {
        assert!(["a", "A-b_9"].iter().all(|text| text.parse::<Name>().is_ok()));
        assert!(["", "a b", "ä"].iter().all(|text| text.parse::<Name>().is_err()));
        assert!("a".repeat(64).parse::<Name>().is_ok() && "a".repeat(65).parse::<Name>().is_err());
        assert!(["a", "a_9"].iter().all(|text| text.parse::<Namespace>().is_ok()));
        assert!(["", "A", "9a", "a-b"].iter().all(|text| text.parse::<Namespace>().is_err()));
        assert!("a".repeat(33).parse::<Namespace>().is_err());
    }
}
