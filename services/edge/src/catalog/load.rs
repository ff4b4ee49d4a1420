//! Reads a service's contract into catalog items.

use std::{sync::Arc, time::Duration};

use drawbridge_config::{Name, Namespace};
use drawbridge_contract::{
    Contract, ExposedMethod, Exposure, ServiceInstructions, exposed_methods, instructions,
};
use drawbridge_proto::{auth::v1 as auth, mcp::v1 as mcp};
use drawbridge_runtime::length_prefixed;
use drawbridge_transport::BalancedChannel;
use prost_reflect::{FieldDescriptor, Kind, MethodDescriptor};
use sha2::{Digest as _, Sha256};

use super::{
    CompletionItem, Instructions, ListItem, ServiceCatalog, WatchItem, meta::MetaError,
    schema_text::SchemaError,
};
use crate::{
    grpc::{comments::Comments, schema::TooLarge, upstream::RpcTarget},
    traffic::cache::{CacheRule, CacheRuleError, CacheTagError},
};

mod prompt;
mod resource;
mod tool;

/// How long one watch lasts before its caller is authorized again.
const WATCH_TIMEOUT: Duration = Duration::from_secs(300);

/// The total length of the URI templates of one service, in bytes. Each is compared with those of
/// all other services.
const URI_TEMPLATES_BYTES_MAX: usize = 16 * 1024;
/// The longest instructions of a service, in bytes.
const INSTRUCTIONS_BYTES_MAX: usize = 2048;

/// Why an annotated method cannot be offered. The other methods of its service are.
#[derive(Debug, thiserror::Error)]
enum ItemError {
    #[error(
        "invalid name {0:?}: not every client accepts it \
         (expected a match of ^[a-zA-Z0-9_-]{{1,64}}$)"
    )]
    ClaimedName(String),
    #[error("MCP does not support client streaming")]
    ClientStreaming,
    #[error("an event stream must have exactly one result field, not {0}")]
    Events(usize),
    #[error("`{0}` is not a valid JSON Schema object")]
    Schema(&'static str, #[source] SchemaError),
    #[error("`{0}` cannot be derived from the message")]
    Derived(&'static str, #[source] TooLarge),
    #[error("the request of a completion must have a field of type CompletionArgument")]
    CompletionArgument,
    #[error("a watch must be a server-streaming method with a single request")]
    Watch,
    #[error("invalid `invalidates`")]
    Invalidates(#[from] CacheTagError),
    #[error("invalid URI template: {0}")]
    UriTemplate(#[from] super::uri::UriTemplateError),
    #[error("the URI templates of the service exceed {URI_TEMPLATES_BYTES_MAX} bytes in total")]
    UriTemplates,
    #[error("invalid `meta` or labels")]
    Meta(#[from] MetaError),
    #[error("the response of a list must have a repeated field of type ResourceLink")]
    ResourceLinks,
    #[error("the variable {0:?} of the URI template is not a string field of the request")]
    Variable(String),
}

/// Reads the items that a service offers in `namespace`. Invalid items are left out and logged with
/// their RPC.
pub(crate) fn read_contract(
    namespace: &Namespace,
    contract: &Contract,
    channel: &BalancedChannel,
    default_timeout: Duration,
) -> ServiceCatalog {
    let mut reader = ContractReader {
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
    for exposed in exposed_methods(&contract.pool, &contract.services) {
        if exposed.namespace != namespace.as_str() {
            tracing::error!(
                rpc = exposed.rpc(),
                namespace = exposed.namespace,
                configured = namespace.as_str(),
                "the namespace of the service differs from the configured one; it is left out"
            );
            continue;
        }
        let rpc = exposed.rpc();
        if let Err(error) = reader.read(exposed) {
            let error = &error as &dyn std::error::Error;
            tracing::error!(rpc, error, "an invalid method is left out of the catalog");
        }
    }
    reader.finish()
}

/// Identifies a contract, independently of the order of its files.
pub(crate) fn contract_hash(contract: &Contract) -> [u8; 32] {
    let mut files: Vec<_> = contract.pool.files().collect();
    files.sort_unstable_by(|one, other| one.name().cmp(other.name()));
    let mut hasher = Sha256::new();
    let mut add = |part: &[u8]| length_prefixed(part, |bytes| hasher.update(bytes));
    files.iter().for_each(|file| add(&file.encode_to_vec()));
    contract.services.iter().for_each(|service| add(service.as_bytes()));
    hasher.finalize().into()
}

struct ContractReader<'a> {
    namespace: &'a Namespace,
    hash: [u8; 32],
    channel: &'a BalancedChannel,
    default_timeout: Duration,
    comments: Comments,
    catalog: ServiceCatalog,
    /// Methods that complete arguments, with the names of their items, until all items are read.
    completions: Vec<(RpcTarget, FieldDescriptor, Vec<String>)>,
    /// Methods that stream changes, with the names of their resources.
    watches: Vec<(RpcTarget, Vec<String>)>,
    /// Methods that list resources, with the names of their templates.
    lists: Vec<(RpcTarget, String)>,
    /// The total length of the URI templates so far.
    templates_bytes: usize,
}

impl ContractReader<'_> {
    fn read(&mut self, exposed: ExposedMethod) -> Result<(), ItemError> {
        let ExposedMethod { name, method, kind, .. } = exposed;
        match kind {
            Exposure::Tool(options) => {
                let tool = self.tool(checked_name(name)?, &method, options)?;
                self.catalog.tools.push(Arc::new(tool));
            }
            Exposure::Resource(options) => {
                let resource = self.resource(checked_name(name)?, &method, options)?;
                self.catalog.resources.push(Arc::new(resource));
            }
            Exposure::Prompt(options) => {
                let prompt = self.prompt(checked_name(name)?, &method, options)?;
                self.catalog.prompts.push(Arc::new(prompt));
            }
            Exposure::Completion(options) => {
                let target = self.target(&method, None)?;
                let argument = method.input().fields().find(is_completion_argument);
                let argument = argument.ok_or(ItemError::CompletionArgument)?;
                self.completions.push((target, argument, options.items));
            }
            Exposure::List(options) => {
                if method.is_server_streaming()
                    || !method.output().fields().any(|field| is_resource_links(&field))
                {
                    return Err(ItemError::ResourceLinks);
                }
                self.lists.push((self.target(&method, None)?, options.item));
            }
            Exposure::Watch(options) => {
                if !method.is_server_streaming() || method.is_client_streaming() {
                    return Err(ItemError::Watch);
                }
                let target = RpcTarget::watch(self.channel.clone(), &method, WATCH_TIMEOUT);
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
                        "a method completes an item that its service does not offer"
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
                        "a method watches a resource that its service does not offer"
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

    /// Joins the instructions of the gRPC services.
    fn instructions(&mut self, contract: &Contract) {
        let mut texts = instructions(&contract.pool, &contract.services)
            .filter(|one| one.namespace == self.namespace.as_str());
        let Some(ServiceInstructions { service, mut text, .. }) = texts.next() else { return };
        for more in texts {
            text.push_str("\n\n");
            text.push_str(&more.text);
        }
        if text.len() > INSTRUCTIONS_BYTES_MAX {
            tracing::error!(
                service,
                bytes_max = INSTRUCTIONS_BYTES_MAX,
                "the instructions of the service are too long; they are left out"
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

    /// The cache rule of a method. With an invalid policy, or on a method that writes, results are
    /// not cached.
    fn cache_rule(
        &self,
        name: &str,
        target: &RpcTarget,
        policy: Option<&mcp::CachePolicy>,
        is_write: bool,
    ) -> Option<Arc<CacheRule>> {
        let policy = policy?;
        let rule = match is_write {
            true => Err(CacheRuleError::Writes),
            false => CacheRule::new(name, self.namespace.as_str(), self.hash, policy),
        };
        let rpc = target.rpc();
        let log = |error| {
            tracing::error!(rpc, %error, "invalid cache policy; results are not cached");
        };
        rule.map_err(log).ok().map(Arc::new)
    }

    fn target(
        &self,
        method: &MethodDescriptor,
        timeout: Option<prost_types::Duration>,
    ) -> Result<RpcTarget, ItemError> {
        if method.is_client_streaming() {
            return Err(ItemError::ClientStreaming);
        }
        let timeout =
            timeout.and_then(|timeout| timeout.try_into().ok()).unwrap_or(self.default_timeout);
        RpcTarget::new(self.channel.clone(), method, timeout).map_err(ItemError::Events)
    }

    fn item(&self, name: String, target: &RpcTarget, scopes: Vec<String>) -> auth::CatalogItem {
        auth::CatalogItem {
            name,
            service: self.namespace.as_str().to_owned(),
            rpc: target.rpc().to_owned(),
            scopes,
        }
    }

    fn description(&mut self, method: &MethodDescriptor, option: String) -> Option<String> {
        let description = Some(option).filter(|text| !text.is_empty());
        description.or_else(|| self.comments.of(&method.parent_file(), method.path()))
    }
}

/// Rejects an invalid name: some clients drop all tools of a server for one.
fn checked_name(name: String) -> Result<String, ItemError> {
    // Some clients drop all tools of a server for one invalid name.
    if Name::is_valid(&name) { Ok(name) } else { Err(ItemError::ClaimedName(name)) }
}

fn is_resource_links(field: &FieldDescriptor) -> bool {
    field.is_list() && is_message(field, "drawbridge.mcp.v1.ResourceLink")
}

fn is_completion_argument(field: &FieldDescriptor) -> bool {
    is_message(field, "drawbridge.mcp.v1.CompletionArgument")
}

fn is_message(field: &FieldDescriptor, full_name: &str) -> bool {
    matches!(field.kind(), Kind::Message(kind) if kind.full_name() == full_name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_code_service_offers_its_tools_and_its_resource() {
        let contract = Contract {
            pool: drawbridge_contract::built_in().unwrap(),
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
