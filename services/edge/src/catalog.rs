//! The catalog: the tools, resources and prompts that the edge offers.
//!
//! An item is a plain model with a call target. Contracts read by gRPC reflection are one source.

use std::sync::Arc;

use drawbridge_proto::{auth::v1 as auth, mcp::v1 as mcp};
use jsonschema::Validator;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, Value as Field};
use rmcp::model::{MetaObject, Prompt, Resource, ResourceTemplate, Tool};
use serde::Serialize;
use serde_json::Value;

use crate::{
    grpc::upstream::RpcTarget,
    traffic::{cache::CallCaching, transform::Transformation},
};

pub use self::lock::{CatalogLock, ItemKind, LOCK_BYTES_MAX, LockDifference};
pub(crate) use self::{
    arguments::{check_arguments, read_arguments},
    claims::{NameConflict, NameKind},
    current::Catalogs,
    load::{contract_hash, read_contract},
    lock_enforcer::LockEnforcer,
    merged::{Catalog, CatalogConfig, CatalogRevision},
    meta::{MetaKeys, has_ui},
    overlay::Overlay,
    tool_json::{ToolForm, ToolJson},
    unread::UnreadItem,
    uri::{UriTemplate, Variables},
};

pub(crate) mod arguments;
mod claimant;
mod claims;
mod current;
mod load;
mod lock;
mod lock_enforcer;
mod merged;
mod meta;
mod overlay;
pub(crate) mod schema_text;
#[cfg(test)]
pub(crate) mod testdata;
mod tool_json;
mod unread;
mod uri;

/// A tool and how to call it.
#[derive(Clone, Debug)]
pub(crate) struct ToolItem {
    /// The item as clients see it.
    pub(crate) tool: Tool,
    /// The item that auth decides on, by the name that the service gives it.
    pub(crate) item: auth::CatalogItem,
    pub(crate) target: RpcTarget,
    pub(crate) caching: CallCaching,
    /// A class by which rate limits may select it, besides its name. May be empty.
    pub(crate) rate_class: String,
    /// Validates arguments against the service's schema, including constraints that clients see
    /// only in descriptions.
    pub(crate) arguments: Arc<Validator>,
    /// Validates arguments against the schema that clients see, where it differs.
    pub(crate) shown_arguments: Option<Arc<Validator>>,
    /// How arguments and results are transformed, if they are.
    pub(crate) transformation: Option<Arc<Transformation>>,
    /// The tool in lists.
    pub(crate) json: ToolJson,
}

/// A resource or resource template and how to read it.
#[derive(Clone, Debug)]
pub(crate) struct ResourceItem {
    pub(crate) shown: ShownResource,
    pub(crate) uri: UriTemplate,
    /// The item that auth decides on.
    pub(crate) item: auth::CatalogItem,
    pub(crate) target: RpcTarget,
    pub(crate) caching: CallCaching,
    pub(crate) mime_type: Option<String>,
}

impl ResourceItem {
    /// Whether it is a template, which matches any number of resources.
    pub(crate) fn is_template(&self) -> bool {
        matches!(self.shown, ShownResource::Template(_))
    }
}

/// A resource as clients see it.
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
    /// The item as clients see it.
    pub(crate) prompt: Prompt,
    /// The item that auth decides on.
    pub(crate) item: auth::CatalogItem,
    pub(crate) target: RpcTarget,
}

/// An RPC that completes the arguments of one prompt or resource.
#[derive(Debug)]
pub(crate) struct CompletionItem {
    /// The prompt or resource with the completing RPC: the item that auth decides on.
    pub(crate) item: auth::CatalogItem,
    pub(crate) target: RpcTarget,
    /// The field of the request that takes the argument.
    pub(crate) argument: FieldDescriptor,
}

impl CompletionItem {
    /// The request for the argument in a client's parameters.
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

/// An RPC that streams the changes of one resource.
#[derive(Debug)]
pub(crate) struct WatchItem {
    /// The resource with the streaming RPC: the item that auth decides on.
    pub(crate) item: auth::CatalogItem,
    pub(crate) target: RpcTarget,
}

impl WatchItem {
    /// The request for the resource with these variables.
    pub(crate) fn request(&self, variables: Variables) -> DynamicMessage {
        let mut request = DynamicMessage::new(self.target.input());
        for (name, value) in variables {
            // A method without this variable streams the changes of all resources.
            let _ = request.try_set_field_by_name(&name, Field::String(value));
        }
        request
    }
}

/// An RPC that lists the existing resources of one resource template, in pages.
#[derive(Debug)]
pub(crate) struct ListItem {
    /// The resource template with the listing RPC: the item that auth decides on.
    pub(crate) item: auth::CatalogItem,
    pub(crate) target: RpcTarget,
    /// The template, which each listed resource must match.
    pub(crate) resource: Arc<ResourceItem>,
}

impl ListItem {
    /// The request for the page at `token`, of at most `items` resources.
    pub(crate) fn request(&self, token: &str, items: i32) -> DynamicMessage {
        let mut request = DynamicMessage::new(self.target.input());
        // A method without these fields returns all resources in one page.
        let _ = request.try_set_field_by_name("page_size", Field::I32(items));
        let _ = request.try_set_field_by_name("page_token", Field::String(token.to_owned()));
        request
    }
}

/// The instructions that a tool service gives to models.
#[derive(Clone, Debug)]
pub(crate) struct Instructions {
    /// The tool service and its gRPC service.
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
