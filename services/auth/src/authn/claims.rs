//! Claims: JSON without ambiguity.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value};

use super::TokenError;

/// Seconds since 1970 beyond which a JSON number is not exact.
const SECONDS_MAX: f64 = 9_007_199_254_740_992.0;

/// A JSON object without duplicate names, which parsers interpret differently.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Claims(Map<String, Value>);

impl Claims {
    /// Parses an object.
    pub(super) fn parse(json: &[u8]) -> Result<Self, serde_json::Error> {
        let mut reader = serde_json::Deserializer::from_slice(json);
        let value = Strict.deserialize(&mut reader)?;
        reader.end()?;
        match value {
            Value::Object(claims) => Ok(Self(claims)),
            _ => Err(serde_json::Error::custom("expected an object")),
        }
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// The claim at a path. Names may contain dots (URIs do), so a name that matches as a whole
    /// takes precedence.
    pub(super) fn at(&self, path: &str) -> Option<&Value> {
        find(&self.0, path).filter(|value| !value.is_null())
    }

    /// A string claim, if present.
    pub(super) fn text(&self, path: &str) -> Result<Option<&str>, TokenError> {
        self.at(path).map(|value| value.as_str().ok_or(TokenError::Claims)).transpose()
    }

    /// A claim that is a string or a list of strings. Any other type is an error rather than
    /// ignored: a policy may forbid something to one of its members.
    pub(super) fn list(&self, path: &str) -> Result<Vec<&str>, TokenError> {
        match self.at(path) {
            None => Ok(Vec::new()),
            Some(Value::String(text)) => Ok(vec![text]),
            Some(Value::Array(list)) => {
                list.iter().map(|value| value.as_str().ok_or(TokenError::Claims)).collect()
            }
            Some(_) => Err(TokenError::Claims),
        }
    }

    /// A time in seconds since 1970, if present. Some issuers write fractions of a second.
    pub(super) fn seconds(&self, name: &str) -> Result<Option<u64>, TokenError> {
        let seconds = |value: &Value| {
            let seconds = value.as_f64().filter(|seconds| (0.0..SECONDS_MAX).contains(seconds));
            seconds.map(|seconds| seconds as u64).ok_or(TokenError::Claims)
        };
        self.0.get(name).map(seconds).transpose()
    }
}

impl From<Map<String, Value>> for Claims {
    fn from(claims: Map<String, Value>) -> Self {
        Self(claims)
    }
}

impl<'de> Deserialize<'de> for Claims {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Strict.deserialize(deserializer)? {
            Value::Object(claims) => Ok(Self(claims)),
            _ => Err(D::Error::custom("expected an object")),
        }
    }
}

fn find<'a>(claims: &'a Map<String, Value>, path: &str) -> Option<&'a Value> {
    claims.get(path).or_else(|| {
        path.rmatch_indices('.').find_map(|(at, _)| {
            let within = claims.get(&path[..at])?.as_object()?;
            find(within, &path[at + 1..])
        })
    })
}

/// Deserializes a value without duplicate names in any object.
struct Strict;

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(value) = access.next_element_seed(Self)? {
            list.push(value);
        }
        Ok(list.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(name) = access.next_key::<String>()? {
            let value = access.next_value_seed(Self)?;
            if object.insert(name, value).is_some() {
                return Err(A::Error::custom("duplicate name"));
            }
        }
        Ok(object.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(json: &str) -> Claims {
        Claims::parse(json.as_bytes()).unwrap()
    }

    #[test]
    fn a_duplicate_name_is_rejected_at_any_depth() {
        for json in [
            r#"{"sub":"alice","sub":"bob"}"#,
            r#"{"sub":"alice","s\u0075b":"bob"}"#,
            r#"{"a":[{"b":1,"b":1}]}"#,
            r#"{"realm_access":{"roles":[],"roles":["admin"]}}"#,
            "[]",
            "7",
            "{} {}",
            "",
        ] {
            assert!(Claims::parse(json.as_bytes()).is_err(), "{json}");
        }
        assert!(Claims::parse("[".repeat(100_000).as_bytes()).is_err());
        let deep = format!("{}{}", r#"{"a":"#.repeat(100_000), "}".repeat(100_000));
        assert!(Claims::parse(deep.as_bytes()).is_err());
    }

    #[test]
    fn a_path_descends_into_objects_and_a_whole_name_takes_precedence() {
        let claims = claims(
            r#"{
                "realm_access": { "roles": ["a"] },
                "https://acme.example/roles": "b",
                "https://acme.example/app": { "roles": ["c"], "x.y": { "z": "d" } },
                "a.b": "whole", "a": { "b": "path" },
                "none": null
            }"#,
        );
        for (path, expected) in [
            ("realm_access.roles", vec!["a"]),
            ("https://acme.example/roles", vec!["b"]),
            ("https://acme.example/app.roles", vec!["c"]),
            ("https://acme.example/app.x.y.z", vec!["d"]),
            ("a.b", vec!["whole"]),
            ("none", vec![]),
            ("realm_access.none", vec![]),
            ("realm_access.roles.a", vec![]),
            (".", vec![]),
            ("", vec![]),
        ] {
            assert_eq!(claims.list(path).unwrap(), expected, "{path}");
        }
    }

    #[test]
    fn a_claim_of_a_wrong_type_is_an_error_rather_than_absent() {
        let claims = claims(
            r#"{"groups":["a",1],"roles":{"a":1},"email":1,"exp":"1","nbf":-1,"iat":1e300,"a":18446744073709551615}"#,
        );
        assert!(claims.list("groups").is_err() && claims.list("roles").is_err());
        assert!(claims.text("email").is_err());
        for time in ["exp", "nbf", "iat", "a"] {
            assert!(claims.seconds(time).is_err(), "{time}");
        }
    }

    #[test]
    fn a_time_may_have_a_fraction() {
        let claims = claims(r#"{"exp":1700000000.9,"iat":1700000000}"#);
        assert_eq!(claims.seconds("exp").unwrap(), Some(1_700_000_000));
        assert_eq!(claims.seconds("iat").unwrap(), Some(1_700_000_000));
        assert_eq!(claims.seconds("nbf").unwrap(), None);
    }
}
