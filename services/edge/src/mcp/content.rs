//! Converts messages of tool services to MCP content, and back.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use drawbridge_contract::dynamic::{WireError, WireMessage};
use drawbridge_proto::mcp::v1::{
    self as pb, Role, content_block::Kind, resource_contents::Contents,
};
use rmcp::model::{
    CallToolResult, ContentBlock, GetPromptResult, MetaObject, PromptMessage, ReadResourceResult,
    Resource,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tonic::Status;

use super::json as structs;
use crate::grpc::{has_tool_result, upstream::contract_mismatch};

/// Whether a message fits its contract, and does not report a failure to the model.
pub(super) fn is_success(message: &WireMessage) -> bool {
    let results = message.parts::<pb::ToolResult>();
    results.is_ok_and(|mut results| results.pop().is_none_or(|result| !result.is_error))
        && message.decode().is_ok()
}

/// Converts a message to a tool's result: its `ToolResult`, or else the message itself, structured
/// and as text for clients that read only text.
pub(super) fn tool_result(message: &WireMessage) -> Result<CallToolResult, Status> {
    if has_tool_result(message.descriptor()) {
        return from_tool_result(parts::<pb::ToolResult>(message)?.pop().unwrap_or_default());
    }
    let text = json_text(message)?;
    // The JSON parser limits the depth; the message itself has no such limit.
    let structured =
        serde_json::from_str(&text).or_else(|_| message.json()).map_err(unconvertible_message)?;
    let mut result = CallToolResult::success(vec![ContentBlock::text(text)]);
    result.structured_content = Some(structured);
    Ok(result)
}

fn from_tool_result(tool_result: pb::ToolResult) -> Result<CallToolResult, Status> {
    let content = tool_result.content.into_iter().map(content_block).collect::<Result<_, _>>()?;
    let mut result = if tool_result.is_error {
        CallToolResult::error(content)
    } else {
        CallToolResult::success(content)
    };
    let object = tool_result.structured_content.as_ref().map(structs::from_struct);
    result.structured_content = tool_result.structured.as_ref().map(structs::from_field).or(object);
    result.meta = tool_result.meta.as_ref().and_then(|meta| match structs::from_struct(meta) {
        Value::Object(meta) => Some(MetaObject(meta)),
        _ => None,
    });
    Ok(result)
}

fn content_block(block: pb::ContentBlock) -> Result<ContentBlock, Status> {
    match block {
        pb::ContentBlock { kind: Some(Kind::Text(text)), annotations: None } => {
            Ok(ContentBlock::text(text.text))
        }
        block => typed(content(&block)?),
    }
}

/// Converts a message to a resource's contents: its `ResourceContents`, or else its JSON.
pub(super) fn resource_contents(
    message: &WireMessage,
    uri: &str,
    mime_type: Option<&str>,
) -> Result<ReadResourceResult, Status> {
    let mut found = parts::<pb::ResourceContents>(message)?;
    if found.is_empty() {
        found.push(pb::ResourceContents {
            mime_type: mime_type.unwrap_or("application/json").to_owned(),
            contents: Some(Contents::Text(json_text(message)?)),
            ..Default::default()
        });
    }
    let contents = found.into_iter().map(|mut contents| {
        if contents.uri.is_empty() {
            uri.clone_into(&mut contents.uri);
        }
        if contents.mime_type.is_empty() {
            mime_type.unwrap_or_default().clone_into(&mut contents.mime_type);
        }
        typed(resource(&contents))
    });
    Ok(ReadResourceResult::new(contents.collect::<Result<_, _>>()?))
}

/// Converts a message to a prompt: its `PromptMessage`s, and its `description`.
pub(super) fn prompt(message: &WireMessage) -> Result<GetPromptResult, Status> {
    let messages = parts::<pb::PromptMessage>(message)?.into_iter().map(|message| {
        let block = message
            .content
            .as_ref()
            .ok_or_else(|| unconvertible("a prompt message without content"))?;
        typed::<PromptMessage>(json!({ "role": role(message.role()), "content": content(block)? }))
    });
    let mut result = GetPromptResult::new(messages.collect::<Result<_, _>>()?);
    let message = message.decode().map_err(contract_mismatch)?;
    let description = message.get_field_by_name("description");
    result.description = description
        .as_ref()
        .and_then(|text| text.as_str())
        .filter(|text| !text.is_empty())
        .map(ToOwned::to_owned);
    Ok(result)
}

/// Extracts the completion from a message.
pub(super) fn completion(message: &WireMessage) -> Result<pb::Completion, Status> {
    Ok(parts(message)?.pop().unwrap_or_default())
}

/// Extracts at most `max` listed resources from a message, and the token of the next page.
pub(super) fn listed(
    message: &WireMessage,
    max: usize,
) -> Result<(Vec<Resource>, Option<String>), Status> {
    let links = parts::<pb::ResourceLink>(message)?.into_iter().take(max);
    let resources = links.map(|link| {
        let non_empty = |text: String| Some(text).filter(|text| !text.is_empty());
        let mut resource = Resource::new(link.uri, link.name);
        (resource.title, resource.description) =
            (non_empty(link.title), non_empty(link.description));
        (resource.mime_type, resource.size) = (non_empty(link.mime_type), link.size);
        resource
    });
    let message = message.decode().map_err(contract_mismatch)?;
    let token = message.get_field_by_name("next_page_token");
    let token = token.as_ref().and_then(|token| token.as_str()).filter(|token| !token.is_empty());
    Ok((resources.collect(), token.map(ToOwned::to_owned)))
}

fn parts<M: prost::Message + prost::Name + Default>(
    message: &WireMessage,
) -> Result<Vec<M>, Status> {
    message.parts().map_err(contract_mismatch)
}

/// Converts a content block to MCP's JSON.
pub(super) fn content(block: &pb::ContentBlock) -> Result<Value, Status> {
    let kind =
        block.kind.as_ref().ok_or_else(|| unconvertible("a content block without a kind"))?;
    let mut json = match kind {
        Kind::Text(text) => json!({ "type": "text", "text": text.text }),
        Kind::Image(image) => {
            let data = BASE64.encode(&image.data);
            json!({ "type": "image", "data": data, "mimeType": image.mime_type })
        }
        Kind::Audio(audio) => {
            let data = BASE64.encode(&audio.data);
            json!({ "type": "audio", "data": data, "mimeType": audio.mime_type })
        }
        Kind::Resource(contents) => json!({ "type": "resource", "resource": resource(contents) }),
        Kind::ResourceLink(link) => resource_link(link),
    };
    if let Some(annotations) = &block.annotations {
        json["annotations"] = self::annotations(annotations);
    }
    Ok(json)
}

/// The text of a content block.
pub(super) fn text_of(block: &mut pb::ContentBlock) -> Option<&mut String> {
    match block.kind.as_mut()? {
        Kind::Text(text) => Some(&mut text.text),
        Kind::Resource(pb::ResourceContents { contents: Some(Contents::Text(text)), .. }) => {
            Some(text)
        }
        _ => None,
    }
}

fn resource(contents: &pb::ResourceContents) -> Value {
    let mut json = match &contents.contents {
        Some(Contents::Blob(blob)) => json!({ "uri": contents.uri, "blob": BASE64.encode(blob) }),
        Some(Contents::Text(text)) => json!({ "uri": contents.uri, "text": text }),
        None => json!({ "uri": contents.uri, "text": "" }),
    };
    if !contents.mime_type.is_empty() {
        json["mimeType"] = json!(contents.mime_type);
    }
    json
}

fn resource_link(link: &pb::ResourceLink) -> Value {
    let mut json = json!({ "type": "resource_link", "uri": link.uri, "name": link.name });
    let texts =
        [("title", &link.title), ("description", &link.description), ("mimeType", &link.mime_type)];
    for (name, text) in texts.into_iter().filter(|(_, text)| !text.is_empty()) {
        json[name] = json!(text);
    }
    if let Some(size) = link.size {
        json["size"] = json!(size);
    }
    json
}

fn annotations(annotations: &pb::Annotations) -> Value {
    let mut json = json!({});
    if !annotations.audience.is_empty() {
        json["audience"] = annotations.audience().map(role).collect();
    }
    if let Some(priority) = annotations.priority {
        json["priority"] = json!(priority);
    }
    if let Some(time) = &annotations.last_modified {
        json["lastModified"] = json!(time.to_string());
    }
    json
}

pub(super) fn role(role: Role) -> &'static str {
    match role {
        Role::Unspecified | Role::User => "user",
        Role::Assistant => "assistant",
    }
}

/// Parses a content block that a client's model wrote.
pub(super) fn parse_block(json: &Value) -> Option<pb::ContentBlock> {
    let text = |name: &str| json[name].as_str().map(ToOwned::to_owned);
    let kind = match json["type"].as_str()? {
        "text" => Kind::Text(pb::TextContent { text: text("text")? }),
        "image" => Kind::Image(pb::ImageContent {
            data: BASE64.decode(json["data"].as_str()?).ok()?,
            mime_type: text("mimeType")?,
        }),
        "audio" => Kind::Audio(pb::AudioContent {
            data: BASE64.decode(json["data"].as_str()?).ok()?,
            mime_type: text("mimeType")?,
        }),
        _ => return None,
    };
    Some(pb::ContentBlock { kind: Some(kind), annotations: None })
}

/// Parses MCP's JSON as rmcp's type.
pub(super) fn typed<T: DeserializeOwned>(json: Value) -> Result<T, Status> {
    serde_json::from_value(json).map_err(|error| unconvertible(&error.to_string()))
}

/// Writes a message as JSON.
pub(super) fn json_text(message: &WireMessage) -> Result<String, Status> {
    message.json_text().map_err(unconvertible_message)
}

fn unconvertible_message(error: WireError) -> Status {
    match error {
        WireError::Decode(error) => contract_mismatch(error),
        WireError::Json(error) => unconvertible(&error.to_string()),
    }
}

fn unconvertible(what: &str) -> Status {
    Status::internal(format!("the tool service's response cannot be converted to MCP: {what}"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use drawbridge_contract::dynamic::MessageType;
    use prost_reflect::{DynamicMessage, Value as Field, prost::Message as _};

    use super::*;
    use crate::catalog::testdata;

    #[test]
    fn a_result_may_be_nested_as_deeply_as_its_message() {
        let descriptor = testdata::message("Tree");
        let mut tree = DynamicMessage::new(descriptor.clone());
        // Each adds two levels of JSON; JSON parsers accept 128.
        for _ in 0..90 {
            let mut parent = DynamicMessage::new(descriptor.clone());
            parent.set_field_by_name("children", Field::List(vec![Field::Message(tree)]));
            tree = parent;
        }
        let bytes = tree.encode_to_vec();
        let message = WireMessage::new(Arc::new(MessageType::new(descriptor)), bytes.into());
        let result = tool_result(&message).unwrap();
        assert!(
            result
                .structured_content
                .is_some_and(|tree| tree["children"][0]["children"].is_array())
        );
    }
}
