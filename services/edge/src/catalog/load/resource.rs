//! Reads methods as resources.

use drawbridge_proto::mcp::v1 as mcp;
use prost_reflect::{Kind, MethodDescriptor};
use rmcp::model::{Resource, ResourceTemplate};

use super::{ContractReader, ItemError, URI_TEMPLATES_BYTES_MAX};
use crate::{
    catalog::{ResourceItem, ShownResource, meta, uri::UriTemplate},
    traffic::cache::CallCaching,
};

impl ContractReader<'_> {
    pub(super) fn resource(
        &mut self,
        name: String,
        method: &MethodDescriptor,
        options: mcp::ResourceOptions,
    ) -> Result<ResourceItem, ItemError> {
        let mut target = self.target(method, None)?;
        target.idempotent = true;
        let rule = self.cache_rule(&name, &target, options.cache.as_ref(), false);
        let caching = CallCaching { rule, invalidates: Vec::new() };
        let uri = UriTemplate::parse(&options.uri_template)?;
        if uri.variables().next().is_some() {
            self.templates_bytes += uri.as_str().len();
            if self.templates_bytes > URI_TEMPLATES_BYTES_MAX {
                return Err(ItemError::UriTemplates);
            }
        }
        for variable in uri.variables() {
            let field = method.input().get_field_by_name(variable);
            if !field.is_some_and(|field| field.kind() == Kind::String && !field.is_list()) {
                return Err(ItemError::Variable(variable.to_owned()));
            }
        }
        let meta = meta::of_resource(&options)?;
        let mime_type = Some(options.mime_type).filter(|mime_type| !mime_type.is_empty());
        let title = Some(options.title).filter(|title| !title.is_empty());
        let description = self.description(method, options.description);
        let shown = if uri.variables().next().is_some() {
            let mut template = ResourceTemplate::new(uri.as_str(), name.clone());
            (template.title, template.description) = (title, description);
            template.mime_type.clone_from(&mime_type);
            template.meta = meta;
            ShownResource::Template(template)
        } else {
            let mut resource = Resource::new(uri.as_str(), name.clone());
            (resource.title, resource.description) = (title, description);
            resource.mime_type.clone_from(&mime_type);
            resource.meta = meta;
            ShownResource::Fixed(resource)
        };
        let item = self.item(name, &target, options.scopes);
        Ok(ResourceItem { shown, uri, item, target, caching, mime_type })
    }
}
