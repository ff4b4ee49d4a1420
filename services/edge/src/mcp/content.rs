//! Messages of tool services as MCP content.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use drawbridge_proto::mcp::v1 as pb;
use drawbridge_sdk::dynamic;
use prost_reflect::{DynamicMessage, ReflectMessage as _, Value as Field};
use rmcp::model::{CallToolResult, ContentBlock, ResourceContents};
use tonic::Status;

/// A message as a tool's result: structured, and as text for clients that read only that.
pub(super) fn tool_result(message: &DynamicMessage) -> Result<CallToolResult, Status> {
    let json = to_json(message)?;
    let mut result = CallToolResult::success(vec![ContentBlock::text(json.to_string())]);
    result.structured_content = Some(json);
    Ok(result)
}

/// A message as a resource's contents: its `ResourceContents`, or else the message itself as JSON.
pub(super) fn resource_contents(
    message: &DynamicMessage,
    uri: &str,
    mime_type: Option<&str>,
) -> Result<Vec<ResourceContents>, Status> {
    let contents: Vec<_> = message.fields().flat_map(|(_, field)| contents_in(field)).collect();
    if contents.is_empty() {
        let json = to_json(message)?.to_string();
        let mime_type = mime_type.unwrap_or("application/json");
        return Ok(vec![ResourceContents::text(json, uri).with_mime_type(mime_type)]);
    }
    Ok(contents.into_iter().map(|contents| resource(contents, uri, mime_type)).collect())
}

fn contents_in(field: &Field) -> Vec<pb::ResourceContents> {
    let read = |message: &DynamicMessage| {
        (message.descriptor().full_name() == "drawbridge.mcp.v1.ResourceContents")
            .then(|| message.transcode_to().ok())
            .flatten()
    };
    match field {
        Field::Message(message) => read(message).into_iter().collect(),
        Field::List(list) => list.iter().filter_map(|item| read(item.as_message()?)).collect(),
        _ => Vec::new(),
    }
}

fn resource(contents: pb::ResourceContents, uri: &str, mime_type: Option<&str>) -> ResourceContents {
    let or = |text: String, other: Option<&str>| {
        if text.is_empty() { other.unwrap_or_default().to_owned() } else { text }
    };
    let uri = or(contents.uri, Some(uri));
    let mime_type = or(contents.mime_type, mime_type);
    let read = match contents.contents {
        Some(pb::resource_contents::Contents::Blob(blob)) => ResourceContents::blob(BASE64.encode(blob), uri),
        Some(pb::resource_contents::Contents::Text(text)) => ResourceContents::text(text, uri),
        None => ResourceContents::text("", uri),
    };
    if mime_type.is_empty() { read } else { read.with_mime_type(mime_type) }
}

fn to_json(message: &DynamicMessage) -> Result<serde_json::Value, Status> {
    dynamic::to_json(message).map_err(|_| Status::internal("the tool service's answer has no JSON form"))
}
