use std::{fmt, str::FromStr};

use http::{HeaderMap, HeaderValue};
use uuid::Uuid;

/// The header and gRPC metadata key of the request id.
pub const REQUEST_ID: &str = "x-request-id";

/// The longest request id that is accepted from a caller, in bytes.
const REQUEST_ID_BYTES_MAX: usize = 128;

/// The id that correlates everything that one request causes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RequestId(HeaderValue);

/// The request id that an external caller sent. Logs and spans show it next to the request's own
/// id. Nothing depends on it: two requests may send the same one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallerRequestId(pub RequestId);

impl CallerRequestId {
    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

/// A text is not a valid request id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a request id has 1 to {REQUEST_ID_BYTES_MAX} of the characters A-Z a-z 0-9 . _ -")]
pub struct RequestIdError;

impl RequestId {
    /// A new id. Ids sort by time.
    #[must_use]
    pub fn generate() -> Self {
        let text = Uuid::now_v7().to_string();
        Self(HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("-")))
    }

    /// The id that the caller sent, or a new one if it sent none or one that is not safe to log.
    #[must_use]
    pub fn from_headers(headers: &HeaderMap) -> Self {
        Self::from_caller(headers).unwrap_or_else(Self::generate)
    }

    /// The id that the caller sent, if it is safe to log.
    #[must_use]
    pub fn from_caller(headers: &HeaderMap) -> Option<Self> {
        headers.get(REQUEST_ID)?.to_str().ok()?.parse().ok()
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }

    /// The id as a header value.
    #[must_use]
    pub fn header(&self) -> HeaderValue {
        self.0.clone()
    }
}

impl FromStr for RequestId {
    type Err = RequestIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if text.is_empty() || text.len() > REQUEST_ID_BYTES_MAX || !text.bytes().all(allowed) {
            return Err(RequestIdError);
        }
        HeaderValue::from_str(text).map(Self).map_err(|_| RequestIdError)
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_id_that_could_forge_a_log_line_is_rejected() {
        for text in ["", "a b", "a\nb", "ä", &"x".repeat(129)] {
            assert_eq!(text.parse::<RequestId>(), Err(RequestIdError), "{text:?}");
        }
        assert_eq!(
            "req-1.A_b".parse::<RequestId>().map(|id| id.to_string()),
            Ok("req-1.A_b".into())
        );
    }
}
