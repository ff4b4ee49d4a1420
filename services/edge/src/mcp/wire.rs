//! JSON-RPC messages as they go out.

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

use super::revision::Revision;

#[derive(Serialize)]
struct Success<'a> {
    jsonrpc: &'a str,
    id: &'a Value,
    result: &'a ServerResult,
}

#[derive(Serialize)]
struct Failure<'a> {
    jsonrpc: &'a str,
    id: &'a Value,
    error: &'a ErrorData,
}

#[derive(Serialize)]
struct Call<'a, P> {
    jsonrpc: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<i64>,
    method: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    params: Option<P>,
}

/// What answers a request.
#[derive(Debug)]
pub(super) enum Outcome {
    Result(Box<ServerResult>),
    /// A tool's result that is one JSON object, as text and structured. Nothing on its way changes it, so it is
    /// written once.
    Object {
        json: String,
        meta: MetaObject,
    },
}

impl<T: Into<ServerResult>> From<T> for Outcome {
    fn from(result: T) -> Self {
        Self::Result(Box::new(result.into()))
    }
}

/// The answer to the request `id`, in the shape of its revision, with the status that it has on its own.
pub(super) fn answer(
    id: &Value,
    outcome: Result<Outcome, ErrorData>,
    revision: Revision,
) -> (StatusCode, Bytes) {
    let is_stateless = revision == Revision::Stateless;
    match outcome {
        Ok(Outcome::Object { json, meta }) => {
            (StatusCode::OK, object(id, &json, &meta, is_stateless))
        }
        Ok(Outcome::Result(mut result)) => {
            if is_stateless {
                result.fill_missing_cache_hints();
            } else {
                result.strip_result_type_for_legacy_peer();
                result.strip_non_object_output_for_legacy_peer();
            }
            (StatusCode::OK, bytes(&Success { jsonrpc: "2.0", id, result: &result }))
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

/// A result as rmcp's `CallToolResult` is written.
fn object(id: &Value, json: &str, meta: &MetaObject, is_stateless: bool) -> Bytes {
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

/// The status of an error, in the stateless revision.
fn status(code: ErrorCode) -> StatusCode {
    match code {
        ErrorCode::UNSUPPORTED_PROTOCOL_VERSION
        | ErrorCode::MISSING_REQUIRED_CLIENT_CAPABILITY
        | ErrorCode::HEADER_MISMATCH => StatusCode::BAD_REQUEST,
        ErrorCode::METHOD_NOT_FOUND => StatusCode::NOT_FOUND,
        _ => StatusCode::OK,
    }
}

/// An error that answers the request `id`.
pub(super) fn error(id: &Value, error: &ErrorData) -> Bytes {
    bytes(&Failure { jsonrpc: "2.0", id, error })
}

pub(super) fn notification(method: &str, params: Option<&impl Serialize>) -> Bytes {
    bytes(&Call { jsonrpc: "2.0", id: None, method, params })
}

/// A request to the client.
pub(super) fn request(id: i64, method: &str, params: Option<&Value>) -> Bytes {
    bytes(&Call { jsonrpc: "2.0", id: Some(id), method, params })
}

fn bytes(message: &impl Serialize) -> Bytes {
    // INVARIANT: messages are JSON by their types; their maps have texts as keys.
    serde_json::to_vec(message).unwrap_or_default().into()
}

/// A whole message as a response.
pub(super) fn whole(status: StatusCode, message: Bytes) -> Response {
    let mut response = (status, Body::from(message)).into_response();
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
