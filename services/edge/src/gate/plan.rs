//! What a message asks for, and what is left to do once it is allowed.

use std::sync::Arc;

use drawbridge_proto::auth::v1::{self as auth, operation::Kind};
use drawbridge_sdk::{CallContext, dynamic};
use prost_reflect::{DynamicMessage, Value as Field};
use secrecy::SecretString;
use serde_json::Value;

use super::{Gate, message::Message};
use crate::{
    catalog::{Catalog, ResourceItem, ToolItem, Variables},
    refusal::Refusal,
};

/// What is left to do for a request that is allowed.
#[derive(Clone, Debug)]
pub(crate) enum Plan {
    /// Nothing that needs more than a valid caller.
    Connect,
    /// Show these tools.
    ListTools(Arc<Vec<Arc<ToolItem>>>),
    /// Show these resources.
    ListResources(Arc<Vec<Arc<ResourceItem>>>),
    /// Call this tool.
    CallTool(Arc<ToolItem>, Arc<Call>),
    /// Tell the model what is wrong with its arguments for this tool.
    WrongArguments(Arc<ToolItem>, String),
    /// Read this resource.
    ReadResource(Arc<ResourceItem>, Arc<Call>),
}

impl Plan {
    /// The tool that is called.
    pub(crate) fn tool_name(&self) -> Option<String> {
        match self {
            Self::CallTool(tool, _) | Self::WrongArguments(tool, _) => Some(tool.item.name.clone()),
            _ => None,
        }
    }
}

/// A call that is allowed: the message as it was decided on, and the token for it.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) message: DynamicMessage,
    pub(crate) token: SecretString,
}

/// Asks auth about what `message` asks for.
pub(super) async fn make(
    gate: &Gate,
    context: &CallContext,
    token: &SecretString,
    message: &Message,
) -> Result<(Plan, auth::Principal), Refusal> {
    let catalog = gate.catalog.load_full();
    let asking = Asking { gate, context, token };
    match message.method.as_str() {
        "tools/list" => asking.list_tools(&catalog).await,
        "resources/list" | "resources/templates/list" => asking.list_resources(&catalog).await,
        "tools/call" => match message.tool_name() {
            None => asking.refuse("name must be a string").await,
            Some(name) => match catalog.tool(name) {
                Some(tool) => asking.call_tool(tool, &message.params).await,
                // Whoever is not known must not learn what there is and what not.
                None => asking.connect().await,
            },
        },
        "resources/read" => match message.params.get("uri").and_then(Value::as_str) {
            None => asking.refuse("uri must be a string").await,
            Some(uri) => match catalog.resource(uri) {
                Some((resource, values)) => asking.read_resource(resource, values).await,
                None => asking.connect().await,
            },
        },
        _ => asking.connect().await,
    }
}

struct Asking<'a> {
    gate: &'a Gate,
    context: &'a CallContext,
    token: &'a SecretString,
}

impl Asking<'_> {
    async fn connect(&self) -> Result<(Plan, auth::Principal), Refusal> {
        let allowed = self.gate.authorizer.connect(self.context, self.token).await?;
        Ok((Plan::Connect, allowed.principal.unwrap_or_default()))
    }

    /// Refuses parameters, once the caller is known.
    async fn refuse(&self, what: &str) -> Result<(Plan, auth::Principal), Refusal> {
        self.connect().await?;
        Err(Refusal::Params(what.to_owned()))
    }

    async fn list_tools(&self, catalog: &Catalog) -> Result<(Plan, auth::Principal), Refusal> {
        let items = catalog.tools().map(|tool| tool.item.clone()).collect();
        let visible = self.gate.authorizer.filter(self.context, self.token, Kind::CallTool, items).await?;
        let tools = catalog.tools().filter(|tool| visible.names.contains(&tool.item.name)).map(Arc::clone);
        Ok((Plan::ListTools(Arc::new(tools.collect())), visible.principal.unwrap_or_default()))
    }

    async fn list_resources(&self, catalog: &Catalog) -> Result<(Plan, auth::Principal), Refusal> {
        let items = catalog.resources().map(|resource| resource.item.clone()).collect();
        let visible =
            self.gate.authorizer.filter(self.context, self.token, Kind::ReadResource, items).await?;
        let resources = catalog
            .resources()
            .filter(|resource| visible.names.contains(&resource.item.name))
            .map(Arc::clone);
        Ok((Plan::ListResources(Arc::new(resources.collect())), visible.principal.unwrap_or_default()))
    }

    async fn call_tool(
        &self,
        tool: &Arc<ToolItem>,
        params: &Value,
    ) -> Result<(Plan, auth::Principal), Refusal> {
        let none = Value::Object(serde_json::Map::new());
        let arguments = params.get("arguments").unwrap_or(&none);
        if !arguments.is_object() {
            return self.refuse("arguments must be an object").await;
        }
        match read_arguments(tool, arguments) {
            Ok(message) => {
                let (call, principal) = self.authorize(Kind::CallTool, &tool.item, message).await?;
                Ok((Plan::CallTool(Arc::clone(tool), call), principal))
            }
            Err(wrong) => {
                // What is wrong is told only to whom may call the tool with better arguments.
                let operation = operation(Kind::CallTool, &tool.item, None);
                let allowed = self.gate.authorizer.authorize(self.context, self.token, operation).await?;
                let principal = allowed.principal.unwrap_or_default();
                Ok((Plan::WrongArguments(Arc::clone(tool), wrong), principal))
            }
        }
    }

    async fn read_resource(
        &self,
        resource: &Arc<ResourceItem>,
        values: Variables,
    ) -> Result<(Plan, auth::Principal), Refusal> {
        let mut message = DynamicMessage::new(resource.target.input());
        for (name, value) in values {
            message.set_field_by_name(&name, Field::String(value));
        }
        let (call, principal) = self.authorize(Kind::ReadResource, &resource.item, message).await?;
        Ok((Plan::ReadResource(Arc::clone(resource), call), principal))
    }

    /// Asks whether exactly this message may be sent.
    async fn authorize(
        &self,
        kind: Kind,
        item: &auth::CatalogItem,
        message: DynamicMessage,
    ) -> Result<(Arc<Call>, auth::Principal), Refusal> {
        // Decided on as it will be sent, so that no other spelling of a field can slip past a policy.
        let arguments = dynamic::to_json(&message).and_then(|json| serde_json::to_vec(&json));
        let arguments = arguments.map_err(|error| Refusal::Params(error.to_string()))?;
        let operation = operation(kind, item, Some(arguments));
        let allowed = self.gate.authorizer.authorize(self.context, self.token, operation).await?;
        let token = allowed.transaction_token.ok_or(Refusal::AuthUnavailable)?;
        let call = Call { message, token: token.token.into() };
        Ok((Arc::new(call), allowed.principal.unwrap_or_default()))
    }
}

fn operation(kind: Kind, item: &auth::CatalogItem, arguments: Option<Vec<u8>>) -> auth::Operation {
    auth::Operation { kind: kind.into(), item: Some(item.clone()), arguments_json: arguments.map(Into::into) }
}

/// Reads arguments into the message that the RPC takes, or says which are wrong and why.
fn read_arguments(tool: &ToolItem, arguments: &Value) -> Result<DynamicMessage, String> {
    let wrong: Vec<_> = tool
        .arguments
        .iter_errors(arguments)
        .take(5)
        .map(|error| match error.instance_path().as_str() {
            "" => error.to_string(),
            path => format!("{}: {error}", path.trim_start_matches('/')),
        })
        .collect();
    if !wrong.is_empty() {
        return Err(wrong.join("; "));
    }
    dynamic::from_json(tool.target.input(), arguments).map_err(|error| error.to_string())
}
