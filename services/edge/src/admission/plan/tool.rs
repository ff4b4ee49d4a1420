//! Plans `tools/call`: checks and transforms the arguments, and reads them into the message of the
//! RPC.

use std::sync::Arc;

use drawbridge_proto::auth::v1::operation::Kind;
use prost_reflect::DynamicMessage;
use serde_json::Value;

use super::Planner;
use crate::{
    admitted::{Plan, operation},
    authorizer::Grant,
    catalog::{ToolItem, check_arguments, read_arguments},
    refusal::Refusal,
};

impl Planner<'_> {
    pub(super) async fn call_tool(
        &self,
        tool: &Arc<ToolItem>,
        params: &Value,
    ) -> Result<(Plan, Grant), Refusal> {
        let empty = Value::Object(serde_json::Map::new());
        let arguments = params.get("arguments").filter(|given| !given.is_null()).unwrap_or(&empty);
        if !arguments.is_object() {
            // Only a caller that may call the tool learns what is invalid.
            self.decide(&operation(Kind::CallTool, &tool.item)).await?;
            return Err(Refusal::Params("arguments must be an object".to_owned()));
        }
        match self.message(tool, arguments).await? {
            Ok(message) => {
                let (call, grant) =
                    self.authorize(Kind::CallTool, &tool.item, &tool.target, message).await?;
                Ok((Plan::CallTool(Arc::clone(tool), call), grant))
            }
            Err(plan) => {
                // Only a caller that may call the tool learns what is invalid.
                let operation = operation(Kind::CallTool, &tool.item);
                let allowed = self.decide(&operation).await?;
                Ok((plan, allowed.grant()))
            }
        }
    }

    /// The message with these arguments, or the plan if they are invalid.
    async fn message(
        &self,
        tool: &Arc<ToolItem>,
        arguments: &Value,
    ) -> Result<Result<DynamicMessage, Plan>, Refusal> {
        let invalid = |problem| Plan::InvalidArguments(Arc::clone(tool), problem);
        let Some(transformation) = &tool.transformation else {
            return Ok(read_arguments(tool, arguments).map_err(invalid));
        };
        let arguments = match check_arguments(tool, arguments) {
            Ok(arguments) => arguments,
            Err(problem) => return Ok(Err(invalid(problem))),
        };
        let empty = serde_json::Map::new();
        let given = arguments.as_object().unwrap_or(&empty);
        let principal = match transformation.request {
            // A program runs only for a caller that may call the tool with some arguments.
            Some(_) => self.ask(&operation(Kind::CallTool, &tool.item)).await?.principal,
            None => Arc::default(),
        };
        let name = &tool.item.name;
        Ok(match transformation.request(name, given, &principal).await {
            Ok(transformed) => read_arguments(tool, &transformed).map_err(invalid),
            Err(failure) => {
                let request_id = &self.context.request_id;
                tracing::error!(
                    %request_id, tool = name, %failure,
                    "a request transformation failed"
                );
                Err(Plan::TransformFailed(Arc::clone(tool)))
            }
        })
    }
}
