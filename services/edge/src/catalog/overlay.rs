//! The overlay: how the config file renames, describes, hides and groups items for clients.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use drawbridge_config::Namespace;
use drawbridge_proto::auth::v1 as auth;
use globset::GlobSet;
use rmcp::model::JsonObject;
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    ItemKind, MetaKeys, ResourceItem, ToolItem,
    schema_text::{SchemaError, compile},
};
use crate::traffic::transform::Transformation;

mod config;
mod schema;
#[cfg(test)]
mod tests;

/// The overlays of tools, by the name that the service gives the tool, and the virtual servers.
#[derive(Debug, Default)]
pub(crate) struct Overlay {
    pub(crate) tools: BTreeMap<String, ToolOverlay>,
    pub(crate) servers: BTreeMap<Namespace, VirtualServer>,
    /// The `_meta` keys that reach clients.
    pub(crate) meta_keys: MetaKeys,
}

/// The overlay of one tool.
#[derive(Debug, Default)]
pub(crate) struct ToolOverlay {
    pub(crate) name: Option<String>,
    pub(crate) title: Option<String>,
    pub(crate) description: Option<String>,
    /// Whether clients can neither see nor call it.
    pub(crate) is_hidden: bool,
    /// Arguments that clients can neither see nor set.
    pub(crate) hidden_arguments: BTreeSet<String>,
    /// The schema that clients see in place of the one derived from the service's.
    pub(crate) input_schema: Option<JsonObject>,
    /// The schema of the output of the response program.
    pub(crate) output_schema: Option<JsonObject>,
    pub(crate) transformation: Arc<Transformation>,
}

/// A virtual server: a selection of items of several services.
#[derive(Debug, Default, Serialize)]
pub(crate) struct VirtualServer {
    pub(crate) tools: NamePatterns,
    pub(crate) resources: NamePatterns,
    pub(crate) prompts: NamePatterns,
}

/// Patterns of names, in which `*` matches any characters.
#[derive(Debug, Default, Serialize)]
#[serde(transparent)]
pub(crate) struct NamePatterns {
    patterns: Vec<String>,
    #[serde(skip)]
    set: GlobSet,
}

impl From<(GlobSet, Vec<String>)> for NamePatterns {
    fn from((set, patterns): (GlobSet, Vec<String>)) -> Self {
        Self { patterns, set }
    }
}

/// Why an overlay does not fit its tool, which is then left out.
#[derive(Debug, thiserror::Error)]
pub(super) enum OverlayProblem {
    #[error("the tool has no argument {0:?}")]
    NoArgument(String),
    #[error(
        "other parts of the schema mention the argument {0:?}; set an `input_schema` without it"
    )]
    Mentioned(String),
    #[error("a configured value does not match the schema of the tool: {0}")]
    Value(String),
    #[error("the resulting schema is invalid: {0}")]
    Schema(#[from] SchemaError),
}

impl Overlay {
    pub(crate) fn tool(&self, name: &str) -> Option<&ToolOverlay> {
        self.tools.get(name)
    }

    /// The tool's own name, if the config file gives it this one.
    pub(super) fn own_name(&self, shown: &str) -> Option<&str> {
        let renamed = |overlay: &ToolOverlay| overlay.name.as_deref() == Some(shown);
        let mut own = self.tools.iter().filter(|(_, overlay)| renamed(overlay));
        own.next().map(|(own, _)| own.as_str())
    }

    /// The virtual servers, serialized for the hash of the catalog.
    pub(super) fn servers_digest_input(&self) -> Vec<u8> {
        let servers: BTreeMap<_, _> =
            self.servers.iter().map(|(name, server)| (name.as_str(), server)).collect();
        serde_json_canonicalizer::to_vec(&servers).unwrap_or_default()
    }

    /// Whether a virtual server of this name exists.
    pub(crate) fn has_server(&self, name: &str) -> bool {
        self.servers.contains_key(name)
    }

    /// Whether the virtual server of this name offers an item.
    pub(super) fn serves(&self, server: &str, kind: ItemKind, item: &auth::CatalogItem) -> bool {
        self.servers.get(server).is_some_and(|server| {
            let patterns = match kind {
                ItemKind::Tool => &server.tools,
                ItemKind::Resource => &server.resources,
                ItemKind::Prompt => &server.prompts,
                ItemKind::Service => return false,
            };
            patterns.set.is_match(&item.name)
        })
    }

    /// The tool as clients see it. `None` if it is hidden.
    pub(super) fn apply(
        &self,
        tool: &Arc<ToolItem>,
    ) -> Result<Option<Arc<ToolItem>>, OverlayProblem> {
        let shown = match self.tool(&tool.item.name) {
            None => Arc::clone(tool),
            Some(overlay) if overlay.is_hidden => return Ok(None),
            Some(overlay) => Arc::new(overlay.apply(tool)?),
        };
        if shown.tool.meta.is_none() {
            return Ok(Some(shown));
        }
        let mut shown = ToolItem::clone(&shown);
        shown.tool.meta = self.meta_keys.of_item(shown.tool.meta.take());
        Ok(Some(Arc::new(shown)))
    }

    /// The resource as clients see it.
    pub(super) fn apply_to_resource(&self, resource: &Arc<ResourceItem>) -> Arc<ResourceItem> {
        if resource.shown.meta().is_none() {
            return Arc::clone(resource);
        }
        let mut shown = ResourceItem::clone(resource);
        let meta = shown.shown.meta_mut();
        *meta = self.meta_keys.of_item(meta.take());
        Arc::new(shown)
    }
}

impl ToolOverlay {
    fn apply(&self, original: &ToolItem) -> Result<ToolItem, OverlayProblem> {
        let mut item = original.clone();
        if let Some(name) = &self.name {
            item.tool.name = name.clone().into();
        }
        if let Some(description) = &self.description {
            item.tool.description = Some(description.clone().into());
        }
        if let Some(title) = &self.title {
            item.tool.title = Some(title.clone());
        }
        let Transformation { defaults, fixed, request, response, .. } = &*self.transformation;
        let hidden: BTreeSet<_> = fixed.keys().chain(&self.hidden_arguments).collect();
        if !hidden.is_empty() || !defaults.is_empty() || self.input_schema.is_some() {
            check_values(&original.tool.input_schema, fixed.iter().chain(defaults))?;
            let mut derived = JsonObject::clone(&original.tool.input_schema);
            for name in hidden {
                // With a configured schema, only the existence of the argument is checked.
                schema::remove(&mut derived, name, self.input_schema.is_none())?;
            }
            for (name, value) in defaults {
                schema::set_default(&mut derived, name, value)?;
            }
            let shown = self.input_schema.clone().unwrap_or(derived);
            item.shown_arguments = Some(Arc::new(compile(&shown)?));
            item.tool.input_schema = Arc::new(shown);
        }
        if response.is_some() {
            // The output of a program does not match the service's schema.
            item.tool.output_schema = self.output_schema.clone().map(Arc::new);
        }
        if request.is_some() || response.is_some() || item.shown_arguments.is_some() {
            item.transformation = Some(Arc::clone(&self.transformation));
        }
        Ok(item)
    }
}

/// Checks each value against its property in the service's schema.
fn check_values<'a>(
    schema: &JsonObject,
    values: impl Iterator<Item = (&'a String, &'a Value)>,
) -> Result<(), OverlayProblem> {
    let mut schema_of_values = JsonObject::new();
    for keyword in ["properties", "$defs", "definitions"] {
        schema_of_values
            .extend(schema.get(keyword).map(|value| (keyword.to_owned(), value.clone())));
    }
    schema_of_values.insert("type".to_owned(), json!("object"));
    let values: JsonObject = values.map(|(name, value)| (name.clone(), value.clone())).collect();
    let validator = compile(&schema_of_values)?;
    let values = Value::Object(values);
    validator
        .validate(&values)
        .map_err(|error| OverlayProblem::Value(format!("{}: {error}", error.instance_path())))
}
