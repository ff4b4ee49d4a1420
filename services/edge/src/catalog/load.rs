//! Reads a service's contract into catalog items.

use std::{sync::Arc, time::Duration};

use drawbridge_proto::{auth::v1 as auth, mcp::v1 as mcp};
use drawbridge_sdk::{
    BalancedChannel,
    contract::{Introduction, Offer, OfferKind, instructions, offers},
    reflection::Contract,
};
use prost_reflect::{FieldDescriptor, Kind, MethodDescriptor};
use sha2::{Digest as _, Sha256};

use super::{
    CompletionItem, Instructions, ListItem, Namespace, ServiceCatalog, WatchItem,
    given::SchemaError, is_tool_name, meta::MetaError,
};
use crate::{
    grpc::{comments::Comments, schema::TooLarge, upstream::Target},
    traffic::cache::{Rule, RuleError, TagError},
};

mod prompt;
mod resource;
mod tool;

/// How long one watch lasts before its caller is authorized anew.
const WATCH_TIMEOUT: Duration = Duration::from_secs(300);

/// How long all URI templates of one service may be together, in bytes: each is compared with those
/// of the others.
const URI_TEMPLATES_BYTES_MAX: usize = 16 * 1024;
/// How long what a service tells models of itself may be, in bytes.
const INSTRUCTIONS_BYTES_MAX: usize = 2048;

/// Why an annotated method cannot be offered. The rest of its service is.
#[derive(Debug, thiserror::Error)]
enum ItemError {
    #[error(
        "the name {0:?} is not one that every client takes: it must match ^[a-zA-Z0-9_-]{{1,64}}$"
    )]
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
    #[error("the service's URI templates have more than {URI_TEMPLATES_BYTES_MAX} bytes together")]
    UriTemplates,
    #[error("its `meta` or labels cannot be offered")]
    Meta(#[from] MetaError),
    #[error("it pages nothing: its response has no repeated field of the type ResourceLink")]
    ResourceLinks,
    #[error("the URI template's variable {0:?} is no string field of the request")]
    Variable(String),
}

/// Reads what a service offers in `namespace`. What cannot be offered is left out and logged with
/// its RPC.
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
        lists: Vec::new(),
        templates_bytes: 0,
    };
    reader.instructions(contract);
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
    /// Methods that page resources, until it is known of which template.
    lists: Vec<(Target, String)>,
    /// Of the URI templates so far.
    templates_bytes: usize,
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
            OfferKind::List(options) => {
                if method.is_server_streaming()
                    || !method.output().fields().any(|field| is_links(&field))
                {
                    return Err(ItemError::ResourceLinks);
                }
                self.lists.push((self.target(&method, None)?, options.item));
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
        let items: Vec<_> = prompts
            .chain(self.catalog.resources.iter().map(|resource| &resource.item))
            .cloned()
            .collect();
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
                let completion =
                    CompletionItem { item, target: target.clone(), argument: argument.clone() };
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
                let item =
                    auth::CatalogItem { rpc: target.rpc().to_owned(), ..resource.item.clone() };
                self.catalog.watches.push(Arc::new(WatchItem { item, target: target.clone() }));
            }
        }
        for (target, name) in self.lists {
            let templates = self.catalog.resources.iter().filter(|resource| resource.is_template());
            let Some(resource) = templates.into_iter().find(|resource| resource.item.name == name)
            else {
                tracing::error!(
                    rpc = target.rpc(),
                    name,
                    "a method lists resources of a template that its service does not offer"
                );
                continue;
            };
            let item = auth::CatalogItem { rpc: target.rpc().to_owned(), ..resource.item.clone() };
            let resource = Arc::clone(resource);
            self.catalog.lists.push(Arc::new(ListItem { item, target, resource }));
        }
        self.catalog.lists.sort_by(|one, other| one.item.name.cmp(&other.item.name));
        self.catalog
    }

    /// What the gRPC services tell models of themselves.
    fn instructions(&mut self, contract: &Contract) {
        let mut told = instructions(&contract.pool, &contract.services)
            .filter(|one| one.namespace == self.namespace.as_str());
        let Some(Introduction { service, mut text, .. }) = told.next() else { return };
        for more in told {
            text.push_str("\n\n");
            text.push_str(&more.text);
        }
        if text.len() > INSTRUCTIONS_BYTES_MAX {
            tracing::error!(
                service,
                bytes_max = INSTRUCTIONS_BYTES_MAX,
                "the service's instructions are too long; they are left out"
            );
            return;
        }
        let item = auth::CatalogItem {
            name: self.namespace.as_str().to_owned(),
            service: self.namespace.as_str().to_owned(),
            rpc: service,
            scopes: Vec::new(),
        };
        self.catalog.instructions = Some(Arc::new(Instructions { item, text }));
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
        let told = |error| tracing::error!(rpc, %error, "results cannot be kept; the method is called each time");
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
        let timeout =
            timeout.and_then(|timeout| timeout.try_into().ok()).unwrap_or(self.default_timeout);
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

/// Clients withhold every tool of a server if one name is not theirs to take.
fn checked(name: String) -> Result<String, ItemError> {
    if is_tool_name(&name) { Ok(name) } else { Err(ItemError::Name(name)) }
}

fn is_links(field: &FieldDescriptor) -> bool {
    field.is_list()
        && matches!(field.kind(), Kind::Message(kind) if kind.full_name() == "drawbridge.mcp.v1.ResourceLink")
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
        let catalog =
            read_contract(&"code".parse().unwrap(), &contract, &channel, Duration::from_secs(30));
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
