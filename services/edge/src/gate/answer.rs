//! What rmcp answers by itself, made to say what every answer of the edge says.

use axum::{
    Json,
    body::to_bytes,
    response::{IntoResponse as _, Response},
};
use drawbridge_sdk::RequestId;
use http::{HeaderValue, header};
use serde_json::{Value, json};

/// The largest error that is read, in bytes.
const ERROR_BYTES_MAX: usize = 64 * 1024;
/// JSON-RPC 2.0 section 5.1: not a valid request.
const INVALID_REQUEST: i32 = -32600;

/// Names the request in an answer that is an error, and lets nobody keep an answer that is one caller's.
pub(super) async fn named(mut response: Response, request_id: &RequestId) -> Response {
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if !response.status().is_client_error() && !response.status().is_server_error() {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let body = to_bytes(body, ERROR_BYTES_MAX).await.unwrap_or_default();
    let mut error = serde_json::from_slice(&body).unwrap_or_else(|_| {
        let message = String::from_utf8_lossy(&body);
        json!({ "jsonrpc": "2.0", "id": null, "error": { "code": INVALID_REQUEST, "message": message } })
    });
    if let Some(data) = error.get_mut("error").map(|error| &mut error["data"])
        && matches!(data, Value::Null | Value::Object(_))
    {
        data["requestId"] = json!(request_id.as_str());
    }
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.headers.remove(header::CONTENT_TYPE);
    let mut named = (parts.status, Json(error)).into_response();
    named.headers_mut().extend(parts.headers);
    named
}
