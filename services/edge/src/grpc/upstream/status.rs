//! What a service says of a failed call, within bounds and never nothing.

use bytes::Bytes;
use tonic::{Code, Status};

/// The longest message of a status that is passed on, in bytes. A longer one is cut, and says so.
const STATUS_MESSAGE_BYTES_MAX: usize = 16 * 1024;

/// The same status with a message that is neither too long nor empty.
pub(super) fn readable(status: Status) -> Status {
    let given = status.message();
    let message = if given.trim().is_empty() {
        in_words(status.code()).to_owned()
    } else if given.len() > STATUS_MESSAGE_BYTES_MAX {
        let end = given.floor_char_boundary(STATUS_MESSAGE_BYTES_MAX);
        format!("{}… [cut: the message has {} bytes]", &given[..end], given.len())
    } else {
        return status;
    };
    let details = Bytes::copy_from_slice(status.details());
    Status::with_details_and_metadata(status.code(), message, details, status.metadata().clone())
}

/// For a model, which cannot act on silence.
fn in_words(code: Code) -> &'static str {
    match code {
        Code::InvalidArgument => {
            "the tool service refuses the arguments (INVALID_ARGUMENT) and does not say why"
        }
        Code::FailedPrecondition => {
            "the call does not fit the present state (FAILED_PRECONDITION); the tool service does not say why"
        }
        Code::OutOfRange => {
            "an argument is out of range (OUT_OF_RANGE); the tool service does not say which"
        }
        Code::NotFound => "what was asked for is not found (NOT_FOUND)",
        Code::AlreadyExists => "what was to be created exists already (ALREADY_EXISTS)",
        Code::Aborted => "the call was aborted by a conflict (ABORTED)",
        Code::PermissionDenied => {
            "the tool service does not permit this (PERMISSION_DENIED) and does not say why"
        }
        Code::ResourceExhausted => "a quota of the tool service is used up (RESOURCE_EXHAUSTED)",
        code => code.description(),
    }
}

#[cfg(test)]
mod tests {
    use tonic::metadata::MetadataMap;

    use super::*;

    #[test]
    fn a_message_that_is_too_long_is_cut_and_says_so() {
        let whole = "ä".repeat(STATUS_MESSAGE_BYTES_MAX / 2);
        assert_eq!(readable(Status::not_found(whole.clone())).message(), whole);
        let long = "x".to_owned() + &whole;
        let status = Status::with_details_and_metadata(
            Code::NotFound,
            long.clone(),
            Bytes::from_static(b"details"),
            MetadataMap::new(),
        );
        let cut = readable(status);
        assert_eq!((cut.code(), cut.details()), (Code::NotFound, b"details".as_slice()));
        let (text, mark) = cut.message().split_once('…').unwrap();
        assert!(
            long.starts_with(text) && text.len() > STATUS_MESSAGE_BYTES_MAX - 2,
            "{}",
            text.len()
        );
        assert_eq!(mark, " [cut: the message has 16385 bytes]");
    }

    #[test]
    fn no_code_comes_without_words() {
        for code in 1..=16 {
            for message in ["", " \n"] {
                let status = readable(Status::new(Code::from(code), message));
                assert!(status.message().len() > 10, "{status:?}");
            }
        }
        assert_eq!(readable(Status::aborted("why")).message(), "why");
    }
}
