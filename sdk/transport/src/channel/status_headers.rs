//! Sanitizes the headers of a gRPC status. A malformed message or malformed details must not change
//! the code: tonic turns a message that is not UTF-8 into an unknown error, and panics on details
//! that are not base64.

use base64::{Engine as _, alphabet, engine::GeneralPurpose, engine::general_purpose};
use http::{HeaderMap, HeaderValue};
use percent_encoding::{AsciiSet, CONTROLS, percent_decode, utf8_percent_encode};

const MESSAGE: &str = "grpc-message";
const DETAILS: &str = "grpc-status-details-bin";

/// The characters that gRPC percent-encodes in a message: all but printable ASCII, and the percent
/// sign (gRPC over HTTP/2).
const ENCODED: &AsciiSet = &CONTROLS.add(b'%');

/// As tonic decodes it.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    general_purpose::GeneralPurposeConfig::new()
        .with_decode_padding_mode(base64::engine::DecodePaddingMode::Indifferent),
);

/// Makes the message UTF-8, and removes details that cannot be decoded.
pub(super) fn sanitize(headers: &mut HeaderMap) {
    if let Some(message) = headers.get(MESSAGE) {
        let bytes: Vec<u8> = percent_decode(message.as_bytes()).collect();
        if std::str::from_utf8(&bytes).is_err() {
            let text = String::from_utf8_lossy(&bytes);
            let encoded = utf8_percent_encode(&text, ENCODED).to_string();
            match HeaderValue::from_str(&encoded) {
                Ok(encoded) => drop(headers.insert(MESSAGE, encoded)),
                Err(_) => drop(headers.remove(MESSAGE)),
            }
        }
    }
    if headers.get(DETAILS).is_some_and(|details| BASE64.decode(details.as_bytes()).is_err()) {
        headers.remove(DETAILS);
    }
}

#[cfg(test)]
mod tests {
    use tonic::{Code, Status};

    use super::*;

    fn status(message: &[u8], details: &str) -> Status {
        let mut headers = HeaderMap::new();
        headers.insert("grpc-status", HeaderValue::from_static("5"));
        headers.insert(MESSAGE, HeaderValue::from_bytes(message).unwrap());
        headers.insert(DETAILS, HeaderValue::from_str(details).unwrap());
        sanitize(&mut headers);
        Status::from_header_map(&headers).unwrap()
    }

    #[test]
    fn a_malformed_message_or_details_do_not_change_the_status_code() {
        for (message, details, text, bytes) in [
            (b"no %E2%82%AC".as_slice(), "AAA", "no €", 2),
            (b"Gr\xfc\xdfe", "AAA=", "Gr\u{fffd}\u{fffd}e", 2),
            (b"100%25 %E4%7F", "!", "100% \u{fffd}\u{7f}", 0),
            (b"", "A", "", 0),
        ] {
            let status = status(message, details);
            assert_eq!((status.code(), status.message()), (Code::NotFound, text));
            assert_eq!(status.details().len(), bytes);
        }
    }
}
