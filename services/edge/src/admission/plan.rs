//! Plans a message: authorizes its operation, and returns what remains to be done.

use std::sync::Arc;

use drawbridge_proto::auth::v1::{self as auth, operation::Kind};
use drawbridge_transport::CallContext;
use prost_reflect::{DynamicMessage, Value as Field};
use secrecy::SecretString;
use serde_json::Value;

use super::{AdmissionState, Arrival};
use crate::{
    admitted::{Call, Message, Plan, operation, operation_on},
    authorizer::{Allowed, Grant},
    catalog::{Catalog, CompletionItem, ItemKind, ResourceItem, UnreadItem, Variables},
    grpc::upstream::{EncodedMessage, RpcTarget},
    recorder::{CallRecorder, Ending},
    refusal::Refusal,
};

mod describe;
mod lists;
mod prompt;
mod tool;
mod watch;

/// The first revision without sessions, in which `subscriptions/listen` replaces
/// `resources/subscribe`.
const STATELESS: &str = "2026-07-28";

/// Plans a message. An item that is hidden from the caller is treated as an unknown one.
pub(super) async fn plan_message(
    state: &AdmissionState,
    Arrival { context, endpoint, recorder }: &Arrival,
    token: &SecretString,
    message: &Message,
) -> Result<(Plan, Grant), Refusal> {
    let catalog = state.catalogs.load();
    let resource = endpoint.resource();
    let planner = Planner {
        state,
        context,
        token,
        recorder,
        resource: &resource,
        catalog: &catalog,
        endpoint: endpoint.namespace.as_deref(),
    };
    match planner.plan(message).await {
        Err(refusal @ Refusal::Denied { is_hidden: true, .. }) => {
            refusal.record(&context.request_id);
            recorder.set_ending(Ending::from(&refusal));
            planner.connect().await
        }
        planned => planned,
    }
}

impl Planner<'_> {
    async fn plan(&self, message: &Message) -> Result<(Plan, Grant), Refusal> {
        let (planner, catalog) = (self, self.catalog);
        let text = |name: &str| message.params.get(name).and_then(Value::as_str);
        match message.method.as_str() {
            "tools/list" => planner.list_tools(catalog, &message.params).await,
            "resources/list" | "resources/templates/list" => {
                planner
                    .list_resources(catalog, message.method == "resources/list", &message.params)
                    .await
            }
            "initialize" | "server/discover" => planner.describe(catalog).await,
            "prompts/list" => planner.list_prompts(catalog, &message.params).await,
            "tools/call" => match text("name") {
                None => planner.invalid_params("name must be a string").await,
                Some(name) => {
                    match catalog
                        .tool(name)
                        .filter(|tool| planner.serves(ItemKind::Tool, &tool.item))
                    {
                        Some(tool) => planner.call_tool(tool, &message.params).await,
                        None => planner.absent(Kind::CallTool, ItemKind::Tool, name).await,
                    }
                }
            },
            // The handler rejects a method that its revision does not have.
            "resources/subscribe"
                if message.revision().is_none_or(|revision| revision < STATELESS) =>
            {
                match text("uri") {
                    None => planner.invalid_params("uri must be a string").await,
                    Some(uri) => planner.watch(catalog, &[uri]).await,
                }
            }
            "subscriptions/listen" => {
                let uris = message
                    .params
                    .get("notifications")
                    .map(|wanted| &wanted["resourceSubscriptions"]);
                let uris: Vec<_> = uris
                    .and_then(Value::as_array)
                    .into_iter()
                    .flatten()
                    .filter_map(Value::as_str)
                    .collect();
                planner.watch(catalog, &uris).await
            }
            "resources/read" => match text("uri") {
                None => planner.invalid_params("uri must be a string").await,
                Some(uri) => match catalog
                    .resource(uri)
                    .filter(|(resource, _)| planner.serves(ItemKind::Resource, &resource.item))
                {
                    Some((resource, values)) => planner.read_resource(resource, values).await,
                    None => planner.absent(Kind::ReadResource, ItemKind::Resource, uri).await,
                },
            },
            "prompts/get" => match text("name") {
                None => planner.invalid_params("name must be a string").await,
                Some(name) => {
                    match catalog
                        .prompt(name)
                        .filter(|prompt| planner.serves(ItemKind::Prompt, &prompt.item))
                    {
                        Some(prompt) => planner.get_prompt(prompt, &message.params).await,
                        None => planner.absent(Kind::GetPrompt, ItemKind::Prompt, name).await,
                    }
                }
            },
            "completion/complete" => planner.plan_completion(&message.params).await,
            _ => planner.connect().await,
        }
    }
}

/// The prompt or resource template that a request for a completion refers to.
fn completed(params: &Value) -> Option<(ItemKind, &str)> {
    let reference = params.get("ref")?;
    match reference["type"].as_str()? {
        "ref/prompt" => Some((ItemKind::Prompt, reference["name"].as_str()?)),
        "ref/resource" => Some((ItemKind::Resource, reference["uri"].as_str()?)),
        _ => None,
    }
}

struct Planner<'a> {
    state: &'a AdmissionState,
    context: &'a CallContext,
    token: &'a SecretString,
    recorder: &'a CallRecorder,
    resource: &'a str,
    catalog: &'a Catalog,
    /// The requested endpoint, unless it is the one for all services.
    endpoint: Option<&'a str>,
}

impl Planner<'_> {
    /// Whether the requested endpoint serves this item.
    fn serves(&self, kind: ItemKind, item: &auth::CatalogItem) -> bool {
        self.endpoint.is_none_or(|endpoint| self.catalog.serves(endpoint, kind, item))
    }

    /// Asks auth about the operation of the request, and records the decision.
    async fn decide(&self, operation: &auth::Operation) -> Result<Allowed, Refusal> {
        let ruling = self.ask(operation).await;
        self.recorder.decided(operation, ruling.as_ref());
        ruling
    }

    /// Asks auth about an operation.
    async fn ask(&self, operation: &auth::Operation) -> Result<Allowed, Refusal> {
        self.state.authorizer.authorize(self.context, self.token, self.resource, operation).await
    }

    async fn connect(&self) -> Result<(Plan, Grant), Refusal> {
        let allowed =
            self.state.authorizer.connect(self.context, self.token, self.resource).await?;
        self.recorder.authenticated(&allowed.principal);
        Ok((Plan::Connect, allowed.grant()))
    }

    /// Plans the response for an item that the catalog does not have. An unauthenticated caller
    /// must not learn which items exist, and no caller which ones the policies hide.
    async fn absent(
        &self,
        kind: Kind,
        item_kind: ItemKind,
        name: &str,
    ) -> Result<(Plan, Grant), Refusal> {
        let unread = self.catalog.unread_item(item_kind, name);
        match unread.filter(|unread| self.serves(item_kind, &unread.item)) {
            None => self.connect().await,
            Some(UnreadItem { item, is_locked: true }) => {
                let allowed = self.decide(&operation(kind, &item)).await?;
                Ok((Plan::Unread, allowed.grant()))
            }
            Some(UnreadItem { is_locked: false, .. }) => {
                let (_, grant) = self.connect().await?;
                Ok((Plan::Unread, grant))
            }
        }
    }

    /// Rejects parameters, after authenticating the caller.
    async fn invalid_params(&self, problem: &str) -> Result<(Plan, Grant), Refusal> {
        self.connect().await?;
        Err(Refusal::Params(problem.to_owned()))
    }

    async fn plan_completion(&self, params: &Value) -> Result<(Plan, Grant), Refusal> {
        let Some((kind, name)) = completed(params) else { return self.connect().await };
        let item = match kind {
            ItemKind::Prompt => self.catalog.prompt(name).map(|prompt| &prompt.item),
            _ => self.catalog.resource_of_template(name).map(|resource| &resource.item),
        };
        match item.filter(|item| self.serves(kind, item)) {
            None => {
                // The lock does not name the completing RPC. A caller who could be allowed the item
                // may complete it.
                let of_item = match kind {
                    ItemKind::Prompt => Kind::GetPrompt,
                    _ => Kind::ReadResource,
                };
                self.absent(of_item, kind, name).await
            }
            Some(item) => match self.catalog.completion(item) {
                Some(completion) => self.complete(completion, params).await,
                None => self.connect().await,
            },
        }
    }

    async fn complete(
        &self,
        completion: &Arc<CompletionItem>,
        params: &Value,
    ) -> Result<(Plan, Grant), Refusal> {
        let operation = operation(Kind::Complete, &completion.item);
        let Some(message) = completion.request(params) else {
            // Only a caller that may complete learns what is invalid.
            self.decide(&operation).await?;
            return Err(Refusal::Params(
                "`argument` must have a `name` and a `value`, both strings".to_owned(),
            ));
        };
        let (call, grant) = self.allow(operation, &completion.target, message).await?;
        Ok((Plan::Complete(Arc::clone(completion), Arc::new(call)), grant))
    }

    async fn read_resource(
        &self,
        resource: &Arc<ResourceItem>,
        values: Variables,
    ) -> Result<(Plan, Grant), Refusal> {
        let mut message = DynamicMessage::new(resource.target.input());
        for (name, value) in values {
            message.set_field_by_name(&name, Field::String(value));
        }
        let (call, grant) =
            self.authorize(Kind::ReadResource, &resource.item, &resource.target, message).await?;
        Ok((Plan::ReadResource(Arc::clone(resource), call), grant))
    }

    /// Authorizes this exact message.
    async fn authorize(
        &self,
        kind: Kind,
        item: &auth::CatalogItem,
        target: &RpcTarget,
        mut message: DynamicMessage,
    ) -> Result<(Arc<Call>, Grant), Refusal> {
        target.clear_responses(&mut message);
        // Authorized as it will be sent, so that no alternative spelling of a field bypasses a
        // policy.
        let operation = operation_on(kind, item, target, &message);
        let (call, grant) = self.allow(operation, target, message).await?;
        Ok((Arc::new(call), grant))
    }

    /// Authorizes an operation. The transaction token permits `message` to be sent to `target`.
    async fn allow(
        &self,
        operation: auth::Operation,
        target: &RpcTarget,
        message: DynamicMessage,
    ) -> Result<(Call, Grant), Refusal> {
        let message = EncodedMessage::new(message);
        let has_responses_field = target.has_responses_field();
        let operation =
            if has_responses_field { operation } else { message.bind_digest(operation) };
        let allowed = self.decide(&operation).await?;
        let token = if has_responses_field { allowed.token().ok() } else { Some(allowed.token()?) };
        let call = Call { message, token, epoch: allowed.epoch, operation: operation.into() };
        Ok((call, allowed.grant()))
    }
}
