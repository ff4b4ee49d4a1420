//! `_meta` of items and results: what a contract may tell clients beyond MCP's own fields.

use drawbridge_proto::mcp::v1::{self as mcp, tool_ui::Visibility};
use rmcp::model::MetaObject;
use serde_json::{Value, json};

/// Keys that pass unless the config file says otherwise.
const ALLOWED: [&str; 5] = [
    "anthropic/alwaysLoad",
    "anthropic/maxResultSizeChars",
    "com.github.ifc/labels",
    "io.modelcontextprotocol/groups",
    "io.modelcontextprotocol/trust-annotations",
];
/// What the edge itself writes. Typed options lead here, and nothing else does.
const OWN: &str = "drawbridge/";
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
        Self(ALLOWED.map(str::to_owned).to_vec())
    }
}

impl From<Vec<String>> for MetaKeys {
    fn from(keys: Vec<String>) -> Self {
        Self(keys)
    }
}

/// Why a contract's `_meta` cannot be offered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MetaError {
    #[error("it is longer than {META_BYTES_MAX} bytes")]
    TooLong,
    #[error("it is not a JSON object")]
    Json(#[source] serde_json::Error),
    #[error("the key {0:?} is written by the edge; use the option that has its own field")]
    Own(String),
    #[error("the label {0:?} does not match ^[a-z][a-z0-9_.:-]{{0,63}}$")]
    Label(String),
    #[error("it has more than {LABELS_MAX} labels")]
    Labels,
    #[error("the URI of the page must begin with \"ui://\", and {0:?} does not")]
    Ui(String),
}

/// The `_meta` of a tool, as its contract has it.
pub(super) fn of_tool(tool: &mcp::ToolOptions) -> Result<Option<MetaObject>, MetaError> {
    let mut meta = given(&tool.meta, &[UI])?;
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

/// The `_meta` of a resource, as its contract has it.
pub(super) fn of_resource(
    resource: &mcp::ResourceOptions,
) -> Result<Option<MetaObject>, MetaError> {
    with_labels(given(&resource.meta, &[])?, &resource.labels)
}

fn visible_to(visibility: Visibility) -> Option<&'static str> {
    match visibility {
        Visibility::Unspecified => None,
        Visibility::Model => Some("model"),
        Visibility::App => Some("app"),
    }
}

fn given(text: &str, reserved: &[&str]) -> Result<MetaObject, MetaError> {
    if text.is_empty() {
        return Ok(MetaObject::default());
    }
    if text.len() > META_BYTES_MAX {
        return Err(MetaError::TooLong);
    }
    let meta: MetaObject = serde_json::from_str(text).map_err(MetaError::Json)?;
    match meta.keys().find(|key| key.starts_with(OWN) || reserved.contains(&key.as_str())) {
        Some(key) => Err(MetaError::Own(key.clone())),
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
    /// An item's `_meta` without what is not to reach clients.
    pub(super) fn of_item(&self, meta: Option<MetaObject>) -> Option<MetaObject> {
        let passes = |key: &str| key.starts_with(OWN) || key == UI || self.allow(key);
        retained(meta?, passes)
    }

    /// A result's `_meta` without what is not to reach clients. One that is too long is dropped whole.
    pub(crate) fn of_result(&self, meta: MetaObject) -> Option<MetaObject> {
        let meta = retained(meta, |key| !key.starts_with(OWN) && key != UI && self.allow(key))?;
        let is_short = serde_json::to_vec(&meta).is_ok_and(|text| text.len() <= META_BYTES_MAX);
        if !is_short {
            tracing::warn!(
                bytes_max = META_BYTES_MAX,
                "a result's _meta is dropped: it is too long"
            );
        }
        Some(meta).filter(|_| is_short)
    }

    fn allow(&self, key: &str) -> bool {
        self.0.iter().any(|allowed| match allowed.strip_suffix('*') {
            Some(prefix) => key.starts_with(prefix),
            None => allowed == key,
        })
    }
}

fn retained(meta: MetaObject, passes: impl Fn(&str) -> bool) -> Option<MetaObject> {
    let kept: serde_json::Map<String, Value> = meta
        .iter()
        .filter(|(key, _)| passes(key))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    (!kept.is_empty()).then(|| MetaObject(kept))
}

/// Whether a tool has a page (MCP Apps).
pub(crate) fn has_ui(meta: Option<&MetaObject>) -> bool {
    meta.is_some_and(|meta| meta.contains_key(UI))
}

/// Takes the page away, where it could call tools of other services than its own.
pub(crate) fn without_ui(meta: Option<&MetaObject>) -> Option<MetaObject> {
    retained(meta?.clone(), |key| key != UI)
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
    fn meta_of_a_contract_passes_by_its_keys() {
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
    fn a_result_says_nothing_in_the_name_of_the_edge_and_no_more_than_fits() {
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
            "a service speaks in its own name alone"
        );
        assert_eq!(of(json!({ "acme/x": "x".repeat(META_BYTES_MAX) })), Value::Null);
    }

    #[test]
    fn meta_that_cannot_be_offered_is_refused_with_the_reason() {
        let refused =
            |meta: &str, labels: &[&str]| of_tool(&tool(meta, labels)).unwrap_err().to_string();
        assert_eq!(refused("[]", &[]), "it is not a JSON object");
        assert!(
            refused(r#"{"drawbridge/lock":1}"#, &[])
                .starts_with("the key \"drawbridge/lock\" is written")
        );
        assert!(refused(r#"{"ui":{}}"#, &[]).starts_with("the key \"ui\" is written"));
        assert!(
            refused("", &["Not a label"]).starts_with("the label \"Not a label\" does not match")
        );
        assert!(refused("", &["x"; 17]).starts_with("it has more than 16"));
        assert!(refused(&" ".repeat(META_BYTES_MAX + 1), &[]).starts_with("it is longer than"));
        let ui = mcp::ToolUi { resource_uri: "https://x".to_owned(), ..Default::default() };
        let tool = mcp::ToolOptions { ui: Some(ui), ..Default::default() };
        assert!(
            of_tool(&tool).unwrap_err().to_string().starts_with("the URI of the page must begin")
        );
    }
}
