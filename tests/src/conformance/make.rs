//! Constructors for the contract's messages.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use drawbridge_proto::mcp::v1::{
    self as mcp, ContentBlock, InputRequest, InputRequired, Role, ToolResult, content_block::Kind,
    input_request, resource_contents::Contents,
};
use prost_types::{Struct, value};
use serde_json::Value;
use tonic::{Response, Status};

use super::{UnaryResult, pb};

pub(super) fn block(kind: Kind) -> ContentBlock {
    ContentBlock { kind: Some(kind), annotations: None }
}

pub(super) fn text(text: &str) -> ContentBlock {
    block(Kind::Text(mcp::TextContent { text: text.to_owned() }))
}

pub(super) fn bytes(base64: &str) -> Vec<u8> {
    STANDARD.decode(base64).expect("base64")
}

pub(super) fn image(data: &str) -> ContentBlock {
    block(Kind::Image(mcp::ImageContent { data: bytes(data), mime_type: "image/png".to_owned() }))
}

pub(super) fn audio(data: &str) -> ContentBlock {
    block(Kind::Audio(mcp::AudioContent { data: bytes(data), mime_type: "audio/wav".to_owned() }))
}

pub(super) fn resource(uri: &str, mime_type: &str, text: &str) -> ContentBlock {
    block(Kind::Resource(mcp::ResourceContents {
        uri: uri.to_owned(),
        mime_type: mime_type.to_owned(),
        contents: Some(Contents::Text(text.to_owned())),
    }))
}

pub(super) fn result(content: Vec<ContentBlock>) -> ToolResult {
    ToolResult { content, ..Default::default() }
}

pub(super) fn reply(content: Vec<ContentBlock>) -> UnaryResult {
    Ok(Response::new(pb::Answer { result: Some(result(content)), input_required: None }))
}

pub(super) fn reply_text(message: &str) -> UnaryResult {
    reply(vec![text(message)])
}

pub(super) fn input_required(request: InputRequired) -> pb::Answer {
    pb::Answer { result: None, input_required: Some(request) }
}

pub(super) fn contents(text: &str) -> Result<Response<pb::Contents>, Status> {
    let contents = mcp::ResourceContents {
        contents: Some(Contents::Text(text.to_owned())),
        ..Default::default()
    };
    Ok(Response::new(pb::Contents { contents: Some(contents) }))
}

pub(super) fn prompt(content: Vec<ContentBlock>) -> Result<Response<pb::Prompt>, Status> {
    let message = |content| mcp::PromptMessage { role: Role::User.into(), content: Some(content) };
    let messages = content.into_iter().map(message).collect();
    Ok(Response::new(pb::Prompt { messages, ..Default::default() }))
}

pub(super) fn form(message: &str, schema: &Value) -> InputRequest {
    let requested_schema = Some(to_struct(schema));
    let form = mcp::ElicitForm { message: message.to_owned(), requested_schema };
    InputRequest { kind: Some(input_request::Kind::Form(form)) }
}

pub(super) fn page() -> InputRequest {
    let page = mcp::ElicitUrl {
        message: "Connect your account.".to_owned(),
        url: "https://pages.test/connect".to_owned(),
        elicitation_id: String::new(),
    };
    InputRequest { kind: Some(input_request::Kind::Url(page)) }
}

pub(super) fn sampling(prompt: &str) -> InputRequest {
    let message = mcp::SamplingMessage { role: Role::User.into(), content: vec![text(prompt)] };
    let sampling = mcp::Sampling { messages: vec![message], max_tokens: 100, ..Default::default() };
    InputRequest { kind: Some(input_request::Kind::Sampling(sampling)) }
}

pub(super) fn roots() -> InputRequest {
    InputRequest { kind: Some(input_request::Kind::Roots(mcp::ListRoots {})) }
}

fn to_struct(value: &Value) -> Struct {
    let fields = value.as_object().into_iter().flatten();
    Struct { fields: fields.map(|(name, value)| (name.clone(), to_value(value))).collect() }
}

fn to_value(json: &Value) -> prost_types::Value {
    let kind = match json {
        Value::Null => value::Kind::NullValue(0),
        Value::Bool(value) => value::Kind::BoolValue(*value),
        Value::Number(number) => value::Kind::NumberValue(number.as_f64().expect("a number")),
        Value::String(text) => value::Kind::StringValue(text.clone()),
        Value::Array(list) => value::Kind::ListValue(prost_types::ListValue {
            values: list.iter().map(to_value).collect(),
        }),
        Value::Object(_) => value::Kind::StructValue(to_struct(json)),
    };
    prost_types::Value { kind: Some(kind) }
}

/// A struct as JSON text, with sorted keys.
pub(super) fn json_struct(fields: &Struct) -> String {
    let mut parts: Vec<_> =
        fields.fields.iter().map(|(name, value)| format!("{name:?}:{}", plain(value))).collect();
    parts.sort_unstable();
    format!("{{{}}}", parts.join(","))
}

fn plain(value: &prost_types::Value) -> String {
    match &value.kind {
        Some(value::Kind::StringValue(text)) => format!("{text:?}"),
        Some(value::Kind::NumberValue(number)) => number.to_string(),
        Some(value::Kind::BoolValue(value)) => value.to_string(),
        Some(value::Kind::ListValue(list)) => {
            format!("[{}]", list.values.iter().map(plain).collect::<Vec<_>>().join(","))
        }
        Some(value::Kind::StructValue(fields)) => json_struct(fields),
        _ => "null".to_owned(),
    }
}

/// The reply of a call that needs input first.
pub(super) fn require_input(request: InputRequired) -> UnaryResult {
    Ok(Response::new(input_required(request)))
}
