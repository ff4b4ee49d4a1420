//! Messages of failed calls: bounded, and never empty.

use bytes::Bytes;
use tonic::{Code, Status};

/// The longest status message that is passed on, in bytes. A longer one is truncated.
const STATUS_MESSAGE_BYTES_MAX: usize = 16 * 1024;

/// The same status with a message that is neither too long nor empty.
pub(super) fn with_message(status: Status) -> Status {
    let text = status.message();
    let message = if text.trim().is_empty() {
        default_message(status.code()).to_owned()
    } else if text.len() > STATUS_MESSAGE_BYTES_MAX {
        let end = text.floor_char_boundary(STATUS_MESSAGE_BYTES_MAX);
        format!("{}… [truncated: the message has {} bytes]", &text[..end], text.len())
    } else {
        return status;
    };
    let details = Bytes::copy_from_slice(status.details());
    Status::with_details_and_metadata(status.code(), message, details, status.metadata().clone())
}

/// A message for a model, which cannot act on an empty one.
fn default_message(code: Code) -> &'static str {
    match code {
        Code::InvalidArgument => {
            "the tool service rejected the arguments (INVALID_ARGUMENT) without a reason"
        }
        Code::FailedPrecondition => {
            "the call is not possible in the current state (FAILED_PRECONDITION); \
             the tool service gave no reason"
        }
        Code::OutOfRange => {
            "an argument is out of range (OUT_OF_RANGE); the tool service did not name it"
        }
        Code::NotFound => "the requested item was not found (NOT_FOUND)",
        Code::AlreadyExists => "the item to be created already exists (ALREADY_EXISTS)",
        Code::Aborted => "the call was aborted by a conflict (ABORTED)",
        Code::PermissionDenied => {
            "the tool service denied the call (PERMISSION_DENIED) without a reason"
        }
        Code::ResourceExhausted => "a quota of the tool service is exhausted (RESOURCE_EXHAUSTED)",
        code => code.description(),
    }
}

#[cfg(test)]
mod tests {
    use tonic::metadata::MetadataMap;

    use super::*;

    #[test]
    fn a_message_that_is_too_long_is_truncated_with_a_note() {
        let whole = "ä".repeat(STATUS_MESSAGE_BYTES_MAX / 2);
        assert_eq!(with_message(Status::not_found(whole.clone())).message(), whole);
        let long = "x".to_owned() + &whole;
        let status = Status::with_details_and_metadata(
            Code::NotFound,
            long.clone(),
            Bytes::from_static(b"details"),
            MetadataMap::new(),
        );
        let truncated = with_message(status);
        assert_eq!(
            (truncated.code(), truncated.details()),
            (Code::NotFound, b"details".as_slice())
        );
        let (text, mark) = truncated.message().split_once('…').unwrap();
        assert!(
            long.starts_with(text) && text.len() > STATUS_MESSAGE_BYTES_MAX - 2,
            "{}",
            text.len()
        );
        assert_eq!(mark, " [truncated: the message has 16385 bytes]");
    }

    #[test]
    fn a_status_without_a_message_gets_a_default_one() {
        for code in 1..=16 {
            for message in ["", " \n"] {
                let status = with_message(Status::new(Code::from(code), message));
                assert!(status.message().len() > 10, "{status:?}");
            }
        }
        assert_eq!(with_message(Status::aborted("why")).message(), "why");
    }
}
