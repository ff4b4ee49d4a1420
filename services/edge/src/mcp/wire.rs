//! Outgoing JSON-RPC messages.

use axum::{
    body::Body,
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use rmcp::{
    ErrorData,
    model::{ErrorCode, MetaObject, ServerResult},
};
use serde::Serialize;
use serde_json::Value;

use super::revision::ProtocolRevision;

#[derive(Serialize)]
struct SuccessMessage<'a> {
    jsonrpc: &'a str,
    id: &'a Value,
    result: &'a ServerResult,
}

#[derive(Serialize)]
struct ErrorMessage<'a> {
    jsonrpc: &'a str,
    id: &'a Value,
    error: &'a ErrorData,
}

#[derive(Serialize)]
struct OutgoingMessage<'a, P> {
    jsonrpc: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<i64>,
    method: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    params: Option<P>,
}

/// The result of a method.
#[derive(Debug)]
pub(super) enum MethodOutcome {
    Result(Box<ServerResult>),
    /// A tool's result that is one JSON object, as text and structured. Nothing changes it, so the
    /// object is serialized once.
    Object {
        json: String,
        meta: MetaObject,
    },
}

impl<T: Into<ServerResult>> From<T> for MethodOutcome {
    fn from(result: T) -> Self {
        Self::Result(Box::new(result.into()))
    }
}

/// The response to the request `id` in the form of its revision, and the HTTP status for a response
/// without a stream.
pub(super) fn response(
    id: &Value,
    outcome: Result<MethodOutcome, ErrorData>,
    revision: ProtocolRevision,
) -> (StatusCode, Bytes) {
    let is_stateless = revision == ProtocolRevision::Stateless;
    match outcome {
        Ok(MethodOutcome::Object { json, meta }) => {
            (StatusCode::OK, object_response(id, &json, &meta, is_stateless))
        }
        Ok(MethodOutcome::Result(mut result)) => {
            if is_stateless {
                result.fill_missing_cache_hints();
            } else {
                result.strip_result_type_for_legacy_peer();
                result.strip_non_object_output_for_legacy_peer();
            }
            (StatusCode::OK, bytes(&SuccessMessage { jsonrpc: "2.0", id, result: &result }))
        }
        Err(mut error) => {
            let status = if is_stateless { status(error.code) } else { StatusCode::OK };
            if is_stateless && error.code == ErrorCode::RESOURCE_NOT_FOUND {
                error.code = ErrorCode::INVALID_PARAMS;
            }
            (status, self::error(id, &error))
        }
    }
}

/// Serializes a result as rmcp serializes a `CallToolResult`.
fn object_response(id: &Value, json: &str, meta: &MetaObject, is_stateless: bool) -> Bytes {
    let mut text = Vec::with_capacity(json.len() * 2 + json.len() / 4 + 256);
    text.extend_from_slice(br#"{"jsonrpc":"2.0","id":"#);
    // INVARIANT: all three are JSON by their types, and writing to memory does not fail.
    let _ = serde_json::to_writer(&mut text, id);
    text.extend_from_slice(br#","result":{"#);
    if is_stateless {
        text.extend_from_slice(br#""resultType":"complete","#);
    }
    text.extend_from_slice(br#""content":[{"type":"text","text":"#);
    let _ = serde_json::to_writer(&mut text, json);
    text.extend_from_slice(br#"}],"structuredContent":"#);
    text.extend_from_slice(json.as_bytes());
    text.extend_from_slice(br#","isError":false,"_meta":"#);
    let _ = serde_json::to_writer(&mut text, meta);
    text.extend_from_slice(b"}}");
    text.into()
}

/// The HTTP status of an error in the stateless revision.
fn status(code: ErrorCode) -> StatusCode {
    match code {
        ErrorCode::UNSUPPORTED_PROTOCOL_VERSION
        | ErrorCode::MISSING_REQUIRED_CLIENT_CAPABILITY
        | ErrorCode::HEADER_MISMATCH => StatusCode::BAD_REQUEST,
        ErrorCode::METHOD_NOT_FOUND => StatusCode::NOT_FOUND,
        _ => StatusCode::OK,
    }
}

/// An error response to the request `id`.
pub(super) fn error(id: &Value, error: &ErrorData) -> Bytes {
    bytes(&ErrorMessage { jsonrpc: "2.0", id, error })
}

pub(super) fn notification(method: &str, params: Option<&impl Serialize>) -> Bytes {
    bytes(&OutgoingMessage { jsonrpc: "2.0", id: None, method, params })
}

/// A request to the client.
pub(super) fn request(id: i64, method: &str, params: Option<&Value>) -> Bytes {
    bytes(&OutgoingMessage { jsonrpc: "2.0", id: Some(id), method, params })
}

fn bytes(message: &impl Serialize) -> Bytes {
    // INVARIANT: messages are JSON by their types; their maps have string keys.
    serde_json::to_vec(message).unwrap_or_default().into()
}

/// An HTTP response that is one JSON message.
pub(super) fn json_response(status: StatusCode, message: Bytes) -> Response {
    let mut response = (status, Body::from(message)).into_response();
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
