//! Methods as tools.

use std::sync::Arc;

use drawbridge_proto::mcp::v1 as mcp;
use drawbridge_sdk::contract::Hints;
use jsonschema::Validator;
use prost_reflect::MethodDescriptor;
use rmcp::model::{JsonObject, Tool, ToolAnnotations};

use super::{ItemError, Reader};
use crate::{
    catalog::{
        ToolItem,
        given::{compile, given_schema},
        meta,
    },
    grpc::{
        schema::{Purpose, object_schema},
        upstream::Target,
    },
    mcp::is_rich,
    traffic::cache::Tag,
};

impl Reader<'_> {
    pub(super) fn tool(
        &mut self,
        name: String,
        method: &MethodDescriptor,
        options: mcp::ToolOptions,
    ) -> Result<ToolItem, ItemError> {
        let mut target = self.target(method, options.timeout)?;
        let hints = Hints::of(&options);
        target.idempotent = hints.read_only || hints.idempotent;
        let writes = !(hints.read_only && hints.idempotent && options.invalidates.is_empty());
        target.cache = self.cache(&name, &target, options.cache.as_ref(), writes);
        target.invalidates = Tag::all(self.namespace.as_str(), &options.invalidates)?;
        let (input, arguments) = self.input(method, &options.input_schema)?;
        let output = self.output(&target, &options.output_schema)?;
        let meta = meta::of_tool(&options)?;
        let description = self.description(method, options.description);
        let mut tool =
            Tool::new_with_raw(name.clone(), description.map(Into::into), Arc::new(input))
                .with_annotations(annotations(hints));
        tool.output_schema = output.map(Arc::new);
        tool.meta = meta;
        tool.title = Some(options.title).filter(|title| !title.is_empty());
        let item = self.item(name, &target, options.scopes);
        Ok(ToolItem {
            tool,
            item,
            target,
            rate_class: options.rate_class,
            arguments: Arc::new(arguments),
            shown_arguments: None,
            transformation: None,
        })
    }

    /// The schema that clients see, and what checks arguments.
    fn input(
        &mut self,
        method: &MethodDescriptor,
        given: &str,
    ) -> Result<(JsonObject, Validator), ItemError> {
        const WHICH: &str = "input_schema";
        let wrong = |error| ItemError::Schema(WHICH, error);
        if let Some(schema) = given_schema(given).map_err(wrong)? {
            let arguments = compile(&schema).map_err(wrong)?;
            return Ok((schema, arguments));
        }
        let mut derive = |purpose| {
            object_schema(&method.input(), purpose, &mut self.comments)
                .map_err(|error| ItemError::Derived(WHICH, error))
        };
        let (schema, check) = (derive(Purpose::Arguments)?, derive(Purpose::Check)?);
        Ok((schema, compile(&check).map_err(wrong)?))
    }

    /// The schema of the structured result; none where the tool chooses its content itself.
    fn output(&mut self, target: &Target, given: &str) -> Result<Option<JsonObject>, ItemError> {
        const WHICH: &str = "output_schema";
        let wrong = |error| ItemError::Schema(WHICH, error);
        let Some(schema) = given_schema(given).map_err(wrong)? else {
            if is_rich(target.result().descriptor()) {
                return Ok(None);
            }
            return object_schema(
                target.result().descriptor(),
                Purpose::Result,
                &mut self.comments,
            )
            .map(Some)
            .map_err(|error| ItemError::Derived(WHICH, error));
        };
        // Clients compile it.
        compile(&schema).map_err(wrong)?;
        Ok(Some(schema))
    }
}

/// MCP's annotations, each said outright so that nobody has to know the defaults.
fn annotations(hints: Hints) -> ToolAnnotations {
    let mut annotations = ToolAnnotations::default();
    annotations.read_only_hint = Some(hints.read_only);
    annotations.destructive_hint = Some(hints.destructive);
    annotations.idempotent_hint = Some(hints.idempotent);
    annotations.open_world_hint = Some(hints.open_world);
    annotations
}
