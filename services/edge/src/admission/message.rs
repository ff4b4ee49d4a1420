//! Parses a JSON-RPC message.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer};
use serde_json::{Value, value::RawValue};

use super::params::{self, ParamsLimits};
use crate::{
    admitted::{ID_BYTES_MAX, Kind, Message},
    budget::BodyPermit,
    refusal::Refusal,
};

/// The longest method name, in bytes: spans and logs contain it.
const METHOD_BYTES_MAX: usize = 64;
// serde rejects a duplicate field, so no two parsers can read a message differently.
#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    jsonrpc: Cow<'a, str>,
    #[serde(borrow, default, deserialize_with = "present")]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    method: Option<Cow<'a, str>>,
    #[serde(borrow)]
    params: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    result: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    error: Option<&'a RawValue>,
}

/// Distinguishes null from an absent field.
fn present<'de: 'a, 'a, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

impl Message {
    /// Parses a message of an authenticated caller. The memory of its values is charged to
    /// `permit`.
    pub(crate) fn parse(
        body: &[u8],
        limits: ParamsLimits,
        permit: &mut BodyPermit,
    ) -> Result<Self, Refusal> {
        // The error of serde would contain the whole other value.
        match body.trim_ascii_start().first() {
            Some(b'[') => {
                return Err(Refusal::Invalid("it must be one object, not a batch".to_owned()));
            }
            Some(b'"' | b'-' | b'0'..=b'9' | b't' | b'f' | b'n') => {
                return Err(Refusal::Invalid("it must be one object".to_owned()));
            }
            _ => {}
        }
        let envelope: Envelope<'_> = match serde_json::from_slice(body) {
            Ok(envelope) => envelope,
            Err(error) if error.is_data() => return Err(Refusal::Invalid(error.to_string())),
            Err(error) => return Err(Refusal::Parse(error.to_string())),
        };
        let Envelope { jsonrpc, id, method, params, result, error } = envelope;
        if jsonrpc != "2.0" {
            return Err(Refusal::Invalid("jsonrpc must be \"2.0\"".to_owned()));
        }
        let id = id.map(read_id).transpose()?;
        let kind = match (&method, &id, &result, &error) {
            (Some(_), Some(_), None, None) => Kind::Request,
            (Some(_), None, None, None) => Kind::Notification,
            (None, Some(_), Some(_), None) | (None, Some(_), None, Some(_)) => Kind::Response,
            _ => {
                let text = "it must have a method, or an id with its result or error";
                return Err(Refusal::Invalid(text.to_owned()));
            }
        };
        let method = method.unwrap_or_default();
        if method.len() > METHOD_BYTES_MAX {
            return Err(Refusal::Invalid(format!(
                "method is longer than {METHOD_BYTES_MAX} bytes"
            )));
        }
        let mut read = |name, raw: Option<&RawValue>| {
            raw.map(|raw| read_object(name, raw, limits, permit)).transpose()
        };
        let params = read("params", params)?.unwrap_or_default();
        let (result, error) = (read("result", result)?, read("error", error)?);
        let (id, method) = (id.unwrap_or_default(), method.into_owned());
        Ok(Self { kind, id, method, params, result, error })
    }
}

fn read_id(raw: &RawValue) -> Result<Value, Refusal> {
    let text = raw.get();
    if text.len() > ID_BYTES_MAX {
        return Err(Refusal::Invalid(format!("id is longer than {ID_BYTES_MAX} bytes")));
    }
    let problem = || Refusal::Invalid("id must be a string or a whole number".to_owned());
    let id = match text.as_bytes().first() {
        Some(b'"' | b'-' | b'0'..=b'9') => serde_json::from_str(text).map_err(|_| problem())?,
        _ => Value::Null,
    };
    match &id {
        Value::String(_) => Ok(id),
        Value::Number(number) if number.as_f64().is_some_and(|number| number.fract() == 0.0) => {
            Ok(id)
        }
        _ => Err(problem()),
    }
}

fn read_object(
    name: &str,
    raw: &RawValue,
    limits: ParamsLimits,
    permit: &mut BodyPermit,
) -> Result<Value, Refusal> {
    if !raw.get().starts_with('{') {
        return Err(Refusal::Invalid(format!("{name} must be an object")));
    }
    params::parse(raw, limits, permit).map_err(|error| {
        let problem = error.to_string();
        if problem.starts_with(params::NO_MEMORY) {
            return Refusal::Overloaded;
        }
        if error.is_data() { Refusal::Invalid(problem) } else { Refusal::Parse(problem) }
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        budget::{BodyBudget, BodyLimits},
        traffic::queue::CallerHash,
    };

    fn parse(body: &[u8]) -> Result<Message, Refusal> {
        let budget = Arc::new(BodyBudget::new(BodyLimits::default()));
        let limits = budget.limits().into();
        Message::parse(body, limits, &mut budget.permit(CallerHash::new(0)))
    }

    fn check(body: &str, reason: &str) {
        let refusal = parse(body.as_bytes()).expect_err(body);
        assert_eq!(refusal.reason(), reason, "{body}");
    }

    #[test]
    fn an_invalid_message_is_rejected_with_its_reason() {
        check("", "parse");
        check("{", "parse");
        check(r#"{"jsonrpc":"2.0",}"#, "parse");
        check("[]", "invalid_request");
        check("1", "invalid_request");
        check("{}", "invalid_request");
        check(r#"{"jsonrpc":"1.0","method":"ping"}"#, "invalid_request");
        check(r#"{"jsonrpc":"2.0","id":{},"method":"ping"}"#, "invalid_request");
        check(r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":[]}"#, "invalid_request");
        check(
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","method":"tools/call"}"#,
            "invalid_request",
        );
        check(&format!(r#"{{"jsonrpc":"2.0","method":"{}"}}"#, "x".repeat(65)), "invalid_request");
    }

    #[test]
    fn params_beyond_their_limits_are_rejected() {
        let params =
            |text: &str| format!(r#"{{"jsonrpc":"2.0","method":"ping","params":{{"a":{text}}}}}"#);
        let nested = |depth| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        assert!(parse(params(&nested(62)).as_bytes()).is_ok());
        check(&params(&nested(64)), "invalid_request");
        check(&params(&nested(100_000)), "invalid_request");
        let many = |values: usize| params(&format!("[{}1]", "1,".repeat(values)));
        assert!(parse(many(30_000).as_bytes()).is_ok());
        check(&many(33_000), "invalid_request");
        check(&params(r#"{"b":1,"b":2}"#), "invalid_request");
        check(&params(r#"{"b":1,"\u0062":2}"#), "invalid_request");
        check(&params(r#""a\u0000b""#), "invalid_request");
        check(&params(r#"{"a\u0000b":1}"#), "invalid_request");
    }

    #[test]
    fn an_id_is_a_bounded_string_or_whole_number() {
        let id = |id: &str| format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"ping"}}"#);
        for good in [
            "1",
            "-1",
            "1.0",
            "9223372036854775808",
            r#""a""#,
            &format!("\"{}\"", "x".repeat(1000)),
        ] {
            assert!(parse(id(good).as_bytes()).is_ok(), "{good}");
        }
        for bad in [
            "true",
            "[]",
            "{}",
            "null",
            "1.5",
            &format!("\"{}\"", "x".repeat(1030)),
            &format!("[{}[]]", "[],".repeat(900)),
        ] {
            check(&id(bad), "invalid_request");
        }
    }

    proptest::proptest! {
        /// Bounded parsing yields what `serde_json` reads.
        #[test]
        fn parsed_params_equal_those_that_were_sent(
            text in r#"([\{\}\[\],:"ab01.e\\ -]|true|null|"a"|\{"a":){0,40}"#,
        ) {
            let body = format!(r#"{{"jsonrpc":"2.0","method":"ping","params":{{"a":{text}}}}}"#);
            let theirs = serde_json::from_str::<Value>(&body).ok();
            let theirs = theirs.map(|value| value["params"].clone());
            if let Ok(ours) = parse(body.as_bytes()) {
                proptest::prop_assert_eq!(Some(ours.params), theirs);
            }
        }
    }

    #[test]
    fn a_tool_call_names_its_span() {
        let body =
            br#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"code_search"}}"#;
        assert_eq!(parse(body).unwrap().span_name(), "tools/call code_search");
    }
}
