//! The input that a client supports, by the capabilities that it declares.

use drawbridge_proto::mcp::v1::{self as pb, input_request::Kind as RequestKind};
use rmcp::model::{ClientCapabilities, ExtensionCapabilities};
use serde_json::{Value, json};

use super::{json as structs, revision::ProtocolRevision};

/// The longest `extensions` of a client that services receive, in bytes of JSON: a session stores
/// them.
const EXTENSIONS_BYTES_MAX: usize = 4096;
/// How deeply extensions may nest objects and arrays. Each level is three nested protobuf messages,
/// and protobuf parsers accept 100.
const EXTENSIONS_LEVELS_MAX: usize = 16;

/// The input that a client supports.
pub(super) fn client_capabilities(
    capabilities: Option<&ClientCapabilities>,
) -> pb::ClientCapabilities {
    let Some(declared) = capabilities else { return pb::ClientCapabilities::default() };
    pb::ClientCapabilities {
        // A client that declares no mode supports forms (2025-11-25).
        elicit_form: declared
            .elicitation
            .as_ref()
            .is_some_and(|mode| mode.form.is_some() || mode.url.is_none()),
        elicit_url: declared.elicitation.as_ref().is_some_and(|mode| mode.url.is_some()),
        sampling: declared.sampling.is_some(),
        roots: declared.roots.is_some(),
        extensions: declared.extensions.as_ref().and_then(extensions),
    }
}

fn extensions(declared: &ExtensionCapabilities) -> Option<prost_types::Struct> {
    let json = serde_json::to_value(declared).unwrap_or_default();
    let (bytes, levels) = (json.to_string().len(), levels(&json));
    if bytes > EXTENSIONS_BYTES_MAX || levels > EXTENSIONS_LEVELS_MAX {
        tracing::info!(
            bytes,
            levels,
            EXTENSIONS_BYTES_MAX,
            EXTENSIONS_LEVELS_MAX,
            "a client's extensions are too long or nested too deeply; services receive none"
        );
        return None;
    }
    json.as_object().filter(|extensions| !extensions.is_empty()).map(structs::to_struct)
}

/// How deeply arrays and objects are nested.
fn levels(json: &Value) -> usize {
    match json {
        Value::Array(items) => 1 + items.iter().map(levels).max().unwrap_or_default(),
        Value::Object(fields) => 1 + fields.values().map(levels).max().unwrap_or_default(),
        _ => 0,
    }
}

/// The input that a client supports without a stream: in 2025-11-25, an error can request that a
/// page be opened.
pub(super) fn without_streams(
    client: pb::ClientCapabilities,
    revision: ProtocolRevision,
) -> pb::ClientCapabilities {
    let elicit_url = client.elicit_url && revision == ProtocolRevision::November2025;
    pb::ClientCapabilities { elicit_url, extensions: client.extensions, ..Default::default() }
}

/// The capabilities that the requested input needs and the client lacks.
pub(super) fn missing_capabilities(
    required: &pb::InputRequired,
    client: &pb::ClientCapabilities,
) -> Option<ClientCapabilities> {
    let mut missing = json!({});
    for kind in required.requests.values().filter_map(|request| request.kind.as_ref()) {
        match kind {
            RequestKind::Form(_) if !client.elicit_form => {
                missing["elicitation"]["form"] = json!({});
            }
            RequestKind::Url(_) if !client.elicit_url => missing["elicitation"]["url"] = json!({}),
            RequestKind::Sampling(_) if !client.sampling => missing["sampling"] = json!({}),
            RequestKind::Roots(_) if !client.roots => missing["roots"] = json!({}),
            _ => {}
        }
    }
    if missing == json!({}) { None } else { serde_json::from_value(missing).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extensions_that_are_too_long_or_nested_too_deeply_are_dropped() {
        let is_accepted = |extensions: Value| {
            let declared = serde_json::from_value(json!({ "acme/x": extensions })).unwrap();
            super::extensions(&declared).is_some()
        };
        let nested = |levels| (0..levels).fold(json!({}), |inner, _| json!({ "a": inner }));
        assert!(is_accepted(nested(EXTENSIONS_LEVELS_MAX - 2)));
        assert!(!is_accepted(nested(EXTENSIONS_LEVELS_MAX - 1)));
        assert!(!is_accepted(json!({ "a": "x".repeat(EXTENSIONS_BYTES_MAX) })));
    }
}
