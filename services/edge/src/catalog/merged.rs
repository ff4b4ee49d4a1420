//! The merged catalog of all services.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use drawbridge_config::Namespace;
use drawbridge_proto::auth::v1 as auth;
use drawbridge_runtime::length_prefixed;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::{
    CatalogLock, CompletionItem, Instructions, ItemKind, ListItem, LockEnforcer, MetaKeys,
    NameConflict, Overlay, PromptItem, ResourceItem, ServiceCatalog, ToolItem, Variables,
    WatchItem,
    claims::{HeldNames, NameResolver, held_names},
    lock_enforcer::{LockItem as _, LockViolation},
};

/// The number of the next catalog.
static CATALOGS: AtomicU64 = AtomicU64::new(0);

/// The items of all tool services. Immutable: a change makes a new catalog.
#[derive(Clone, Debug)]
pub(crate) struct Catalog {
    services: BTreeMap<Namespace, ServiceCatalog>,
    config: CatalogConfig,
    /// Differs from that of every other catalog of this process with other items.
    number: u64,
    /// Sorted by the name that clients see.
    tools: Vec<Arc<ToolItem>>,
    resources: Vec<Arc<ResourceItem>>,
    /// Sorted by name.
    prompts: Vec<Arc<PromptItem>>,
    /// By the service and name of the prompt or resource.
    completions: HashMap<(String, String), Arc<CompletionItem>>,
    /// By the service and name of the resource.
    watches: HashMap<(String, String), Arc<WatchItem>>,
    /// Sorted by service and name.
    lists: Vec<Arc<ListItem>>,
    instructions: Vec<Arc<Instructions>>,
    conflicts: Vec<NameConflict>,
    overlay_errors: Vec<OverlayError>,
    lock_violations: Vec<LockViolation>,
    revision: CatalogRevision,
    /// Whether every initial service was read once, after which services retain their names.
    is_settled: bool,
}

/// The part of the configuration that shapes the catalog.
#[derive(Clone, Debug, Default)]
pub(crate) struct CatalogConfig {
    pub(crate) overlay: Arc<Overlay>,
    /// The lock that items must match, if there is one.
    pub(crate) lock: Option<Arc<LockEnforcer>>,
    /// Of all services.
    pub(crate) namespaces: Arc<BTreeSet<Namespace>>,
    /// Whether further services are to be discovered, of which nothing is known yet.
    pub(crate) awaits_services: bool,
}

impl Default for Catalog {
    /// An empty catalog.
    fn default() -> Self {
        Self::merge(BTreeMap::new(), CatalogConfig::default(), &HeldNames::new(), false)
    }
}

impl Catalog {
    /// This catalog with the items of `namespace` added or replaced.
    pub(crate) fn with(&self, namespace: Namespace, service: ServiceCatalog) -> Self {
        let mut services = self.services.clone();
        services.insert(namespace, service);
        self.rebuild(services, self.config.clone())
    }

    /// This catalog without the items of `namespace`.
    pub(crate) fn without(&self, namespace: &Namespace) -> Self {
        let mut services = self.services.clone();
        services.remove(namespace);
        self.rebuild(services, self.config.clone())
    }

    /// This catalog with another configuration.
    pub(crate) fn with_config(&self, config: &CatalogConfig) -> Self {
        self.rebuild(self.services.clone(), config.clone())
    }

    /// This catalog, in which services retain their names from now on. Before, the order of
    /// namespaces decides, not the order of answers.
    pub(crate) fn settled(&self) -> Self {
        Self { is_settled: true, ..self.clone() }
    }

    fn rebuild(
        &self,
        services: BTreeMap<Namespace, ServiceCatalog>,
        config: CatalogConfig,
    ) -> Self {
        let held = if self.is_settled { self.held_names() } else { HeldNames::new() };
        Self::merge(services, config, &held, self.is_settled)
    }

    /// The names that services have.
    fn held_names(&self) -> HeldNames {
        let mut held = held_names(self.tools.iter());
        held.extend(held_names(self.resources.iter()));
        held.extend(held_names(self.prompts.iter()));
        held
    }

    fn merge(
        services: BTreeMap<Namespace, ServiceCatalog>,
        config: CatalogConfig,
        held: &HeldNames,
        is_settled: bool,
    ) -> Self {
        let (mut conflicts, mut overlay_errors, mut lock_violations) =
            (Vec::new(), Vec::new(), Vec::new());
        let overlay = &config.overlay;
        let mut namespaces = BTreeSet::clone(&config.namespaces);
        namespaces.extend(services.keys().cloned());
        let resolver = NameResolver { lock: config.lock.as_deref(), namespaces: &namespaces, held };
        let shown = services.values().flat_map(|service| &service.tools).filter_map(|tool| {
            overlay.apply(tool).unwrap_or_else(|error| {
                overlay_errors.push(OverlayError {
                    tool: tool.item.name.clone(),
                    problem: error.to_string(),
                });
                None
            })
        });
        let tools = resolver.resolve(shown, &mut conflicts, &mut lock_violations);
        let resources = services.values().flat_map(|service| &service.resources);
        let resources = resources.map(|resource| overlay.apply_to_resource(resource));
        let resources = resolver.resolve(resources, &mut conflicts, &mut lock_violations);
        let prompts = services.values().flat_map(|service| &service.prompts).cloned();
        let prompts = resolver.resolve(prompts, &mut conflicts, &mut lock_violations);
        let prompts: BTreeMap<_, _> =
            prompts.into_iter().map(|prompt| (prompt.item.name.clone(), prompt)).collect();
        let prompts: Vec<_> = prompts.into_values().collect();
        let completions = services.values().flat_map(|service| &service.completions);
        let completions = completions.map(|one| (key(&one.item), Arc::clone(one))).collect();
        let watches = services.values().flat_map(|service| &service.watches);
        let watches = watches.map(|one| (key(&one.item), Arc::clone(one))).collect();
        let lists = services.values().flat_map(|service| &service.lists).cloned().collect();
        let instructions = services.values().filter_map(|service| service.instructions.as_ref());
        let instructions: Vec<_> = instructions
            .filter(|one| resolver.admits(&***one, &mut lock_violations))
            .cloned()
            .collect();
        let tools: BTreeMap<_, _> =
            tools.into_iter().map(|tool| (tool.tool.name.clone().into_owned(), tool)).collect();
        let tools: Vec<_> = tools.into_values().collect();
        let servers = overlay.servers_digest_input();
        let revision = CatalogRevision {
            tools: ItemsHash::of(&servers, tools.iter().map(|tool| (&tool.item, &tool.tool))),
            resources: ItemsHash::of(
                &servers,
                resources.iter().map(|resource| (&resource.item, &resource.shown)),
            ),
            prompts: ItemsHash::of(
                &servers,
                prompts.iter().map(|prompt| (&prompt.item, &prompt.prompt)),
            ),
        };
        Self {
            services,
            config,
            number: CATALOGS.fetch_add(1, Ordering::Relaxed),
            tools,
            resources,
            prompts,
            completions,
            watches,
            lists,
            instructions,
            conflicts,
            overlay_errors,
            lock_violations,
            revision,
            is_settled,
        }
    }

    /// Identifies what clients see of this catalog.
    pub(crate) fn revision(&self) -> CatalogRevision {
        self.revision
    }

    /// The items left out because their name, or one of their URIs, belongs to another service.
    pub(crate) fn conflicts(&self) -> &[NameConflict] {
        &self.conflicts
    }

    /// The tools left out because their overlay does not fit.
    pub(crate) fn overlay_errors(&self) -> &[OverlayError] {
        &self.overlay_errors
    }

    /// The items that differ from the lock.
    pub(crate) fn lock_violations(&self) -> &[LockViolation] {
        &self.lock_violations
    }

    /// A lock of everything that clients see.
    pub(crate) fn lock(&self) -> CatalogLock {
        let tools = self.tools.iter().map(|tool| tool.lock_entry());
        let resources = self.resources.iter().map(|resource| resource.lock_entry());
        let prompts = self.prompts.iter().map(|prompt| prompt.lock_entry());
        let instructions = self.instructions.iter().map(|one| one.lock_entry());
        CatalogLock::new(tools.chain(resources).chain(prompts).chain(instructions))
    }

    /// Tools in the config file that no service offers.
    pub(crate) fn unknown_tools(&self) -> Vec<&str> {
        let offered = |name: &str| {
            self.services
                .values()
                .flat_map(|service| &service.tools)
                .any(|tool| tool.item.name == name)
        };
        self.config.overlay.tools.keys().map(String::as_str).filter(|name| !offered(name)).collect()
    }

    /// Whether the contract of some service has been read, if there is any service.
    pub(crate) fn is_loaded(&self) -> bool {
        let expects_none = self.config.namespaces.is_empty() && !self.config.awaits_services;
        expects_none || !self.services.is_empty()
    }

    /// Whether a service or a virtual server of this name exists.
    pub(crate) fn has_endpoint(&self, name: &str) -> bool {
        self.is_read(name)
            || self.config.namespaces.contains(name)
            || self.config.overlay.has_server(name)
    }

    /// Whether the contract of this service has been read.
    pub(super) fn is_read(&self, service: &str) -> bool {
        self.services.contains_key(service)
    }

    /// The configured services.
    pub(super) fn namespaces(&self) -> &BTreeSet<Namespace> {
        &self.config.namespaces
    }

    pub(super) fn lock_enforcer(&self) -> Option<&LockEnforcer> {
        self.config.lock.as_deref()
    }

    /// The name that its service gives to an item with this name.
    pub(super) fn own_name<'a>(&'a self, kind: ItemKind, shown: &'a str) -> &'a str {
        let own = (kind == ItemKind::Tool).then(|| self.config.overlay.own_name(shown)).flatten();
        own.unwrap_or(shown)
    }

    /// Whether an endpoint serves this item.
    pub(crate) fn serves(&self, endpoint: &str, kind: ItemKind, item: &auth::CatalogItem) -> bool {
        item.service == endpoint || self.config.overlay.serves(endpoint, kind, item)
    }

    /// Differs from that of every other catalog of this process with other items.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// All tools, in the order of the names that clients see.
    pub(crate) fn tools(&self) -> &[Arc<ToolItem>] {
        &self.tools
    }

    /// The tool with this name, as clients see it.
    pub(crate) fn tool(&self, name: &str) -> Option<&Arc<ToolItem>> {
        let place = self.tools.binary_search_by(|tool| (*tool.tool.name).cmp(name)).ok()?;
        Some(&self.tools[place])
    }

    /// All resources, by service.
    pub(crate) fn resources(&self) -> impl Iterator<Item = &Arc<ResourceItem>> {
        self.resources.iter()
    }

    /// The first resource whose URI or template matches, and the values of its variables.
    pub(crate) fn resource(&self, uri: &str) -> Option<(&Arc<ResourceItem>, Variables)> {
        self.resources.iter().find_map(|resource| Some((resource, resource.uri.matches(uri)?)))
    }

    /// The resource that has this URI template.
    pub(crate) fn resource_of_template(&self, template: &str) -> Option<&Arc<ResourceItem>> {
        self.resources.iter().find(|resource| resource.uri.as_str() == template)
    }

    /// All prompts, in the order of their names.
    pub(crate) fn prompts(&self) -> &[Arc<PromptItem>] {
        &self.prompts
    }

    /// The prompt of this name.
    pub(crate) fn prompt(&self, name: &str) -> Option<&Arc<PromptItem>> {
        let place = self.prompts.binary_search_by(|prompt| (*prompt.item.name).cmp(name)).ok()?;
        Some(&self.prompts[place])
    }

    /// The RPC that completes the arguments of a prompt or resource.
    pub(crate) fn completion(&self, item: &auth::CatalogItem) -> Option<&Arc<CompletionItem>> {
        self.completions.get(&key(item))
    }

    /// The RPCs that list the resources of templates.
    pub(crate) fn lists(&self) -> impl Iterator<Item = &Arc<ListItem>> {
        self.lists.iter()
    }

    /// The instructions that services give to models.
    pub(crate) fn instructions(&self) -> &[Arc<Instructions>] {
        &self.instructions
    }

    /// The `_meta` keys that reach clients.
    pub(crate) fn meta_keys(&self) -> &MetaKeys {
        &self.config.overlay.meta_keys
    }

    /// The RPC that streams the changes of a resource.
    pub(crate) fn watch(&self, item: &auth::CatalogItem) -> Option<&Arc<WatchItem>> {
        self.watches.get(&key(item))
    }
}

fn key(item: &auth::CatalogItem) -> (String, String) {
    (item.service.clone(), item.name.clone())
}

/// A tool does not fit its overlay in the config file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct OverlayError {
    pub(crate) tool: String,
    pub(crate) problem: String,
}

/// Identifies what clients see of a catalog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CatalogRevision {
    pub(crate) tools: ItemsHash,
    pub(crate) resources: ItemsHash,
    pub(crate) prompts: ItemsHash,
}

/// A hash over the items as clients see them, the virtual servers, and the RPCs behind the items.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ItemsHash([u8; 32]);

impl ItemsHash {
    fn of<'a, T: Serialize + 'a>(
        servers: &[u8],
        items: impl Iterator<Item = (&'a auth::CatalogItem, &'a T)>,
    ) -> Self {
        let mut hasher = Sha256::new();
        length_prefixed(servers, |bytes| hasher.update(bytes));
        for (item, shown) in items {
            // What cannot be serialized cannot be shown to clients either.
            let shown = serde_json_canonicalizer::to_vec(shown).unwrap_or_default();
            for part in [item.rpc.as_bytes(), &shown] {
                length_prefixed(part, |bytes| hasher.update(bytes));
            }
        }
        Self(hasher.finalize().into())
    }
}
