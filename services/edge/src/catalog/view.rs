//! What clients see of what services offer: renamed, described otherwise, hidden, grouped.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use drawbridge_proto::auth::v1 as auth;
use globset::GlobSet;
use rmcp::model::JsonObject;
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    ItemKind, MetaKeys, Namespace, ResourceItem, ToolItem,
    given::{SchemaError, compile},
};
use crate::traffic::transform::Transformation;

mod schema;
#[cfg(test)]
mod tests;

/// What the config file says of tools, by the names that their services give them, and of virtual servers.
#[derive(Debug, Default)]
pub(crate) struct View {
    pub(crate) tools: BTreeMap<String, ToolView>,
    pub(crate) servers: BTreeMap<Namespace, Server>,
    /// The keys of `_meta` that clients see.
    pub(crate) meta_keys: MetaKeys,
}

/// What is otherwise about one tool.
#[derive(Debug, Default)]
pub(crate) struct ToolView {
    pub(crate) name: Option<String>,
    pub(crate) title: Option<String>,
    pub(crate) description: Option<String>,
    /// Whether clients do not see it, nor can call it.
    pub(crate) hidden: bool,
    /// Arguments that clients do not see, nor can say.
    pub(crate) hidden_arguments: BTreeSet<String>,
    /// The schema that clients see in place of what the service's becomes.
    pub(crate) input_schema: Option<JsonObject>,
    /// The schema of what a response program gives.
    pub(crate) output_schema: Option<JsonObject>,
    pub(crate) transformation: Arc<Transformation>,
}

/// A virtual server: chosen items of several services.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Server {
    pub(crate) tools: Chosen,
    pub(crate) resources: Chosen,
    pub(crate) prompts: Chosen,
}

/// Names, in which `*` stands for anything.
#[derive(Debug, Default, Serialize)]
#[serde(transparent)]
pub(crate) struct Chosen {
    patterns: Vec<String>,
    #[serde(skip)]
    set: GlobSet,
}

impl From<(GlobSet, Vec<String>)> for Chosen {
    fn from((set, patterns): (GlobSet, Vec<String>)) -> Self {
        Self { patterns, set }
    }
}

/// Why a tool cannot be shown as the config file says. It is left out.
#[derive(Debug, thiserror::Error)]
pub(super) enum ViewError {
    #[error("the tool has no argument {0:?}")]
    NoArgument(String),
    #[error(
        "its schema speaks of the argument {0:?} elsewhere too: give an input_schema without it"
    )]
    Mentioned(String),
    #[error("what is set does not fit the schema of the tool: {0}")]
    Value(String),
    #[error("what is left of its schema is none: {0}")]
    Schema(#[from] SchemaError),
}

impl View {
    pub(crate) fn tool(&self, name: &str) -> Option<&ToolView> {
        self.tools.get(name)
    }

    /// What tells virtual servers apart.
    pub(super) fn servers_seen(&self) -> Vec<u8> {
        let servers: BTreeMap<_, _> =
            self.servers.iter().map(|(name, server)| (name.as_str(), server)).collect();
        serde_json::to_vec(&servers).unwrap_or_default()
    }

    /// Whether there is a virtual server of this name.
    pub(super) fn has_server(&self, name: &str) -> bool {
        self.servers.contains_key(name)
    }

    /// Whether the virtual server of this name offers an item.
    pub(super) fn serves(&self, server: &str, kind: ItemKind, item: &auth::CatalogItem) -> bool {
        self.servers.get(server).is_some_and(|server| {
            let chosen = match kind {
                ItemKind::Tool => &server.tools,
                ItemKind::Resource => &server.resources,
                ItemKind::Prompt => &server.prompts,
                ItemKind::Service => return false,
            };
            chosen.set.is_match(&item.name)
        })
    }

    /// The tool as clients see it. None when they do not.
    pub(super) fn show(&self, tool: &Arc<ToolItem>) -> Result<Option<Arc<ToolItem>>, ViewError> {
        let shown = match self.tool(&tool.item.name) {
            None => Arc::clone(tool),
            Some(view) if view.hidden => return Ok(None),
            Some(view) => Arc::new(view.show(tool)?),
        };
        if shown.tool.meta.is_none() {
            return Ok(Some(shown));
        }
        let mut shown = ToolItem::clone(&shown);
        shown.tool.meta = self.meta_keys.of_item(shown.tool.meta.take());
        Ok(Some(Arc::new(shown)))
    }

    /// The resource as clients see it.
    pub(super) fn show_resource(&self, resource: &Arc<ResourceItem>) -> Arc<ResourceItem> {
        if resource.shown.meta().is_none() {
            return Arc::clone(resource);
        }
        let mut shown = ResourceItem::clone(resource);
        let meta = shown.shown.meta_mut();
        *meta = self.meta_keys.of_item(meta.take());
        Arc::new(shown)
    }
}

impl ToolView {
    fn show(&self, raw: &ToolItem) -> Result<ToolItem, ViewError> {
        let mut item = raw.clone();
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
        let unshown: BTreeSet<_> = fixed.keys().chain(&self.hidden_arguments).collect();
        if !unshown.is_empty() || !defaults.is_empty() || self.input_schema.is_some() {
            check_values(&raw.tool.input_schema, fixed.iter().chain(defaults))?;
            let mut derived = JsonObject::clone(&raw.tool.input_schema);
            for name in unshown {
                // A schema that is given is as it is: only that there is such an argument is looked at.
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
            // What a program gives fits no schema that the service knows.
            item.tool.output_schema = self.output_schema.clone().map(Arc::new);
        }
        if request.is_some() || response.is_some() || item.shown_arguments.is_some() {
            item.transformation = Some(Arc::clone(&self.transformation));
        }
        Ok(item)
    }
}

/// Checks that values fit the service's own schema, each for itself.
fn check_values<'a>(
    schema: &JsonObject,
    values: impl Iterator<Item = (&'a String, &'a Value)>,
) -> Result<(), ViewError> {
    let mut each = JsonObject::new();
    for keyword in ["properties", "$defs", "definitions"] {
        each.extend(schema.get(keyword).map(|given| (keyword.to_owned(), given.clone())));
    }
    each.insert("type".to_owned(), json!("object"));
    let values: JsonObject = values.map(|(name, value)| (name.clone(), value.clone())).collect();
    let checked = compile(&each)?;
    let values = Value::Object(values);
    checked
        .validate(&values)
        .map_err(|error| ViewError::Value(format!("{}: {error}", error.instance_path())))
}
