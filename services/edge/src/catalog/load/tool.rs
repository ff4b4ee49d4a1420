//! Reads methods as tools.

use std::sync::Arc;

use drawbridge_contract::EffectiveHints;
use drawbridge_proto::mcp::v1 as mcp;
use jsonschema::Validator;
use prost_reflect::MethodDescriptor;
use rmcp::model::{JsonObject, Tool, ToolAnnotations};

use super::{ContractReader, ItemError};
use crate::{
    catalog::{
        ToolItem, ToolJson, meta,
        schema_text::{compile, parse_schema},
    },
    grpc::{
        has_tool_result,
        schema::{Purpose, object_schema},
        upstream::RpcTarget,
    },
    traffic::cache::{CacheTag, CallCaching},
};

impl ContractReader<'_> {
    pub(super) fn tool(
        &mut self,
        name: String,
        method: &MethodDescriptor,
        options: mcp::ToolOptions,
    ) -> Result<ToolItem, ItemError> {
        let mut target = self.target(method, options.timeout)?;
        let hints = EffectiveHints::from_options(&options);
        target.idempotent = hints.read_only || hints.idempotent;
        let is_write = !(hints.read_only && hints.idempotent && options.invalidates.is_empty());
        let caching = CallCaching {
            rule: self.cache_rule(&name, &target, options.cache.as_ref(), is_write),
            invalidates: CacheTag::all(self.namespace.as_str(), &options.invalidates)?,
        };
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
            caching,
            rate_class: options.rate_class,
            arguments: Arc::new(arguments),
            shown_arguments: None,
            transformation: None,
            json: ToolJson::default(),
        })
    }

    /// The schema that clients see, and the validator of arguments.
    fn input(
        &mut self,
        method: &MethodDescriptor,
        schema_text: &str,
    ) -> Result<(JsonObject, Validator), ItemError> {
        const OPTION: &str = "input_schema";
        let invalid = |error| ItemError::Schema(OPTION, error);
        if let Some(schema) = parse_schema(schema_text).map_err(invalid)? {
            let arguments = compile(&schema).map_err(invalid)?;
            return Ok((schema, arguments));
        }
        let mut derive = |purpose| {
            object_schema(&method.input(), purpose, &mut self.comments)
                .map_err(|error| ItemError::Derived(OPTION, error))
        };
        let (schema, check) = (derive(Purpose::Arguments)?, derive(Purpose::Check)?);
        Ok((schema, compile(&check).map_err(invalid)?))
    }

    /// The schema of the structured result. `None` where the tool returns MCP content.
    fn output(
        &mut self,
        target: &RpcTarget,
        schema_text: &str,
    ) -> Result<Option<JsonObject>, ItemError> {
        const OPTION: &str = "output_schema";
        let invalid = |error| ItemError::Schema(OPTION, error);
        let Some(schema) = parse_schema(schema_text).map_err(invalid)? else {
            if has_tool_result(target.result().descriptor()) {
                return Ok(None);
            }
            return object_schema(
                target.result().descriptor(),
                Purpose::Result,
                &mut self.comments,
            )
            .map(Some)
            .map_err(|error| ItemError::Derived(OPTION, error));
        };
        // Clients compile the schema.
        compile(&schema).map_err(invalid)?;
        Ok(Some(schema))
    }
}

/// MCP's annotations, each set explicitly, so that clients need not know the defaults.
fn annotations(hints: EffectiveHints) -> ToolAnnotations {
    let mut annotations = ToolAnnotations::default();
    annotations.read_only_hint = Some(hints.read_only);
    annotations.destructive_hint = Some(hints.destructive);
    annotations.idempotent_hint = Some(hints.idempotent);
    annotations.open_world_hint = Some(hints.open_world);
    annotations
}
