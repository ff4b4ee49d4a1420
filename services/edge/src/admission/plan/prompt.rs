//! Plans `prompts/get`: reads the arguments, which are strings, into the message of the RPC.

use std::sync::Arc;

use drawbridge_proto::auth::v1::operation::Kind;
use prost_reflect::{DynamicMessage, Value as Field};
use serde_json::Value;

use super::Planner;
use crate::{
    admitted::{Plan, operation},
    authorizer::Grant,
    catalog::PromptItem,
    refusal::Refusal,
    truncate::truncate,
};

impl Planner<'_> {
    pub(super) async fn get_prompt(
        &self,
        prompt: &Arc<PromptItem>,
        params: &Value,
    ) -> Result<(Plan, Grant), Refusal> {
        let message = match prompt_arguments(prompt, params.get("arguments")) {
            Ok(message) => message,
            Err(problem) => {
                // Only a caller that may get the prompt learns what is invalid.
                let operation = operation(Kind::GetPrompt, &prompt.item);
                self.decide(&operation).await?;
                return Err(Refusal::Params(problem));
            }
        };
        let (call, grant) =
            self.authorize(Kind::GetPrompt, &prompt.item, &prompt.target, message).await?;
        Ok((Plan::GetPrompt(Arc::clone(prompt), call), grant))
    }
}

/// Reads a prompt's arguments into the message of the RPC.
fn prompt_arguments(
    prompt: &PromptItem,
    arguments: Option<&Value>,
) -> Result<DynamicMessage, String> {
    let empty = serde_json::Map::new();
    let given = match arguments {
        None | Some(Value::Null) => &empty,
        Some(Value::Object(given)) => given,
        Some(_) => return Err("arguments must be an object".to_owned()),
    };
    let known = prompt.prompt.arguments.as_deref().unwrap_or_default();
    let mut message = DynamicMessage::new(prompt.target.input());
    for (name, value) in given {
        if !known.iter().any(|argument| argument.name == *name) {
            return Err(format!("the prompt has no argument {:?}", truncate(name)));
        }
        let text = match value {
            Value::Null => continue,
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            _ => return Err(format!("the argument {name:?} must be a string")),
        };
        message.set_field_by_name(name, Field::String(text));
    }
    let is_given = |name: &str| given.get(name).is_some_and(|value| !value.is_null());
    let missing =
        known.iter().find(|argument| argument.required == Some(true) && !is_given(&argument.name));
    match missing {
        Some(argument) => Err(format!("the argument {:?} is missing", argument.name)),
        None => Ok(message),
    }
}
