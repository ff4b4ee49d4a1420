//! What the edge offers: tools and resources, wherever they come from.
//!
//! An item is a plain model with a call target. Descriptors read by gRPC reflection are the first source.

use std::sync::Arc;

use drawbridge_proto::{auth::v1 as auth, mcp::v1 as mcp};
use jsonschema::Validator;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, Value as Field};
use rmcp::model::{MetaObject, Prompt, Resource, ResourceTemplate, Tool};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{grpc::upstream::Target, traffic::transform::Transformation};

pub use self::lock::{CatalogLock, ItemKind, LOCK_BYTES_MAX, LockDifference};
pub(crate) use self::{
    arguments::{check_arguments, read_arguments},
    claims::{Conflict, NameKind},
    current::Catalogs,
    given::{compile, given_schema},
    load::{contract_hash, read_contract},
    merged::{Catalog, Revision, Terms},
    meta::{MetaKeys, has_ui, without_ui},
    pins::{PinMode, Pins},
    uri::{UriTemplate, Variables},
    view::{Server, ToolView, View},
};

pub(crate) mod arguments;
mod claims;
mod current;
pub(crate) mod discovery;
mod given;
mod load;
mod lock;
mod merged;
mod meta;
mod pins;
#[cfg(test)]
pub(crate) mod testdata;
mod uri;
mod view;

/// A tool service's namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
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

impl TryFrom<String> for Namespace {
    type Error = NamespaceError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl Namespace {
    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for Namespace {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for Namespace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// A tool and how to call it.
#[derive(Clone, Debug)]
pub(crate) struct ToolItem {
    /// What clients see.
    pub(crate) tool: Tool,
    /// What auth decides on, by the name that the service gives it.
    pub(crate) item: auth::CatalogItem,
    pub(crate) target: Target,
    /// What rate limits may name it by, besides its name. Empty: nothing.
    pub(crate) rate_class: String,
    /// Checks arguments against the schema of the service, and what that says in words.
    pub(crate) arguments: Arc<Validator>,
    /// Checks them against the schema that clients see, where it is another.
    pub(crate) shown_arguments: Option<Arc<Validator>>,
    /// What is changed on the way, if anything is.
    pub(crate) transformation: Option<Arc<Transformation>>,
}

/// A resource or resource template and how to read it.
#[derive(Clone, Debug)]
pub(crate) struct ResourceItem {
    pub(crate) shown: ShownResource,
    pub(crate) uri: UriTemplate,
    /// What auth decides on.
    pub(crate) item: auth::CatalogItem,
    pub(crate) target: Target,
    pub(crate) mime_type: Option<String>,
}

impl ResourceItem {
    /// Whether it stands for any number of resources.
    pub(crate) fn is_template(&self) -> bool {
        matches!(self.shown, ShownResource::Template(_))
    }
}

/// What clients see of a resource.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum ShownResource {
    /// A fixed URI.
    Fixed(Resource),
    /// A template.
    Template(ResourceTemplate),
}

impl ShownResource {
    pub(crate) fn meta(&self) -> Option<&MetaObject> {
        match self {
            Self::Fixed(resource) => resource.meta.as_ref(),
            Self::Template(template) => template.meta.as_ref(),
        }
    }

    pub(crate) fn meta_mut(&mut self) -> &mut Option<MetaObject> {
        match self {
            Self::Fixed(resource) => &mut resource.meta,
            Self::Template(template) => &mut template.meta,
        }
    }
}

/// A prompt and how to get it.
#[derive(Clone, Debug)]
pub(crate) struct PromptItem {
    /// What clients see.
    pub(crate) prompt: Prompt,
    /// What auth decides on.
    pub(crate) item: auth::CatalogItem,
    pub(crate) target: Target,
}

/// What completes the arguments of one prompt or resource.
#[derive(Debug)]
pub(crate) struct CompletionItem {
    /// The prompt or resource, with the RPC that completes: what auth decides on.
    pub(crate) item: auth::CatalogItem,
    pub(crate) target: Target,
    /// The request's field for the argument.
    pub(crate) argument: FieldDescriptor,
}

impl CompletionItem {
    /// The request for the argument that a client's parameters tell of.
    pub(crate) fn request(&self, params: &Value) -> Option<DynamicMessage> {
        let argument = params.get("argument")?;
        let context = params["context"]["arguments"].as_object().into_iter().flatten();
        let argument = mcp::CompletionArgument {
            item: self.item.name.clone(),
            name: argument["name"].as_str()?.to_owned(),
            value: argument["value"].as_str()?.to_owned(),
            context: context
                .filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
                .collect(),
        };
        let Kind::Message(descriptor) = self.argument.kind() else { return None };
        let mut value = DynamicMessage::new(descriptor);
        value.transcode_from(&argument).ok()?;
        let mut request = DynamicMessage::new(self.target.input());
        request.set_field(&self.argument, Field::Message(value));
        Some(request)
    }
}

/// What streams the changes of one resource.
#[derive(Debug)]
pub(crate) struct WatchItem {
    /// The resource, with the RPC that streams: what auth decides on.
    pub(crate) item: auth::CatalogItem,
    pub(crate) target: Target,
}

impl WatchItem {
    /// The request for the resource with these variables.
    pub(crate) fn request(&self, variables: Variables) -> DynamicMessage {
        let mut request = DynamicMessage::new(self.target.input());
        for (name, value) in variables {
            // A method that takes no such variable streams changes of all.
            let _ = request.try_set_field_by_name(&name, Field::String(value));
        }
        request
    }
}

/// What pages the resources that exist of one resource template.
#[derive(Debug)]
pub(crate) struct ListItem {
    /// The resource template, with the RPC that pages: what auth decides on.
    pub(crate) item: auth::CatalogItem,
    pub(crate) target: Target,
    /// The template, to which each resource must belong.
    pub(crate) resource: Arc<ResourceItem>,
}

impl ListItem {
    /// The request for the page at `token`, of at most `items` resources.
    pub(crate) fn request(&self, token: &str, items: i32) -> DynamicMessage {
        let mut request = DynamicMessage::new(self.target.input());
        // A method that does not know these fields gives what there is at once.
        let _ = request.try_set_field_by_name("page_size", Field::I32(items));
        let _ = request.try_set_field_by_name("page_token", Field::String(token.to_owned()));
        request
    }
}

/// What a tool service tells models of itself.
#[derive(Clone, Debug)]
pub(crate) struct Instructions {
    /// The service, and its gRPC service.
    pub(crate) item: auth::CatalogItem,
    pub(crate) text: String,
}

/// What one tool service offers.
#[derive(Clone, Debug, Default)]
pub(crate) struct ServiceCatalog {
    pub(crate) instructions: Option<Arc<Instructions>>,
    pub(crate) tools: Vec<Arc<ToolItem>>,
    pub(crate) resources: Vec<Arc<ResourceItem>>,
    pub(crate) prompts: Vec<Arc<PromptItem>>,
    pub(crate) completions: Vec<Arc<CompletionItem>>,
    pub(crate) watches: Vec<Arc<WatchItem>>,
    pub(crate) lists: Vec<Arc<ListItem>>,
}

/// Whether a text may be a tool's name: clients withhold every tool of a server if one name is not.
pub(crate) fn is_tool_name(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    (1..=64).contains(&text.len()) && text.bytes().all(allowed)
}
