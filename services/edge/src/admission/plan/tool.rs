//! The call of a tool: its arguments, what the config file changes of them, and the message that they make.

use std::sync::Arc;

use drawbridge_proto::auth::v1::{self as auth, operation::Kind};
use prost_reflect::DynamicMessage;
use serde_json::Value;

use super::{Asking, Plan, operation};
use crate::{
    admission::authorizer::{Allowed, Grant},
    catalog::{ToolItem, check_arguments, read_arguments},
    refusal::Refusal,
};

impl Asking<'_> {
    pub(super) async fn call_tool(
        &self,
        tool: &Arc<ToolItem>,
        params: &Value,
    ) -> Result<(Plan, Grant), Refusal> {
        let none = Value::Object(serde_json::Map::new());
        let arguments = params.get("arguments").filter(|given| !given.is_null()).unwrap_or(&none);
        if !arguments.is_object() {
            // What is wrong is told only to whom may call the tool.
            self.decide(operation(Kind::CallTool, &tool.item)).await?;
            return Err(Refusal::Params("arguments must be an object".to_owned()));
        }
        match self.message(tool, arguments).await? {
            Ok(message) => {
                let (call, grant) =
                    self.authorize(Kind::CallTool, &tool.item, &tool.target, message).await?;
                Ok((Plan::CallTool(Arc::clone(tool), call), grant))
            }
            Err(plan) => {
                // What is wrong is told only to whom may call the tool with better arguments.
                let operation = operation(Kind::CallTool, &tool.item);
                let allowed = self.decide(operation).await?;
                Ok((plan, allowed.grant()))
            }
        }
    }

    /// The message that the arguments make, or what is left to do where they make none.
    async fn message(
        &self,
        tool: &Arc<ToolItem>,
        arguments: &Value,
    ) -> Result<Result<DynamicMessage, Plan>, Refusal> {
        let wrong = |wrong| Plan::WrongArguments(Arc::clone(tool), wrong);
        let Some(changes) = &tool.transformation else {
            return Ok(read_arguments(tool, arguments).map_err(wrong));
        };
        let arguments = match check_arguments(tool, arguments) {
            Ok(arguments) => arguments,
            Err(mistakes) => return Ok(Err(wrong(mistakes))),
        };
        let none = serde_json::Map::new();
        let given = arguments.as_object().unwrap_or(&none);
        let principal = match changes.request {
            // A program runs only for whom may call the tool with some arguments.
            Some(_) => self.foresee(operation(Kind::CallTool, &tool.item)).await?.principal,
            None => Arc::default(),
        };
        let name = &tool.item.name;
        Ok(match changes.request(name, given, &principal).await {
            Ok(changed) => read_arguments(tool, &changed).map_err(wrong),
            Err(failure) => {
                let request_id = &self.context.request_id;
                tracing::error!(%request_id, tool = name, %failure, "a request transformation failed");
                Err(Plan::NotTransformed(Arc::clone(tool)))
            }
        })
    }

    /// Decides, where another decision follows.
    async fn foresee(&self, operation: auth::Operation) -> Result<Allowed, Refusal> {
        self.gate.authorizer.foresee(self.context, self.token, self.resource, operation).await
    }
}
