//! Outgoing JSON-RPC messages.

use std::sync::Arc;

use axum::{
    body::Body,
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use rmcp::{
    ErrorData,
    model::{CacheScope, ErrorCode, MetaObject, ServerResult},
};
use serde::Serialize;
use serde_json::{Value, value::RawValue};

use super::revision::ProtocolRevision;
use crate::{admitted::ToolPage, catalog::ToolForm};

#[derive(Serialize)]
struct SuccessMessage<'a, R> {
    jsonrpc: &'a str,
    id: &'a Value,
    result: &'a R,
}

/// Like rmcp's `ListToolsResult`, with tools that are serialized already.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ToolsResult<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    result_type: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_scope: Option<CacheScope>,
    tools: Vec<&'a RawValue>,
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
    /// A page of tools.
    Tools {
        page: Arc<ToolPage>,
        ttl_ms: Option<u64>,
        scope: Option<CacheScope>,
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
        Ok(MethodOutcome::Tools { page, ttl_ms, scope }) => {
            (StatusCode::OK, tools_response(id, &page, (ttl_ms, scope), is_stateless))
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

/// Serializes a page of tools as rmcp serializes a `ListToolsResult`, from the JSON of each tool.
fn tools_response(
    id: &Value,
    page: &ToolPage,
    (ttl_ms, cache_scope): (Option<u64>, Option<CacheScope>),
    is_stateless: bool,
) -> Bytes {
    let tools = page.tools.iter().filter_map(|listed| {
        let form = ToolForm { with_ui: listed.with_ui, with_any_output: is_stateless };
        listed.tool.json(form)
    });
    let tools: Vec<_> = tools.collect();
    let size: usize = tools.iter().map(|tool| tool.get().len() + 1).sum();
    let result_type = is_stateless.then_some("complete");
    let next_cursor = page.next.as_deref();
    let result = ToolsResult { result_type, next_cursor, ttl_ms, cache_scope, tools };
    let message = SuccessMessage { jsonrpc: "2.0", id, result: &result };
    let mut text = Vec::with_capacity(size + 512);
    // INVARIANT: it is JSON by its types, and writing to memory does not fail.
    let _ = serde_json::to_writer(&mut text, &message);
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

#[cfg(test)]
mod tests {
    use rmcp::model::ListToolsResult;
    use serde_json::json;

    use super::*;
    use crate::{
        admitted::ListedTool,
        catalog::{ToolItem, has_ui, testdata},
    };

    /// A tool with a page, one whose output is no object, and a plain one.
    fn tools() -> Vec<Arc<ToolItem>> {
        let mut tools: Vec<_> =
            testdata::catalog().tools.iter().take(3).map(|tool| ToolItem::clone(tool)).collect();
        let ui = json!({ "ui": { "resourceUri": "ui://test/page" }, "other": 1 });
        tools[0].tool.meta = serde_json::from_value(ui).unwrap();
        assert!(has_ui(tools[0].tool.meta.as_ref()));
        tools[1].tool.output_schema = serde_json::from_value(json!({ "type": "array" })).unwrap();
        tools.into_iter().map(Arc::new).collect()
    }

    #[tokio::test]
    async fn a_page_of_tools_is_what_rmcp_serializes_in_each_revision_and_form() {
        let (tools, id, hints) = (tools(), json!("1"), (Some(30_000), Some(CacheScope::Private)));
        for (revision, with_ui, next) in [
            (ProtocolRevision::Stateless, true, Some("next")),
            (ProtocolRevision::Stateless, false, None),
            (ProtocolRevision::November2025, false, Some("next")),
            (ProtocolRevision::November2025, true, None),
            // From the JSON that was serialized before.
            (ProtocolRevision::Stateless, true, None),
        ] {
            let listed = |tool: &Arc<ToolItem>| ListedTool { tool: Arc::clone(tool), with_ui };
            let page = ToolPage {
                tools: tools.iter().map(listed).collect(),
                next: next.map(ToOwned::to_owned),
            };
            let outcome =
                MethodOutcome::Tools { page: page.into(), ttl_ms: hints.0, scope: hints.1 };
            let shown = tools.iter().map(|item| {
                let mut tool = item.tool.clone();
                if !with_ui {
                    tool.meta.iter_mut().for_each(|meta| _ = meta.0.remove("ui"));
                }
                tool
            });
            let mut expected = ListToolsResult::with_all_items(shown.collect());
            (expected.ttl_ms, expected.cache_scope) = hints;
            expected.next_cursor = next.map(ToOwned::to_owned);
            let expected = response(&id, Ok(ServerResult::from(expected).into()), revision);
            assert_eq!(response(&id, Ok(outcome), revision), expected, "{revision:?} {with_ui}");
        }
    }
}
