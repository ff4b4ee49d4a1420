//! What a message asks for, and what is left to do once it is allowed.

use std::sync::Arc;

use drawbridge_proto::auth::v1::{self as auth, operation::Kind};
use drawbridge_sdk::CallContext;
use prost_reflect::{DynamicMessage, Value as Field};
use secrecy::SecretString;
use serde_json::Value;

use super::{Gate, cursor::Cursor, message::Message, params::cut};
use crate::{
    admission::authorizer::{Allowed, Grant},
    catalog::{
        Catalog, CompletionItem, ItemKind, ListItem, PromptItem, ResourceItem, ToolItem, Variables,
        WatchItem,
    },
    grpc::upstream::{EncodedMessage, Target},
    metadata::Endpoint,
    refusal::Refusal,
};

mod introduce;
mod lists;
mod prompt;
mod tool;

/// The longest URI of a resource that is watched, in bytes: it is held as long as it is.
const WATCHED_URI_BYTES_MAX: usize = 2048;
/// The first revision without sessions, in which `subscriptions/listen` is in place of `resources/subscribe`.
const STATELESS: &str = "2026-07-28";
/// How many resources one request may watch.
const WATCHES_MAX: usize = 64;

/// What is left to do for a request that is allowed.
#[derive(Clone, Debug)]
pub(crate) enum Plan {
    /// Nothing that needs more than a valid caller.
    Connect,
    /// Say what the edge is, and what its services tell this caller of themselves.
    Introduce {
        instructions: String,
        /// Whether a tool of this caller is shown with a page (MCP Apps).
        pages: bool,
    },
    /// Show these tools.
    ListTools(Arc<Vec<Arc<ToolItem>>>),
    /// Show these resources, and then what services list of some.
    ListResources(Arc<Vec<Arc<ResourceItem>>>, Arc<Listed>),
    /// Call this tool.
    CallTool(Arc<ToolItem>, Arc<Call>),
    /// Tell the model what is wrong with its arguments for this tool.
    WrongArguments(Arc<ToolItem>, String),
    /// Say that the arguments for this tool could not be transformed.
    NotTransformed(Arc<ToolItem>),
    /// Read this resource.
    ReadResource(Arc<ResourceItem>, Arc<Call>),
    /// Show these prompts.
    ListPrompts(Arc<Vec<Arc<PromptItem>>>),
    /// Get this prompt.
    GetPrompt(Arc<PromptItem>, Arc<Call>),
    /// Complete an argument.
    Complete(Arc<CompletionItem>, Arc<Call>),
    /// Tell of changes of these resources, by their URIs.
    Watch(Arc<Vec<Watch>>),
}

/// What is asked of services for one page of a list of resources.
#[derive(Debug, Default)]
pub(crate) struct Listed {
    /// One after the other, until the page is full.
    pub(crate) lists: Vec<(Arc<ListItem>, Arc<Call>)>,
    /// Where the list goes on after them.
    pub(crate) next: Option<Cursor>,
}

/// A resource whose changes the caller may be told of.
#[derive(Clone, Debug)]
pub(crate) struct Watch {
    pub(crate) uri: String,
    pub(crate) item: Arc<WatchItem>,
    pub(crate) call: Arc<Call>,
}

impl Plan {
    /// The tool that is called.
    pub(crate) fn tool(&self) -> Option<&ToolItem> {
        match self {
            Self::CallTool(tool, _)
            | Self::WrongArguments(tool, _)
            | Self::NotTransformed(tool) => Some(tool),
            _ => None,
        }
    }

    /// The operation that was decided on, of those that reach a tool service.
    pub(crate) fn operation(&self) -> Option<&Arc<auth::Operation>> {
        match self {
            Self::CallTool(_, call)
            | Self::ReadResource(_, call)
            | Self::GetPrompt(_, call)
            | Self::Complete(_, call) => Some(&call.operation),
            _ => None,
        }
    }
}

/// A call that is allowed: the message as it was decided on, and the token for it.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) message: EncodedMessage,
    /// Absent where the decision read the arguments and the message is not whole yet: the token names the digest of the
    /// message that is sent, so each round of a call that asks its client gets one of its own.
    pub(crate) token: Option<Arc<SecretString>>,
    /// In which it was allowed.
    pub(crate) epoch: u64,
    /// What was asked, to ask it again when the call goes on later.
    pub(crate) operation: Arc<auth::Operation>,
}

/// Asks auth about what `message` asks for. What is hidden from the caller is planned as if it were not there.
pub(super) async fn make(
    gate: &Gate,
    context: &CallContext,
    endpoint: &Endpoint,
    token: &SecretString,
    message: &Message,
) -> Result<(Plan, Grant), Refusal> {
    let catalog = gate.catalogs.load();
    let resource = endpoint.resource();
    let asking = Asking {
        gate,
        context,
        token,
        resource: &resource,
        catalog: &catalog,
        endpoint: endpoint.namespace.as_deref(),
    };
    match asking.plan(message).await {
        Err(refusal @ Refusal::Denied { is_hidden: true, .. }) => {
            refusal.record(&context.request_id);
            tracing::Span::current().record("error.type", refusal.word());
            asking.connect().await
        }
        planned => planned,
    }
}

impl Asking<'_> {
    async fn plan(&self, message: &Message) -> Result<(Plan, Grant), Refusal> {
        let (asking, catalog) = (self, self.catalog);
        let text = |name: &str| message.params.get(name).and_then(Value::as_str);
        match message.method.as_str() {
            "tools/list" => asking.list_tools(catalog, &message.params).await,
            "resources/list" | "resources/templates/list" => {
                asking
                    .list_resources(catalog, message.method == "resources/list", &message.params)
                    .await
            }
            "initialize" | "server/discover" => asking.introduce(catalog).await,
            "prompts/list" => asking.list_prompts(catalog, &message.params).await,
            "tools/call" => match text("name") {
                None => asking.refuse("name must be a string").await,
                Some(name) => {
                    match catalog
                        .tool(name)
                        .filter(|tool| asking.serves(ItemKind::Tool, &tool.item))
                    {
                        Some(tool) => asking.call_tool(tool, &message.params).await,
                        // Whoever is not known must not learn what there is and what not.
                        None => asking.connect().await,
                    }
                }
            },
            // Each is of its own revisions; the handler says so where it is not.
            "resources/subscribe"
                if message.revision().is_none_or(|revision| revision < STATELESS) =>
            {
                match text("uri") {
                    None => asking.refuse("uri must be a string").await,
                    Some(uri) => asking.watch(catalog, &[uri]).await,
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
                asking.watch(catalog, &uris).await
            }
            "resources/read" => match text("uri") {
                None => asking.refuse("uri must be a string").await,
                Some(uri) => match catalog
                    .resource(uri)
                    .filter(|(resource, _)| asking.serves(ItemKind::Resource, &resource.item))
                {
                    Some((resource, values)) => asking.read_resource(resource, values).await,
                    None => asking.connect().await,
                },
            },
            "prompts/get" => match text("name") {
                None => asking.refuse("name must be a string").await,
                Some(name) => {
                    match catalog
                        .prompt(name)
                        .filter(|prompt| asking.serves(ItemKind::Prompt, &prompt.item))
                    {
                        Some(prompt) => asking.get_prompt(prompt, &message.params).await,
                        None => asking.connect().await,
                    }
                }
            },
            "completion/complete" => match completion(asking, &message.params) {
                Some(completion) => asking.complete(completion, &message.params).await,
                None => asking.connect().await,
            },
            _ => asking.connect().await,
        }
    }
}

/// What completes the arguments of the prompt or resource that a request refers to.
fn completion<'a>(asking: &Asking<'a>, params: &Value) -> Option<&'a Arc<CompletionItem>> {
    let (catalog, reference) = (asking.catalog, params.get("ref")?);
    let (kind, item) = match reference["type"].as_str()? {
        "ref/prompt" => (ItemKind::Prompt, &catalog.prompt(reference["name"].as_str()?)?.item),
        "ref/resource" => {
            (ItemKind::Resource, &catalog.resource_of_template(reference["uri"].as_str()?)?.item)
        }
        _ => return None,
    };
    catalog.completion(item).filter(|_| asking.serves(kind, item))
}

struct Asking<'a> {
    gate: &'a Gate,
    context: &'a CallContext,
    token: &'a SecretString,
    resource: &'a str,
    catalog: &'a Catalog,
    /// The endpoint that was addressed, if it is not the one for all.
    endpoint: Option<&'a str>,
}

impl Asking<'_> {
    /// Whether the endpoint that was addressed serves this item.
    fn serves(&self, kind: ItemKind, item: &auth::CatalogItem) -> bool {
        self.endpoint.is_none_or(|endpoint| self.catalog.serves(endpoint, kind, item))
    }

    async fn decide(&self, operation: auth::Operation) -> Result<Allowed, Refusal> {
        self.gate.authorizer.authorize(self.context, self.token, self.resource, operation).await
    }

    async fn connect(&self) -> Result<(Plan, Grant), Refusal> {
        let allowed = self.gate.authorizer.connect(self.context, self.token, self.resource).await?;
        Ok((Plan::Connect, allowed.grant()))
    }

    /// Refuses parameters, once the caller is known.
    async fn refuse(&self, what: &str) -> Result<(Plan, Grant), Refusal> {
        self.connect().await?;
        Err(Refusal::Params(what.to_owned()))
    }

    /// All of these resources, or none: a client that is told of some would take the others for unchanged.
    async fn watch(&self, catalog: &Catalog, uris: &[&str]) -> Result<(Plan, Grant), Refusal> {
        if uris.len() > WATCHES_MAX {
            return self.refuse(&format!("at most {WATCHES_MAX} resources can be watched")).await;
        }
        let mut watches: Vec<Watch> = Vec::new();
        for uri in uris {
            if uri.len() > WATCHED_URI_BYTES_MAX {
                return self
                    .refuse(&format!("{} is longer than {WATCHED_URI_BYTES_MAX} bytes", cut(uri)))
                    .await;
            }
            if watches.iter().any(|watch| watch.uri == **uri) {
                continue;
            }
            let found = catalog
                .resource(uri)
                .filter(|(resource, _)| self.serves(ItemKind::Resource, &resource.item));
            let watched = found.and_then(|(resource, variables)| {
                Some((resource, catalog.watch(&resource.item)?, variables))
            });
            let Some((resource, item, variables)) = watched else {
                return self.refuse(&format!("{} cannot be watched", cut(uri))).await;
            };
            // Decided on as reading it is.
            let mut read = DynamicMessage::new(resource.target.input());
            for (name, value) in &variables {
                read.set_field_by_name(name, Field::String(value.clone()));
            }
            let operation = operation_on(Kind::WatchResource, &item.item, &resource.target, &read);
            let allowed = self.allow(operation, &item.target, item.request(variables)).await;
            let (call, _) = match allowed {
                Err(Refusal::Denied { is_hidden: true, .. }) => {
                    return self.refuse(&format!("{} cannot be watched", cut(uri))).await;
                }
                allowed => allowed?,
            };
            watches.push(Watch {
                uri: (*uri).to_owned(),
                item: Arc::clone(item),
                call: Arc::new(call),
            });
        }
        let (_, grant) = self.connect().await?;
        Ok((Plan::Watch(Arc::new(watches)), grant))
    }

    async fn complete(
        &self,
        completion: &Arc<CompletionItem>,
        params: &Value,
    ) -> Result<(Plan, Grant), Refusal> {
        let operation = operation(Kind::Complete, &completion.item);
        let Some(message) = completion.request(params) else {
            // What is wrong is told only to whom may complete.
            self.decide(operation).await?;
            return Err(Refusal::Params(
                "argument must have a name and a value, both strings".to_owned(),
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

    /// Asks whether exactly this message may be sent.
    async fn authorize(
        &self,
        kind: Kind,
        item: &auth::CatalogItem,
        target: &Target,
        mut message: DynamicMessage,
    ) -> Result<(Arc<Call>, Grant), Refusal> {
        target.clear_responses(&mut message);
        // Decided on as it will be sent, so that no other spelling of a field can slip past a policy.
        let operation = operation_on(kind, item, target, &message);
        let (call, grant) = self.allow(operation, target, message).await?;
        Ok((Arc::new(call), grant))
    }

    /// Asks whether the operation is allowed, with a token that opens `target` for `message`.
    async fn allow(
        &self,
        operation: auth::Operation,
        target: &Target,
        message: DynamicMessage,
    ) -> Result<(Call, Grant), Refusal> {
        let message = EncodedMessage::new(message);
        let takes_responses = target.takes_responses();
        let operation = if takes_responses { operation } else { message.named_in(operation) };
        let allowed = self.decide(operation.clone()).await?;
        let token = if takes_responses { allowed.token().ok() } else { Some(allowed.token()?) };
        let call = Call { message, token, epoch: allowed.epoch, operation: operation.into() };
        Ok((call, allowed.grant()))
    }
}

/// Reading the resource of this URI, as auth decides on it. None: it is none of this template's.
pub(crate) fn reading(resource: &ResourceItem, uri: &str) -> Option<auth::Operation> {
    let mut message = DynamicMessage::new(resource.target.input());
    for (name, value) in resource.uri.matches(uri)? {
        message.set_field_by_name(&name, Field::String(value));
    }
    Some(operation_on(Kind::ReadResource, &resource.item, &resource.target, &message))
}

/// An operation whose arguments are not known, or do not matter.
fn operation(kind: Kind, item: &auth::CatalogItem) -> auth::Operation {
    auth::Operation { kind: kind.into(), item: Some(item.clone()), ..Default::default() }
}

/// An operation with the arguments that are in `message`.
fn operation_on(
    kind: Kind,
    item: &auth::CatalogItem,
    target: &Target,
    message: &DynamicMessage,
) -> auth::Operation {
    let text = |json: Value| json.to_string().into_bytes().into();
    auth::Operation {
        arguments_json: Some(text(target.policy_form.json(message))),
        recorded_arguments_json: target.policy_form.recorded(message).map(text),
        ..operation(kind, item)
    }
}
