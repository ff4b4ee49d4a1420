//! gRPC: calls to tool services, and the JSON Schema of their messages.

use prost_reflect::{Kind, MessageDescriptor};

pub(crate) mod comments;
pub(crate) mod schema;
pub(crate) mod upstream;
#[cfg(test)]
pub(crate) use self::schema::tests::properties::generate;

const TOOL_RESULT: &str = "drawbridge.mcp.v1.ToolResult";

/// Whether a message is or contains a `ToolResult`, in which the tool composes its own content.
pub(crate) fn has_tool_result(message: &MessageDescriptor) -> bool {
    let is_tool_result = |message: &MessageDescriptor| message.full_name() == TOOL_RESULT;
    is_tool_result(message)
        || message
            .fields()
            .any(|field| matches!(field.kind(), Kind::Message(kind) if is_tool_result(&kind)))
}
