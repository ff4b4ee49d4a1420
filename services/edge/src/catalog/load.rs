//! Reads a service's contract into catalog items.

use std::{sync::Arc, time::Duration};

use drawbridge_proto::{
    auth::v1 as auth,
    mcp::v1::{self as mcp, ToolHints},
};
use drawbridge_sdk::{
    BalancedChannel,
    contract::{Offer, OfferKind, offers},
    reflection::Contract,
};
use jsonschema::Validator;
use prost_reflect::{FieldDescriptor, Kind, MethodDescriptor};
use rmcp::model::{JsonObject, Prompt, PromptArgument, Resource, ResourceTemplate, Tool, ToolAnnotations};
use sha2::{Digest as _, Sha256};

use super::{
    CompletionItem, Namespace, PromptItem, ResourceItem, ServiceCatalog, ShownResource, ToolItem, WatchItem,
    comments::Comments,
    given::{SchemaError, compile, given_schema},
    is_tool_name,
    schema::{Purpose, TooLarge, object_schema},
    uri::UriTemplate,
};
use crate::{
    cache::{Rule, RuleError, Tag, TagError},
    mcp::is_rich,
    upstream::Target,
};

/// How long one watch lasts before its caller is authorized anew.
const WATCH_TIMEOUT: Duration = Duration::from_secs(300);

/// Why an annotated method cannot be offered. The rest of its service is.
#[derive(Debug, thiserror::Error)]
enum ItemError {
    #[error("the name {0:?} is not one that every client takes: it must match ^[a-zA-Z0-9_-]{{1,64}}$")]
    Name(String),
    #[error("client streaming has no form in MCP")]
    ClientStreaming,
    #[error("a stream of events must have one field for the result, and this one has {0}")]
    Events(usize),
    #[error("{0} is not a JSON Schema of an object")]
    Schema(&'static str, #[source] SchemaError),
    #[error("{0} cannot be derived")]
    Derived(&'static str, #[source] TooLarge),
    #[error("it completes nothing: its request has no field of the type CompletionArgument")]
    CompletionArgument,
    #[error("it streams nothing: a watch answers one request with a stream")]
    Watch,
    #[error("`invalidates` cannot be told to other replicas")]
    Invalidates(#[from] TagError),
    #[error("the URI template is not one: {0}")]
    UriTemplate(#[from] super::uri::UriTemplateError),
    #[error("the URI template's variable {0:?} is no string field of the request")]
    Variable(String),
}

/// Reads what a service offers in `namespace`. What cannot be offered is left out and logged with its RPC.
pub(crate) fn read_contract(
    namespace: &Namespace,
    contract: &Contract,
    channel: &BalancedChannel,
    default_timeout: Duration,
) -> ServiceCatalog {
    let mut reader = Reader {
        namespace,
        hash: contract_hash(contract),
        channel,
        default_timeout,
        comments: Comments::default(),
        catalog: ServiceCatalog::default(),
        completions: Vec::new(),
        watches: Vec::new(),
    };
    for offer in offers(&contract.pool, &contract.services) {
        if offer.namespace != namespace.as_str() {
            tracing::error!(
                rpc = offer.rpc(),
                namespace = offer.namespace,
                configured = namespace.as_str(),
                "the service's namespace is not the configured one; it is left out"
            );
            continue;
        }
        let rpc = offer.rpc();
        if let Err(error) = reader.read(offer) {
            let error = &error as &dyn std::error::Error;
            tracing::error!(rpc, error, "a method cannot be offered; it is left out");
        }
    }
    reader.finish()
}

/// Tells contracts apart, in whatever order their files came.
pub(crate) fn contract_hash(contract: &Contract) -> [u8; 32] {
    let mut files: Vec<_> = contract.pool.files().collect();
    files.sort_unstable_by(|one, other| one.name().cmp(other.name()));
    let mut hasher = Sha256::new();
    let mut add = |part: &[u8]| {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part);
    };
    files.iter().for_each(|file| add(&file.encode_to_vec()));
    contract.services.iter().for_each(|service| add(service.as_bytes()));
    hasher.finalize().into()
}

struct Reader<'a> {
    namespace: &'a Namespace,
    hash: [u8; 32],
    channel: &'a BalancedChannel,
    default_timeout: Duration,
    comments: Comments,
    catalog: ServiceCatalog,
    /// Methods that complete arguments, until it is known of what.
    completions: Vec<(Target, FieldDescriptor, Vec<String>)>,
    /// Methods that stream changes, until it is known of what.
    watches: Vec<(Target, Vec<String>)>,
}

impl Reader<'_> {
    fn read(&mut self, offer: Offer) -> Result<(), ItemError> {
        let Offer { name, method, kind, .. } = offer;
        match kind {
            OfferKind::Tool(options) => {
                let tool = self.tool(checked(name)?, &method, options)?;
                self.catalog.tools.push(Arc::new(tool));
            }
            OfferKind::Resource(options) => {
                let resource = self.resource(checked(name)?, &method, options)?;
                self.catalog.resources.push(Arc::new(resource));
            }
            OfferKind::Prompt(options) => {
                let prompt = self.prompt(checked(name)?, &method, options)?;
                self.catalog.prompts.push(Arc::new(prompt));
            }
            OfferKind::Completion(options) => {
                let target = self.target(&method, None)?;
                let argument = method.input().fields().find(is_completion_argument);
                let argument = argument.ok_or(ItemError::CompletionArgument)?;
                self.completions.push((target, argument, options.items));
            }
            OfferKind::Watch(options) => {
                if !method.is_server_streaming() || method.is_client_streaming() {
                    return Err(ItemError::Watch);
                }
                let target = Target::watch(self.channel.clone(), &method, WATCH_TIMEOUT);
                self.watches.push((target, options.items));
            }
        }
        Ok(())
    }

    fn finish(mut self) -> ServiceCatalog {
        self.catalog.tools.sort_by(|one, other| one.item.name.cmp(&other.item.name));
        let prompts = self.catalog.prompts.iter().map(|prompt| &prompt.item);
        let items: Vec<_> =
            prompts.chain(self.catalog.resources.iter().map(|resource| &resource.item)).cloned().collect();
        for (target, argument, names) in self.completions {
            for name in names {
                let Some(item) = items.iter().find(|item| item.name == name) else {
                    tracing::error!(
                        rpc = target.rpc(),
                        name,
                        "a method completes what its service does not offer"
                    );
                    continue;
                };
                let item = auth::CatalogItem { rpc: target.rpc().to_owned(), ..item.clone() };
                let completion = CompletionItem { item, target: target.clone(), argument: argument.clone() };
                self.catalog.completions.push(Arc::new(completion));
            }
        }
        for (target, names) in self.watches {
            for name in names {
                let Some(resource) =
                    self.catalog.resources.iter().find(|resource| resource.item.name == name)
                else {
                    tracing::error!(
                        rpc = target.rpc(),
                        name,
                        "a method watches what its service does not offer"
                    );
                    continue;
                };
                let item = auth::CatalogItem { rpc: target.rpc().to_owned(), ..resource.item.clone() };
                self.catalog.watches.push(Arc::new(WatchItem { item, target: target.clone() }));
            }
        }
        self.catalog
    }

    fn tool(
        &mut self,
        name: String,
        method: &MethodDescriptor,
        options: mcp::ToolOptions,
    ) -> Result<ToolItem, ItemError> {
        let mut target = self.target(method, options.timeout)?;
        let hints = options.hints.unwrap_or_default();
        target.idempotent = hints.read_only() || hints.idempotent();
        let writes = !(hints.read_only() && hints.idempotent() && options.invalidates.is_empty());
        target.cache = self.cache(&name, &target, options.cache.as_ref(), writes);
        target.invalidates = Tag::all(self.namespace.as_str(), &options.invalidates)?;
        let (input, arguments) = self.input(method, &options.input_schema)?;
        let output = self.output(&target, &options.output_schema)?;
        let description = self.description(method, options.description);
        let mut tool = Tool::new_with_raw(name.clone(), description.map(Into::into), Arc::new(input))
            .with_annotations(annotations(hints));
        tool.output_schema = output.map(Arc::new);
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
            if is_rich(&target.result()) {
                return Ok(None);
            }
            return object_schema(&target.result(), Purpose::Result, &mut self.comments)
                .map(Some)
                .map_err(|error| ItemError::Derived(WHICH, error));
        };
        // Clients compile it.
        compile(&schema).map_err(wrong)?;
        Ok(Some(schema))
    }

    fn resource(
        &mut self,
        name: String,
        method: &MethodDescriptor,
        options: mcp::ResourceOptions,
    ) -> Result<ResourceItem, ItemError> {
        let mut target = self.target(method, None)?;
        target.idempotent = true;
        target.cache = self.cache(&name, &target, options.cache.as_ref(), false);
        let uri = UriTemplate::parse(&options.uri_template)?;
        for variable in uri.variables() {
            let field = method.input().get_field_by_name(variable);
            if !field.is_some_and(|field| field.kind() == Kind::String && !field.is_list()) {
                return Err(ItemError::Variable(variable.to_owned()));
            }
        }
        let mime_type = Some(options.mime_type).filter(|mime_type| !mime_type.is_empty());
        let title = Some(options.title).filter(|title| !title.is_empty());
        let description = self.description(method, options.description);
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
        let item = self.item(name, &target, options.scopes);
        Ok(ResourceItem { shown, uri, item, target, mime_type })
    }

    fn prompt(
        &mut self,
        name: String,
        method: &MethodDescriptor,
        options: mcp::PromptOptions,
    ) -> Result<PromptItem, ItemError> {
        let mut target = self.target(method, None)?;
        target.idempotent = true;
        let input = method.input();
        let arguments = input.fields().filter(|field| field.kind() == Kind::String && !field.is_list());
        let arguments = arguments.map(|field| {
            // A plain field is always said; one that is `optional` need not be.
            let mut argument = PromptArgument::new(field.name()).with_required(!field.supports_presence());
            argument.description = self.comments.of_field(&field);
            argument
        });
        let arguments: Vec<_> = arguments.collect();
        let description = self.description(method, options.description);
        let mut prompt = Prompt::new(name.clone(), description, Some(arguments));
        prompt.title = Some(options.title).filter(|title| !title.is_empty());
        Ok(PromptItem { prompt, item: self.item(name, &target, options.scopes), target })
    }

    /// How results are kept. What asks for it but may not have it is called each time.
    fn cache(
        &self,
        name: &str,
        target: &Target,
        policy: Option<&mcp::CachePolicy>,
        writes: bool,
    ) -> Option<Arc<Rule>> {
        let policy = policy?;
        let rule = match writes {
            true => Err(RuleError::Writes),
            false => Rule::new(name, self.namespace.as_str(), self.hash, policy),
        };
        let rpc = target.rpc();
        let told =
            |error| tracing::error!(rpc, %error, "results cannot be kept; the method is called each time");
        rule.map_err(told).ok().map(Arc::new)
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

    fn description(&mut self, method: &MethodDescriptor, given: String) -> Option<String> {
        let given = Some(given).filter(|given| !given.is_empty());
        given.or_else(|| self.comments.of(&method.parent_file(), method.path()))
    }
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

/// Clients withhold every tool of a server if one name is not theirs to take.
fn checked(name: String) -> Result<String, ItemError> {
    if is_tool_name(&name) { Ok(name) } else { Err(ItemError::Name(name)) }
}

fn is_completion_argument(field: &FieldDescriptor) -> bool {
    matches!(field.kind(), Kind::Message(kind) if kind.full_name() == "drawbridge.mcp.v1.CompletionArgument")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_code_service_offers_its_tools_and_its_resource() {
        let contract = Contract {
            pool: drawbridge_sdk::reflection::built_in().unwrap(),
            services: vec!["drawbridge.code.v1.CodeService".to_owned()],
        };
        let channel = BalancedChannel::new(&["http://127.0.0.1:1".parse().unwrap()]).unwrap();
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
