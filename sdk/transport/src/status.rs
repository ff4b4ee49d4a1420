//! gRPC statuses as text.

use std::error::Error as _;

use tonic::{Code, Status};

use drawbridge_runtime::error_chain;

/// The metadata key of the reason of a status, where its code is not enough for the caller.
pub const REASON: &str = "drawbridge-reason";

/// A status as readable text: gRPC's name of the code, the message, and the error chain. The type's
/// own `Display` prints its source in Rust's debug format.
#[must_use]
pub fn status_text(status: &Status) -> String {
    let (name, message) = (status_name(status.code()), status.message());
    match status.source() {
        // The message of a broken connection repeats its first cause, or only says that it broke.
        Some(source) => format!("{name}: {}", error_chain(source)),
        None if message.is_empty() => name.to_owned(),
        None => format!("{name}: {message}"),
    }
}

/// The name of a code as gRPC writes it.
#[must_use]
pub fn status_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use tonic::{Request, client::Grpc, transport::Endpoint};
    use tonic_prost::ProstCodec;

    use super::*;

    #[tokio::test]
    async fn a_status_is_text_without_debug_output() {
        assert_eq!(status_text(&Status::not_found("no such file")), "NOT_FOUND: no such file");
        assert_eq!(status_text(&Status::unavailable("")), "UNAVAILABLE");
        // Nothing listens there.
        let mut client = Grpc::new(Endpoint::from_static("http://127.0.0.1:1").connect_lazy());
        let codec = ProstCodec::<(), ()>::default();
        let path = "/x.Y/Z".parse().unwrap();
        client.ready().await.unwrap();
        let status = client.unary(Request::new(()), path, codec).await.unwrap_err();
        let text = status_text(&status);
        assert!(text.starts_with("UNAVAILABLE: ") && text.contains("Connection refused"), "{text}");
        assert!(!text.contains('{') && !text.contains("kind:"), "{text}");
    }
}
