//! What the edge offers: tools and resources, wherever they come from.
//!
//! An item is a plain model with a call target. Descriptors read by gRPC reflection are the first source.

use std::{collections::BTreeMap, sync::Arc};

use drawbridge_proto::auth::v1 as auth;
use jsonschema::Validator;
use rmcp::model::{Resource, ResourceTemplate, Tool};

use crate::upstream::Target;

pub(crate) use self::{
    load::read_contract,
    uri::{UriTemplate, Variables},
};

mod comments;
mod load;
mod schema;
mod uri;

/// A tool service's namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Namespace(String);

/// A text that cannot be a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a namespace has 1 to 32 of the characters a-z 0-9 _ and begins with a letter")]
pub struct NamespaceError;

impl std::str::FromStr for Namespace {
    type Err = NamespaceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        let begins = text.starts_with(|first: char| first.is_ascii_lowercase());
        (begins && text.len() <= 32 && text.bytes().all(allowed))
            .then(|| Self(text.to_owned()))
            .ok_or(NamespaceError)
    }
}

impl Namespace {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for Namespace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// A tool and how to call it.
#[derive(Debug)]
pub(crate) struct ToolItem {
    /// What clients see.
    pub(crate) tool: Tool,
    /// What auth decides on.
    pub(crate) item: auth::CatalogItem,
    pub(crate) target: Target,
    /// Checks arguments against the schema that clients see.
    pub(crate) arguments: Validator,
}

/// A resource or resource template and how to read it.
#[derive(Debug)]
pub(crate) struct ResourceItem {
    pub(crate) shown: ShownResource,
    pub(crate) uri: UriTemplate,
    /// What auth decides on.
    pub(crate) item: auth::CatalogItem,
    pub(crate) target: Target,
    pub(crate) mime_type: Option<String>,
}

/// What clients see of a resource.
#[derive(Debug)]
pub(crate) enum ShownResource {
    /// A fixed URI.
    Fixed(Resource),
    /// A template.
    Template(ResourceTemplate),
}

/// What one tool service offers.
#[derive(Clone, Debug, Default)]
pub(crate) struct ServiceCatalog {
    pub(crate) tools: Vec<Arc<ToolItem>>,
    pub(crate) resources: Vec<Arc<ResourceItem>>,
}

/// What all tool services offer together. Immutable: a change makes a new one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Catalog {
    services: BTreeMap<Namespace, ServiceCatalog>,
    tools: BTreeMap<String, Arc<ToolItem>>,
    resources: Vec<Arc<ResourceItem>>,
}

impl Catalog {
    /// This catalog with what `namespace` now offers. Where two RPCs claim one name, the first in the order
    /// of namespaces keeps it; the other is left out and reported.
    pub(crate) fn with(&self, namespace: Namespace, service: ServiceCatalog) -> Self {
        let mut services = self.services.clone();
        services.insert(namespace, service);
        let mut tools: BTreeMap<String, Arc<ToolItem>> = BTreeMap::new();
        for tool in services.values().flat_map(|service| &service.tools) {
            let name = &tool.item.name;
            if let Some(first) = tools.get(name) {
                tracing::error!(
                    tool = name,
                    rpc = tool.item.rpc,
                    first = first.item.rpc,
                    "two RPCs claim one tool name"
                );
                continue;
            }
            tools.insert(name.clone(), Arc::clone(tool));
        }
        let resources = services.values().flat_map(|service| &service.resources).map(Arc::clone).collect();
        Self { services, tools, resources }
    }

    /// All tools, by name.
    pub(crate) fn tools(&self) -> impl Iterator<Item = &Arc<ToolItem>> {
        self.tools.values()
    }

    /// The tool of this name.
    pub(crate) fn tool(&self, name: &str) -> Option<&Arc<ToolItem>> {
        self.tools.get(name)
    }

    /// All resources, by service.
    pub(crate) fn resources(&self) -> impl Iterator<Item = &Arc<ResourceItem>> {
        self.resources.iter()
    }

    /// The resource that this URI names, and the variables in it.
    pub(crate) fn resource(&self, uri: &str) -> Option<(&Arc<ResourceItem>, Variables)> {
        self.resources.iter().find_map(|resource| Some((resource, resource.uri.matches(uri)?)))
    }
}

/// Whether a text may be a tool's name: clients withhold every tool of a server if one name is not.
fn is_tool_name(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    (1..=64).contains(&text.len()) && text.bytes().all(allowed)
}
