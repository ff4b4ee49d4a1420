//! The MCP revision of a message, and whether its HTTP headers match its body (SEP-2243, SEP-2575).

use std::borrow::Cow;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use http::{HeaderMap, HeaderValue};
use rmcp::{
    ErrorData,
    model::{ErrorCode, JsonObject, ProtocolVersion, RequestMetaObject},
};
use serde_json::Value;

use crate::admitted::{Kind, Message};

pub(super) const VERSION_HEADER: &str = "mcp-protocol-version";
const METHOD_HEADER: &str = "mcp-method";
const NAME_HEADER: &str = "mcp-name";
const PARAM_HEADER: &str = "mcp-param-";
const META_VERSION: &str = "io.modelcontextprotocol/protocolVersion";
const META_CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";

/// A supported revision, in chronological order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ProtocolRevision {
    /// 2025-03-26, for clients that support no newer one. It is served like 2025-06-18: batches are
    /// rejected.
    March2025,
    /// 2025-06-18.
    June2025,
    /// 2025-11-25.
    November2025,
    /// 2026-07-28, without sessions.
    Stateless,
}

impl ProtocolRevision {
    /// The advertised revisions, oldest first.
    pub(super) const SUPPORTED: [ProtocolVersion; 3] = [
        ProtocolVersion::V_2025_06_18,
        ProtocolVersion::V_2025_11_25,
        ProtocolVersion::V_2026_07_28,
    ];

    /// The revision that `initialize` agrees on for the requested one.
    pub(super) fn negotiate(requested: &str) -> Self {
        let older = [Self::March2025, Self::June2025];
        older
            .into_iter()
            .find(|one| requested == one.version().as_str())
            .unwrap_or(Self::November2025)
    }

    pub(super) fn version(self) -> ProtocolVersion {
        match self {
            Self::March2025 => ProtocolVersion::V_2025_03_26,
            Self::June2025 => ProtocolVersion::V_2025_06_18,
            Self::November2025 => ProtocolVersion::V_2025_11_25,
            Self::Stateless => ProtocolVersion::V_2026_07_28,
        }
    }

    /// Whether this version is the revision without sessions, or a later one.
    pub(super) fn is_stateless_version(version: &str) -> bool {
        version >= ProtocolVersion::V_2026_07_28.as_str()
    }
}

/// The revision in a message's headers, if they name one.
pub(super) fn header(headers: &HeaderMap) -> Result<Option<&str>, ErrorData> {
    let text = headers.get(VERSION_HEADER).map(HeaderValue::to_str).transpose();
    text.map_err(|_| {
        ErrorData::invalid_request("Invalid MCP-Protocol-Version header encoding", None)
    })
}

/// Rejects an unknown revision.
pub(super) fn check_known(version: &str) -> Result<(), ErrorData> {
    if ProtocolVersion::KNOWN_VERSIONS.iter().any(|known| known.as_str() == version) {
        return Ok(());
    }
    // The text is the caller's own; its length is bounded.
    let version: String = version.chars().take(64).collect();
    Err(ErrorData::invalid_request(format!("Unsupported MCP-Protocol-Version: {version}"), None))
}

/// Determines the revision of a message.
///
/// # Errors
/// When headers and body do not match, or the revision is not supported.
pub(super) fn determine(
    headers: &HeaderMap,
    message: &Message,
    schema: impl FnOnce(&str) -> Option<std::sync::Arc<JsonObject>>,
) -> Result<ProtocolRevision, ErrorData> {
    let header = header(headers)?;
    let named = message.revision();
    if message.method == "initialize" && !named.is_some_and(ProtocolRevision::is_stateless_version)
    {
        return check_initialize(headers, header, message).map(|()| ProtocolRevision::June2025);
    }
    if let (Some(header), None) = (header, named) {
        check_known(header)?;
    }
    let by_header = header.is_some_and(ProtocolRevision::is_stateless_version);
    if by_header && message.kind != Kind::Response {
        let tool = message.tool_name().and_then(schema);
        check_headers(headers, message, tool.as_deref()).map_err(mismatch)?;
    }
    if message.kind != Kind::Request {
        return Ok(if by_header { ProtocolRevision::Stateless } else { session_revision(header) });
    }
    let is_discovery = message.method == "server/discover";
    let Some(named) = named else {
        if by_header || is_discovery {
            return Err(missing_meta(&message.params));
        }
        return Ok(session_revision(header));
    };
    match header {
        None => {
            return Err(mismatch(
                "request _meta protocolVersion requires MCP-Protocol-Version header",
            ));
        }
        Some(header) if header != named => {
            return Err(mismatch(
                "MCP-Protocol-Version header does not match request _meta protocolVersion",
            ));
        }
        Some(_) => {}
    }
    let Some(version) =
        ProtocolRevision::SUPPORTED.iter().find(|version| version.as_str() == named)
    else {
        let named = serde_json::from_value(Value::from(named.chars().take(64).collect::<String>()));
        let named = named.unwrap_or(ProtocolVersion::V_2026_07_28);
        return Err(ErrorData::unsupported_protocol_version(named, &ProtocolRevision::SUPPORTED));
    };
    if !ProtocolRevision::is_stateless_version(version.as_str()) && !is_discovery {
        return Ok(session_revision(Some(named)));
    }
    if meta(&message.params).client_capabilities().is_none() {
        return Err(missing_meta(&message.params));
    }
    Ok(ProtocolRevision::Stateless)
}

/// The metadata of a request.
pub(super) fn meta(params: &Value) -> RequestMetaObject {
    let meta = params.get("_meta").and_then(Value::as_object).cloned();
    RequestMetaObject::from(meta.unwrap_or_default())
}

fn session_revision(version: Option<&str>) -> ProtocolRevision {
    match version {
        Some(version) if version == ProtocolVersion::V_2025_11_25.as_str() => {
            ProtocolRevision::November2025
        }
        _ => ProtocolRevision::June2025,
    }
}

/// The handshake may omit the headers; headers that it has must match its body.
fn check_initialize(
    headers: &HeaderMap,
    header: Option<&str>,
    message: &Message,
) -> Result<(), ErrorData> {
    let requested = message.params.get("protocolVersion").and_then(Value::as_str);
    if let (Some(header), Some(requested)) = (header, requested)
        && header != requested
    {
        let text =
            "Invalid Request: MCP-Protocol-Version header does not match params.protocolVersion";
        return Err(ErrorData::invalid_request(text, None));
    }
    let mut methods = headers.get_all(METHOD_HEADER).iter();
    let is_match =
        methods.next().is_none_or(|method| method == "initialize") && methods.next().is_none();
    if header.is_some_and(ProtocolRevision::is_stateless_version) && !is_match {
        return Err(mismatch("Mcp-Method header does not match body method `initialize`"));
    }
    Ok(())
}

fn missing_meta(params: &Value) -> ErrorData {
    let meta = meta(params);
    let missing = [
        meta.protocol_version().is_none().then_some(META_VERSION),
        meta.client_capabilities().is_none().then_some(META_CAPABILITIES),
    ];
    let missing = missing.into_iter().flatten().collect::<Vec<_>>().join(", ");
    let text = format!("request _meta is missing or has malformed required fields: {missing}");
    ErrorData::invalid_params(text, None)
}

fn mismatch(text: impl Into<Cow<'static, str>>) -> ErrorData {
    ErrorData::new(ErrorCode::HEADER_MISMATCH, text, None)
}

/// Compares `Mcp-Method`, `Mcp-Name` and `Mcp-Param-*` with the body (SEP-2243).
fn check_headers(
    headers: &HeaderMap,
    message: &Message,
    tool: Option<&JsonObject>,
) -> Result<(), String> {
    match single_header(headers, METHOD_HEADER)? {
        None => return Err("missing required Mcp-Method header".to_owned()),
        Some(method) if method != message.method => {
            return Err("Mcp-Method header does not match body method".to_owned());
        }
        Some(_) => {}
    }
    if let Some(expected) = expected_name(message) {
        match single_header(headers, NAME_HEADER)? {
            None => {
                return Err(format!("missing required Mcp-Name header for `{}`", message.method));
            }
            Some(raw) if decode(raw).as_deref() != Some(expected) => {
                return Err("Mcp-Name header does not match body value".to_owned());
            }
            Some(_) => {}
        }
    }
    let arguments = message.params.get("arguments").unwrap_or(&Value::Null);
    let mut annotated = Vec::new();
    annotations(tool.and_then(|tool| tool.get("properties")), &mut Vec::new(), &mut annotated);
    annotated
        .into_iter()
        .try_for_each(|(path, header)| check_param(headers, arguments, &path, header))
}

fn check_param(
    headers: &HeaderMap,
    arguments: &Value,
    path: &[&str],
    header: &str,
) -> Result<(), String> {
    let full = format!("{PARAM_HEADER}{header}");
    let argument = path.iter().try_fold(arguments, |value, key| value.get(key));
    let argument = match argument {
        Some(Value::String(text)) => Some(text.clone()),
        Some(plain @ (Value::Bool(_) | Value::Number(_))) => Some(plain.to_string()),
        _ => None,
    };
    match (single_header(headers, &full)?, argument) {
        (None, None) => Ok(()),
        (Some(_), None) => {
            Err(format!("unexpected {full} header for absent or null `{}`", path.join(".")))
        }
        (None, Some(_)) => Err(format!("missing {full} header for `{}`", path.join("."))),
        (Some(raw), expected) if decode(raw) == expected => Ok(()),
        _ => Err(format!("{full} header does not match body value")),
    }
}

/// The properties that a schema maps to headers, with the names of the headers.
fn annotations<'a>(
    properties: Option<&'a Value>,
    path: &mut Vec<&'a str>,
    found: &mut Vec<(Vec<&'a str>, &'a str)>,
) {
    for (name, schema) in properties.and_then(Value::as_object).into_iter().flatten() {
        path.push(name);
        match schema.get("x-mcp-header") {
            Some(Value::String(header)) if !header.is_empty() => found.push((path.clone(), header)),
            _ => {}
        }
        annotations(schema.get("properties"), path, found);
        path.pop();
    }
}

/// The part of a message that `Mcp-Name` repeats.
fn expected_name(message: &Message) -> Option<&str> {
    let field = match message.method.as_str() {
        "tools/call" | "prompts/get" => "name",
        "resources/read" | "resources/subscribe" | "resources/unsubscribe" => "uri",
        _ => return None,
    };
    message.params.get(field)?.as_str()
}

fn single_header<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, String> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(format!("duplicate {name} header"));
    }
    value.to_str().map(Some).map_err(|_| format!("{name} header contains invalid characters"))
}

fn decode(value: &str) -> Option<String> {
    match value.strip_prefix("=?base64?").and_then(|inner| inner.strip_suffix("?=")) {
        Some(inner) => String::from_utf8(BASE64.decode(inner).ok()?).ok(),
        None => Some(value.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::HeaderName;
    use serde_json::json;

    use super::*;

    fn check(headers: &[(&str, &str)], body: &Value) -> Result<ProtocolRevision, i32> {
        let headers = headers.iter().map(|(name, value)| {
            let name: HeaderName = name.parse().unwrap();
            (name, HeaderValue::from_bytes(value.as_bytes()).unwrap())
        });
        let headers = headers.fold(HeaderMap::new(), |mut headers, (name, value)| {
            headers.append(name, value);
            headers
        });
        let schema =
            json!({ "properties": { "a": { "properties": { "b": { "x-mcp-header": "B" } } } } });
        let schema = Arc::new(schema.as_object().unwrap().clone());
        let message = Message {
            kind: Kind::Request,
            id: body["id"].clone(),
            method: body["method"].as_str().unwrap().to_owned(),
            params: body.get("params").cloned().unwrap_or_default(),
            result: None,
            error: None,
        };
        determine(&headers, &message, |_| Some(schema)).map_err(|error| error.code.0)
    }

    fn call(version: &str, arguments: &Value) -> Value {
        let meta = json!({
            "io.modelcontextprotocol/protocolVersion": version,
            "io.modelcontextprotocol/clientCapabilities": {},
        });
        let params = json!({ "name": "tööl", "arguments": arguments, "_meta": meta });
        json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params })
    }

    const NEW: (&str, &str) = (VERSION_HEADER, "2026-07-28");
    const METHOD: (&str, &str) = (METHOD_HEADER, "tools/call");
    const NAME: (&str, &str) = (NAME_HEADER, "=?base64?dMO2w7Zs?=");

    #[test]
    fn headers_of_the_stateless_revision_must_match_the_body() {
        let plain = call("2026-07-28", &json!({}));
        assert_eq!(check(&[NEW, METHOD, NAME], &plain), Ok(ProtocolRevision::Stateless));
        for headers in [
            &[METHOD, NAME][..],
            &[NEW, NAME],
            &[NEW, METHOD],
            &[NEW, (METHOD_HEADER, "tools/list"), NAME],
            &[NEW, METHOD, METHOD, NAME],
            &[NEW, METHOD, (NAME_HEADER, "other")],
            &[NEW, METHOD, (NAME_HEADER, "=?base64?!?=")],
            &[(VERSION_HEADER, "2025-11-25"), METHOD, NAME],
            &[NEW, METHOD, NAME, ("mcp-param-b", "1")],
        ] {
            assert_eq!(check(headers, &plain), Err(-32020), "{headers:?}");
        }
        let param = call("2026-07-28", &json!({ "a": { "b": 7 } }));
        assert_eq!(check(&[NEW, METHOD, NAME], &param), Err(-32020));
        assert_eq!(check(&[NEW, METHOD, NAME, ("mcp-param-b", "8")], &param), Err(-32020));
        assert_eq!(
            check(&[NEW, METHOD, NAME, ("mcp-param-b", "7")], &param),
            Ok(ProtocolRevision::Stateless)
        );
    }

    #[test]
    fn an_unsupported_revision_is_rejected() {
        let future = [(VERSION_HEADER, "2099-01-01"), METHOD, NAME];
        assert_eq!(check(&future, &call("2099-01-01", &json!({}))), Err(-32022));
        let list = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/list" });
        assert_eq!(check(&[(VERSION_HEADER, "1999-01-01")], &list), Err(-32600));
        assert_eq!(check(&[(VERSION_HEADER, "\u{e9}")], &list), Err(-32600));
        assert_eq!(check(&[NEW, (METHOD_HEADER, "tools/list")], &list), Err(-32602));
        assert_eq!(check(&[], &list), Ok(ProtocolRevision::June2025));
        assert_eq!(
            check(&[(VERSION_HEADER, "2025-11-25")], &list),
            Ok(ProtocolRevision::November2025)
        );
    }
}
