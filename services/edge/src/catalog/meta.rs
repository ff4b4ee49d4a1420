//! `_meta` of items and results: what a contract may send to clients besides MCP's own fields.

use drawbridge_proto::mcp::v1::{self as mcp, tool_ui::Visibility};
use rmcp::model::MetaObject;
use serde_json::{Value, json};

/// The keys that pass by default.
const ALLOWED_BY_DEFAULT: [&str; 5] = [
    "anthropic/alwaysLoad",
    "anthropic/maxResultSizeChars",
    "com.github.ifc/labels",
    "io.modelcontextprotocol/groups",
    "io.modelcontextprotocol/trust-annotations",
];
/// The prefix of keys that the edge writes. Contracts set them only through typed options.
const RESERVED_PREFIX: &str = "drawbridge/";
const LABELS: &str = "drawbridge/labels";
/// MCP Apps (SEP-1865).
const UI: &str = "ui";
/// The longest `_meta` of an item or result, in bytes.
const META_BYTES_MAX: usize = 16 * 1024;
const LABELS_MAX: usize = 16;
const LABEL_BYTES_MAX: usize = 64;

/// The keys of `_meta` that reach clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MetaKeys(Vec<String>);

impl Default for MetaKeys {
    fn default() -> Self {
        Self(ALLOWED_BY_DEFAULT.map(str::to_owned).to_vec())
    }
}

impl From<Vec<String>> for MetaKeys {
    fn from(keys: Vec<String>) -> Self {
        Self(keys)
    }
}

/// Why the `_meta` of a contract is invalid.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MetaError {
    #[error("it exceeds {META_BYTES_MAX} bytes")]
    TooLong,
    #[error("it is not a JSON object")]
    Json(#[source] serde_json::Error),
    #[error("the key {0:?} is reserved for the edge; use the corresponding typed option")]
    Reserved(String),
    #[error("the label {0:?} does not match ^[a-z][a-z0-9_.:-]{{0,63}}$")]
    Label(String),
    #[error("it has more than {LABELS_MAX} labels")]
    Labels,
    #[error("invalid page URI {0:?} (expected it to begin with \"ui://\")")]
    Ui(String),
}

/// The `_meta` of a tool, from its contract.
pub(super) fn of_tool(tool: &mcp::ToolOptions) -> Result<Option<MetaObject>, MetaError> {
    let mut meta = parse(&tool.meta, &[UI])?;
    if let Some(ui) = &tool.ui {
        if !ui.resource_uri.starts_with("ui://") {
            return Err(MetaError::Ui(ui.resource_uri.clone()));
        }
        let visibility: Vec<_> = ui.visibility().filter_map(visible_to).collect();
        let mut page = json!({ "resourceUri": ui.resource_uri });
        if !visibility.is_empty() {
            page["visibility"] = visibility.into();
        }
        meta.insert(UI.to_owned(), page);
    }
    with_labels(meta, &tool.labels)
}

/// The `_meta` of a resource, from its contract.
pub(super) fn of_resource(
    resource: &mcp::ResourceOptions,
) -> Result<Option<MetaObject>, MetaError> {
    with_labels(parse(&resource.meta, &[])?, &resource.labels)
}

fn visible_to(visibility: Visibility) -> Option<&'static str> {
    match visibility {
        Visibility::Unspecified => None,
        Visibility::Model => Some("model"),
        Visibility::App => Some("app"),
    }
}

fn parse(text: &str, reserved: &[&str]) -> Result<MetaObject, MetaError> {
    if text.is_empty() {
        return Ok(MetaObject::default());
    }
    if text.len() > META_BYTES_MAX {
        return Err(MetaError::TooLong);
    }
    let meta: MetaObject = serde_json::from_str(text).map_err(MetaError::Json)?;
    match meta
        .keys()
        .find(|key| key.starts_with(RESERVED_PREFIX) || reserved.contains(&key.as_str()))
    {
        Some(key) => Err(MetaError::Reserved(key.clone())),
        None => Ok(meta),
    }
}

fn with_labels(mut meta: MetaObject, labels: &[String]) -> Result<Option<MetaObject>, MetaError> {
    if labels.len() > LABELS_MAX {
        return Err(MetaError::Labels);
    }
    if let Some(label) = labels.iter().find(|label| !is_label(label)) {
        return Err(MetaError::Label(label.clone()));
    }
    if !labels.is_empty() {
        meta.insert(LABELS.to_owned(), json!(labels));
    }
    Ok(Some(meta).filter(|meta| !meta.is_empty()))
}

fn is_label(text: &str) -> bool {
    let allowed =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_.:-".contains(&byte);
    text.len() <= LABEL_BYTES_MAX
        && text.starts_with(|first: char| first.is_ascii_lowercase())
        && text.bytes().all(allowed)
}

impl MetaKeys {
    /// The part of an item's `_meta` that reaches clients.
    pub(super) fn of_item(&self, meta: Option<MetaObject>) -> Option<MetaObject> {
        let may_pass =
            |key: &str| key.starts_with(RESERVED_PREFIX) || key == UI || self.allows(key);
        retain(meta?, may_pass)
    }

    /// The part of a result's `_meta` that reaches clients. A longer one than allowed is dropped
    /// whole.
    pub(crate) fn of_result(&self, meta: MetaObject) -> Option<MetaObject> {
        let meta =
            retain(meta, |key| !key.starts_with(RESERVED_PREFIX) && key != UI && self.allows(key))?;
        let is_short = serde_json::to_vec(&meta).is_ok_and(|text| text.len() <= META_BYTES_MAX);
        if !is_short {
            tracing::warn!(bytes_max = META_BYTES_MAX, "a result's _meta is too long and dropped");
        }
        Some(meta).filter(|_| is_short)
    }

    fn allows(&self, key: &str) -> bool {
        self.0.iter().any(|allowed| match allowed.strip_suffix('*') {
            Some(prefix) => key.starts_with(prefix),
            None => allowed == key,
        })
    }
}

fn retain(meta: MetaObject, may_pass: impl Fn(&str) -> bool) -> Option<MetaObject> {
    let retained: serde_json::Map<String, Value> = meta
        .iter()
        .filter(|(key, _)| may_pass(key))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    (!retained.is_empty()).then(|| MetaObject(retained))
}

/// Whether a tool has a page (MCP Apps).
pub(crate) fn has_ui(meta: Option<&MetaObject>) -> bool {
    meta.is_some_and(|meta| meta.contains_key(UI))
}

/// Removes the page, on endpoints where it could call tools of services other than its own.
pub(crate) fn without_ui(meta: Option<&MetaObject>) -> Option<MetaObject> {
    retain(meta?.clone(), |key| key != UI)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tool(meta: &str, labels: &[&str]) -> mcp::ToolOptions {
        let labels = labels.iter().map(|label| (*label).to_owned()).collect();
        mcp::ToolOptions { meta: meta.to_owned(), labels, ..Default::default() }
    }

    fn json(meta: Option<MetaObject>) -> Value {
        serde_json::to_value(meta).unwrap()
    }

    #[test]
    fn item_meta_is_filtered_by_its_keys() {
        let text =
            r#"{"anthropic/alwaysLoad":true,"acme/x":1,"io.modelcontextprotocol/progressToken":1}"#;
        let meta = of_tool(&tool(text, &["untrusted", "customer:acme"])).unwrap();
        let labels = json!(["untrusted", "customer:acme"]);
        let shown = MetaKeys::default().of_item(meta.clone());
        assert_eq!(
            json(shown),
            json!({ "anthropic/alwaysLoad": true, "drawbridge/labels": labels })
        );
        let keys = MetaKeys::from(vec!["acme/*".to_owned()]);
        assert_eq!(json(keys.of_item(meta)), json!({ "acme/x": 1, "drawbridge/labels": labels }));
        assert_eq!(of_tool(&tool("", &[])).unwrap(), None);
    }

    #[test]
    fn result_meta_has_no_reserved_keys_and_is_bounded() {
        let keys = MetaKeys::from(vec!["acme/*".to_owned()]);
        let of = |value: Value| json(keys.of_result(serde_json::from_value(value).unwrap()));
        assert_eq!(
            of(json!({ "acme/x": 1, "drawbridge/cache": 2, "ui": {} })),
            json!({ "acme/x": 1 })
        );
        let all = MetaKeys::from(vec!["*".to_owned()]);
        let meta =
            serde_json::from_value(json!({ "a": 1, "drawbridge/lock": "new", "ui": {} })).unwrap();
        assert_eq!(
            json(all.of_result(meta)),
            json!({ "a": 1 }),
            "a service cannot write reserved keys"
        );
        assert_eq!(of(json!({ "acme/x": "x".repeat(META_BYTES_MAX) })), Value::Null);
    }

    #[test]
    fn invalid_meta_is_rejected_with_the_reason() {
        let rejection =
            |meta: &str, labels: &[&str]| of_tool(&tool(meta, labels)).unwrap_err().to_string();
        assert_eq!(rejection("[]", &[]), "it is not a JSON object");
        assert!(
            rejection(r#"{"drawbridge/lock":1}"#, &[])
                .starts_with("the key \"drawbridge/lock\" is reserved")
        );
        assert!(rejection(r#"{"ui":{}}"#, &[]).starts_with("the key \"ui\" is reserved"));
        assert!(
            rejection("", &["Not a label"]).starts_with("the label \"Not a label\" does not match")
        );
        assert!(rejection("", &["x"; 17]).starts_with("it has more than 16"));
        assert!(rejection(&" ".repeat(META_BYTES_MAX + 1), &[]).starts_with("it exceeds"));
        let ui = mcp::ToolUi { resource_uri: "https://x".to_owned(), ..Default::default() };
        let tool = mcp::ToolOptions { ui: Some(ui), ..Default::default() };
        assert!(of_tool(&tool).unwrap_err().to_string().starts_with("invalid page URI"));
    }
}
