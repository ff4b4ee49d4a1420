//! Reads a service's contract into catalog items.

use std::{sync::Arc, time::Duration};

use drawbridge_proto::{
    auth::v1 as auth,
    mcp::v1::{self as mcp, ToolHints},
};
use drawbridge_sdk::reflection::Contract;
use prost::{Message, Name};
use prost_reflect::{DescriptorPool, DynamicMessage, MethodDescriptor, ServiceDescriptor};
use rmcp::model::{JsonObject, Resource, ResourceTemplate, Tool, ToolAnnotations};
use serde_json::Value;
use tonic::transport::Channel;

use super::{
    Namespace, ResourceItem, ServiceCatalog, ShownResource, ToolItem, comments::Comments, is_tool_name,
    schema::object_schema, uri::UriTemplate,
};
use crate::upstream::Target;

/// Why an annotated method cannot be offered. The rest of its service is.
#[derive(Debug, thiserror::Error)]
enum ItemError {
    #[error("the name {0:?} is not one that every client takes: it must match ^[a-zA-Z0-9_-]{{1,64}}$")]
    Name(String),
    #[error("client streaming has no form in MCP")]
    ClientStreaming,
    #[error("a stream of events must have one field for the result, and this one has {0}")]
    Events(usize),
    #[error("{0} is not a JSON Schema of an object: {1}")]
    Schema(&'static str, String),
    #[error("the URI template is not one: {0}")]
    UriTemplate(#[from] super::uri::UriTemplateError),
    #[error("the URI template's variable {0:?} is no string field of the request")]
    Variable(String),
}

/// Reads what a service offers in `namespace`. What cannot be offered is left out and logged with its RPC.
pub(crate) fn read_contract(
    namespace: &Namespace,
    contract: &Contract,
    channel: &Channel,
    default_timeout: Duration,
) -> ServiceCatalog {
    let mut reader = Reader {
        namespace,
        channel,
        default_timeout,
        comments: Comments::default(),
        catalog: ServiceCatalog::default(),
    };
    for name in &contract.services {
        let Some(service) = contract.pool.get_service_by_name(name) else { continue };
        let options: Option<mcp::ServiceOptions> =
            extension(&contract.pool, &service.options(), "drawbridge.mcp.v1.service");
        match options {
            Some(options) if options.namespace == namespace.as_str() => {
                reader.read_service(&contract.pool, &service);
            }
            Some(options) => tracing::error!(
                service = name,
                namespace = options.namespace,
                configured = namespace.as_str(),
                "the service's namespace is not the configured one; it is left out"
            ),
            None => tracing::debug!(service = name, "the service offers nothing to MCP"),
        }
    }
    reader.catalog.tools.sort_by(|one, other| one.item.name.cmp(&other.item.name));
    reader.catalog
}

struct Reader<'a> {
    namespace: &'a Namespace,
    channel: &'a Channel,
    default_timeout: Duration,
    comments: Comments,
    catalog: ServiceCatalog,
}

impl Reader<'_> {
    fn read_service(&mut self, pool: &DescriptorPool, service: &ServiceDescriptor) {
        for method in service.methods() {
            let options = method.options();
            let read = if let Some(options) = extension(pool, &options, "drawbridge.mcp.v1.tool") {
                self.tool(&method, options).map(|tool| self.catalog.tools.push(Arc::new(tool)))
            } else if let Some(options) = extension(pool, &options, "drawbridge.mcp.v1.resource") {
                self.resource(&method, options).map(|item| self.catalog.resources.push(Arc::new(item)))
            } else {
                Ok(())
            };
            if let Err(error) = read {
                tracing::error!(
                    rpc = method.full_name(),
                    error = &error as &dyn std::error::Error,
                    "a method cannot be offered; it is left out"
                );
            }
        }
    }

    fn tool(&mut self, method: &MethodDescriptor, options: mcp::ToolOptions) -> Result<ToolItem, ItemError> {
        let name = self.name(method, &options.name)?;
        let target = self.target(method, options.timeout)?;
        let input = match given_schema("input_schema", &options.input_schema)? {
            Some(schema) => schema,
            None => object_schema(&method.input(), &mut self.comments),
        };
        let output = match given_schema("output_schema", &options.output_schema)? {
            Some(schema) => schema,
            None => object_schema(&target.result(), &mut self.comments),
        };
        let arguments = jsonschema::draft202012::options()
            .build(&Value::Object(input.clone()))
            .map_err(|error| ItemError::Schema("input_schema", error.to_string()))?;
        let description = self.description(method);
        let mut tool = Tool::new_with_raw(name.clone(), description.map(Into::into), Arc::new(input))
            .with_raw_output_schema(Arc::new(output))
            .with_annotations(annotations(options.hints.unwrap_or_default()));
        tool.title = Some(options.title).filter(|title| !title.is_empty());
        Ok(ToolItem { tool, item: self.item(name, &target, options.scopes), target, arguments })
    }

    fn resource(
        &mut self,
        method: &MethodDescriptor,
        options: mcp::ResourceOptions,
    ) -> Result<ResourceItem, ItemError> {
        let name = self.name(method, &options.name)?;
        let target = self.target(method, None)?;
        let uri = UriTemplate::parse(&options.uri_template)?;
        for variable in uri.variables() {
            let field = method.input().get_field_by_name(variable);
            if !field.is_some_and(|field| field.kind() == prost_reflect::Kind::String && !field.is_list()) {
                return Err(ItemError::Variable(variable.to_owned()));
            }
        }
        let mime_type = Some(options.mime_type).filter(|mime_type| !mime_type.is_empty());
        let title = Some(options.title).filter(|title| !title.is_empty());
        let description = self.description(method);
        let shown = if uri.variables().next().is_some() {
            let mut template = ResourceTemplate::new(uri.as_str(), name.clone());
            (template.title, template.description) = (title, description);
            template.mime_type.clone_from(&mime_type);
            ShownResource::Template(template)
        } else {
            let mut resource = Resource::new(uri.as_str(), name.clone());
            (resource.title, resource.description) = (title, description);
            resource.mime_type.clone_from(&mime_type);
            ShownResource::Fixed(resource)
        };
        Ok(ResourceItem { shown, uri, item: self.item(name, &target, options.scopes), target, mime_type })
    }

    fn name(&self, method: &MethodDescriptor, given: &str) -> Result<String, ItemError> {
        let name = match given {
            "" => format!("{}_{}", self.namespace, snake_case(method.name())),
            given => given.to_owned(),
        };
        if is_tool_name(&name) { Ok(name) } else { Err(ItemError::Name(name)) }
    }

    fn target(
        &self,
        method: &MethodDescriptor,
        timeout: Option<prost_types::Duration>,
    ) -> Result<Target, ItemError> {
        if method.is_client_streaming() {
            return Err(ItemError::ClientStreaming);
        }
        let timeout = timeout.and_then(|timeout| timeout.try_into().ok()).unwrap_or(self.default_timeout);
        Target::new(self.channel.clone(), method, timeout).map_err(ItemError::Events)
    }

    fn item(&self, name: String, target: &Target, scopes: Vec<String>) -> auth::CatalogItem {
        auth::CatalogItem {
            name,
            service: self.namespace.as_str().to_owned(),
            rpc: target.rpc().to_owned(),
            scopes,
        }
    }

    fn description(&mut self, method: &MethodDescriptor) -> Option<String> {
        self.comments.of(&method.parent_file(), method.path())
    }
}

/// Reads a custom option. The service's own copy of the contract is decoded as this build's.
fn extension<M: Message + Name + Default>(
    pool: &DescriptorPool,
    options: &DynamicMessage,
    name: &str,
) -> Option<M> {
    let extension = pool.get_extension_by_name(name)?;
    if !options.has_extension(&extension) {
        return None;
    }
    options.get_extension(&extension).as_message()?.transcode_to().ok()
}

fn given_schema(which: &'static str, text: &str) -> Result<Option<JsonObject>, ItemError> {
    if text.is_empty() {
        return Ok(None);
    }
    serde_json::from_str(text).map(Some).map_err(|error| ItemError::Schema(which, error.to_string()))
}

/// MCP's annotations, each said outright so that nobody has to know the defaults.
fn annotations(hints: ToolHints) -> ToolAnnotations {
    let mut annotations = ToolAnnotations::default();
    annotations.read_only_hint = Some(hints.read_only.unwrap_or(false));
    annotations.destructive_hint = Some(hints.destructive.unwrap_or(true));
    annotations.idempotent_hint = Some(hints.idempotent.unwrap_or(false));
    annotations.open_world_hint = Some(hints.open_world.unwrap_or(true));
    annotations
}

fn snake_case(name: &str) -> String {
    let mut text = String::new();
    let mut previous_lower = false;
    for letter in name.chars() {
        if letter.is_ascii_uppercase() && previous_lower {
            text.push('_');
        }
        previous_lower = letter.is_ascii_lowercase() || letter.is_ascii_digit();
        text.push(letter.to_ascii_lowercase());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_name_becomes_snake_case() {
        for (name, snake) in [
            ("Search", "search"),
            ("ListFiles", "list_files"),
            ("GetV2Thing", "get_v2_thing"),
            ("ReadURL", "read_url"),
        ] {
            assert_eq!(snake_case(name), snake);
        }
    }

    #[tokio::test]
    async fn the_code_service_offers_its_tools_and_its_resource() {
        let contract = Contract {
            pool: drawbridge_sdk::reflection::built_in().unwrap(),
            services: vec!["drawbridge.code.v1.CodeService".to_owned()],
        };
        let channel = drawbridge_sdk::connect(&"http://127.0.0.1:1".parse().unwrap()).unwrap();
        let catalog = read_contract(&"code".parse().unwrap(), &contract, &channel, Duration::from_secs(30));
        let names: Vec<_> = catalog.tools.iter().map(|tool| tool.item.name.as_str()).collect();
        assert_eq!(names, ["code_list_files", "code_search"]);
        let search = &catalog.tools[1];
        assert!(search.tool.description.as_ref().unwrap().starts_with("Searches the source tree"));
        assert_eq!(search.tool.annotations.as_ref().unwrap().read_only_hint, Some(true));
        assert_eq!(search.item.rpc, "drawbridge.code.v1.CodeService/Search");
        assert!(search.arguments.is_valid(&serde_json::json!({ "query": "x", "max_results": 3 })));
        assert!(!search.arguments.is_valid(&serde_json::json!({ "query": 1 })));
        assert!(!search.arguments.is_valid(&serde_json::json!({ "query": "x", "other": 1 })));
        assert_eq!(catalog.resources[0].uri.as_str(), "code://{+path}");
    }
}
