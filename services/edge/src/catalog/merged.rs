//! What all services offer together.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::Bound,
    sync::Arc,
};

use drawbridge_proto::auth::v1 as auth;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::{
    CatalogLock, CompletionItem, Conflict, Instructions, ItemKind, ListItem, MetaKeys, Namespace,
    Pins, PromptItem, ResourceItem, ServiceCatalog, ToolItem, Variables, View, WatchItem,
    claims::{self, Held, Owners},
    pins::{Departure, Pinned as _},
};

/// What all tool services offer together. Immutable: a change makes a new one.
#[derive(Clone, Debug)]
pub(crate) struct Catalog {
    services: BTreeMap<Namespace, ServiceCatalog>,
    terms: Terms,
    /// By the names that clients see.
    tools: BTreeMap<String, Arc<ToolItem>>,
    resources: Vec<Arc<ResourceItem>>,
    prompts: BTreeMap<String, Arc<PromptItem>>,
    /// By the prompt or resource, as its service and its name.
    completions: HashMap<(String, String), Arc<CompletionItem>>,
    /// By the resource, as its service and its name.
    watches: HashMap<(String, String), Arc<WatchItem>>,
    /// In the order of services and names.
    lists: Vec<Arc<ListItem>>,
    instructions: Vec<Arc<Instructions>>,
    conflicts: Vec<Conflict>,
    misfits: Vec<Misfit>,
    departures: Vec<Departure>,
    revision: Revision,
    /// Whether the first services have all been asked, so that who has a name keeps it.
    settled: bool,
}

/// What the configuration says of the catalog.
#[derive(Clone, Debug, Default)]
pub(crate) struct Terms {
    pub(crate) view: Arc<View>,
    /// What the items are held against, if anything.
    pub(crate) pins: Option<Arc<Pins>>,
    /// Of the services that there are to be.
    pub(crate) namespaces: Arc<BTreeSet<Namespace>>,
}

impl Default for Catalog {
    /// Nothing is offered.
    fn default() -> Self {
        Self::merge(BTreeMap::new(), Terms::default(), &Held::new(), false)
    }
}

impl Catalog {
    /// This catalog with what `namespace` now offers.
    pub(crate) fn with(&self, namespace: Namespace, service: ServiceCatalog) -> Self {
        let mut services = self.services.clone();
        services.insert(namespace, service);
        self.becomes(services, self.terms.clone())
    }

    /// This catalog without what `namespace` offers.
    pub(crate) fn without(&self, namespace: &Namespace) -> Self {
        let mut services = self.services.clone();
        services.remove(namespace);
        self.becomes(services, self.terms.clone())
    }

    /// This catalog by these terms.
    pub(crate) fn on(&self, terms: &Terms) -> Self {
        self.becomes(self.services.clone(), terms.clone())
    }

    /// This catalog, in which from now on who has a name keeps it. Before, the order of namespaces
    /// decides, whoever answered first.
    pub(crate) fn settled(&self) -> Self {
        Self { settled: true, ..self.clone() }
    }

    fn becomes(&self, services: BTreeMap<Namespace, ServiceCatalog>, terms: Terms) -> Self {
        let held = if self.settled { self.held() } else { Held::new() };
        Self::merge(services, terms, &held, self.settled)
    }

    /// Who has which names.
    fn held(&self) -> Held {
        let mut held = claims::held(self.tools.values());
        held.extend(claims::held(self.resources.iter()));
        held.extend(claims::held(self.prompts.values()));
        held
    }

    fn merge(
        services: BTreeMap<Namespace, ServiceCatalog>,
        terms: Terms,
        held: &Held,
        settled: bool,
    ) -> Self {
        let (mut conflicts, mut misfits, mut departures) = (Vec::new(), Vec::new(), Vec::new());
        let view = &terms.view;
        let mut namespaces = BTreeSet::clone(&terms.namespaces);
        namespaces.extend(services.keys().cloned());
        let owners = Owners { pins: terms.pins.as_deref(), namespaces: &namespaces, held };
        let shown = services.values().flat_map(|service| &service.tools).filter_map(|tool| {
            view.show(tool).unwrap_or_else(|error| {
                misfits.push(Misfit { tool: tool.item.name.clone(), problem: error.to_string() });
                None
            })
        });
        let tools = owners.settle(shown, &mut conflicts, &mut departures);
        let resources = services.values().flat_map(|service| &service.resources);
        let resources = resources.map(|resource| view.show_resource(resource));
        let resources = owners.settle(resources, &mut conflicts, &mut departures);
        let prompts = services.values().flat_map(|service| &service.prompts).cloned();
        let prompts = owners.settle(prompts, &mut conflicts, &mut departures);
        let prompts: BTreeMap<_, _> =
            prompts.into_iter().map(|prompt| (prompt.item.name.clone(), prompt)).collect();
        let completions = services.values().flat_map(|service| &service.completions);
        let completions = completions.map(|one| (key(&one.item), Arc::clone(one))).collect();
        let watches = services.values().flat_map(|service| &service.watches);
        let watches = watches.map(|one| (key(&one.item), Arc::clone(one))).collect();
        let lists = services.values().flat_map(|service| &service.lists).cloned().collect();
        let instructions = services.values().filter_map(|service| service.instructions.as_ref());
        let instructions: Vec<_> =
            instructions.filter(|one| owners.admits(&***one, &mut departures)).cloned().collect();
        let tools: BTreeMap<_, _> =
            tools.into_iter().map(|tool| (tool.tool.name.clone().into_owned(), tool)).collect();
        let servers = view.servers_seen();
        let revision = Revision {
            tools: Seen::of(&servers, tools.values().map(|tool| (&tool.item, &tool.tool))),
            resources: Seen::of(
                &servers,
                resources.iter().map(|resource| (&resource.item, &resource.shown)),
            ),
            prompts: Seen::of(
                &servers,
                prompts.values().map(|prompt| (&prompt.item, &prompt.prompt)),
            ),
        };
        Self {
            services,
            terms,
            tools,
            resources,
            prompts,
            completions,
            watches,
            lists,
            instructions,
            conflicts,
            misfits,
            departures,
            revision,
            settled,
        }
    }

    /// What tells this catalog from others, as clients see it.
    pub(crate) fn revision(&self) -> Revision {
        self.revision
    }

    /// What is left out because its name, or one of its URIs, is another's.
    pub(crate) fn conflicts(&self) -> &[Conflict] {
        &self.conflicts
    }

    /// What is left out because it is not as the config file says.
    pub(crate) fn misfits(&self) -> &[Misfit] {
        &self.misfits
    }

    /// What is not as it is locked.
    pub(crate) fn departures(&self) -> &[Departure] {
        &self.departures
    }

    /// What clients see, to be locked.
    pub(crate) fn lock(&self) -> CatalogLock {
        let tools = self.tools.values().map(|tool| tool.locked());
        let resources = self.resources.iter().map(|resource| resource.locked());
        let prompts = self.prompts.values().map(|prompt| prompt.locked());
        let instructions = self.instructions.iter().map(|one| one.locked());
        CatalogLock::new(tools.chain(resources).chain(prompts).chain(instructions))
    }

    /// Tools of which the config file says something, and that no service offers.
    pub(crate) fn unknown_tools(&self) -> Vec<&str> {
        let offered = |name: &str| {
            self.services
                .values()
                .flat_map(|service| &service.tools)
                .any(|tool| tool.item.name == name)
        };
        self.terms.view.tools.keys().map(String::as_str).filter(|name| !offered(name)).collect()
    }

    /// Whether a service of this name has been read, or there is a virtual server.
    pub(crate) fn has_endpoint(&self, name: &str) -> bool {
        self.services.contains_key(name) || self.terms.view.has_server(name)
    }

    /// Whether an endpoint serves this item.
    pub(crate) fn serves(&self, endpoint: &str, kind: ItemKind, item: &auth::CatalogItem) -> bool {
        item.service == endpoint || self.terms.view.serves(endpoint, kind, item)
    }

    /// All tools, by the names that clients see.
    pub(crate) fn tools(&self) -> impl Iterator<Item = &Arc<ToolItem>> {
        self.tools.values()
    }

    /// The tools after this name, in the order of the names that clients see. None: all.
    pub(crate) fn tools_after(&self, name: Option<&str>) -> impl Iterator<Item = &Arc<ToolItem>> {
        after(&self.tools, name)
    }

    /// The tool that clients know by this name.
    pub(crate) fn tool(&self, name: &str) -> Option<&Arc<ToolItem>> {
        self.tools.get(name)
    }

    /// All resources, by service.
    pub(crate) fn resources(&self) -> impl Iterator<Item = &Arc<ResourceItem>> {
        self.resources.iter()
    }

    /// The resource that this URI names, and the variables in it.
    pub(crate) fn resource(&self, uri: &str) -> Option<(&Arc<ResourceItem>, Variables)> {
        self.resources.iter().find_map(|resource| Some((resource, resource.uri.matches(uri)?)))
    }

    /// The resource that has this URI template.
    pub(crate) fn resource_of_template(&self, template: &str) -> Option<&Arc<ResourceItem>> {
        self.resources.iter().find(|resource| resource.uri.as_str() == template)
    }

    /// All prompts, by name.
    pub(crate) fn prompts(&self) -> impl Iterator<Item = &Arc<PromptItem>> {
        self.prompts.values()
    }

    /// The prompts after this name, in the order of names. None: all.
    pub(crate) fn prompts_after(
        &self,
        name: Option<&str>,
    ) -> impl Iterator<Item = &Arc<PromptItem>> {
        after(&self.prompts, name)
    }

    /// The prompt of this name.
    pub(crate) fn prompt(&self, name: &str) -> Option<&Arc<PromptItem>> {
        self.prompts.get(name)
    }

    /// What completes the arguments of a prompt or resource.
    pub(crate) fn completion(&self, item: &auth::CatalogItem) -> Option<&Arc<CompletionItem>> {
        self.completions.get(&key(item))
    }

    /// What pages the resources of templates.
    pub(crate) fn lists(&self) -> impl Iterator<Item = &Arc<ListItem>> {
        self.lists.iter()
    }

    /// What services tell models of themselves.
    pub(crate) fn instructions(&self) -> &[Arc<Instructions>] {
        &self.instructions
    }

    /// The keys of `_meta` that clients see.
    pub(crate) fn meta_keys(&self) -> &MetaKeys {
        &self.terms.view.meta_keys
    }

    /// What streams the changes of a resource.
    pub(crate) fn watch(&self, item: &auth::CatalogItem) -> Option<&Arc<WatchItem>> {
        self.watches.get(&key(item))
    }
}

fn after<'a, T>(
    items: &'a BTreeMap<String, Arc<T>>,
    name: Option<&str>,
) -> impl Iterator<Item = &'a Arc<T>> + use<'a, T> {
    let start = name.map_or(Bound::Unbounded, Bound::Excluded);
    items.range::<str, _>((start, Bound::Unbounded)).map(|(_, item)| item)
}

fn key(item: &auth::CatalogItem) -> (String, String) {
    (item.service.clone(), item.name.clone())
}

/// A tool is not as the config file says.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Misfit {
    pub(crate) tool: String,
    pub(crate) problem: String,
}

/// Tells catalogs apart by what clients see of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Revision {
    pub(crate) tools: Seen,
    pub(crate) resources: Seen,
    pub(crate) prompts: Seen,
}

/// A hash over what clients see of items and where, and over the RPCs behind them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen([u8; 32]);

impl Seen {
    fn of<'a, T: Serialize + 'a>(
        servers: &[u8],
        items: impl Iterator<Item = (&'a auth::CatalogItem, &'a T)>,
    ) -> Self {
        let mut hasher = Sha256::new();
        hasher.update(servers.len().to_be_bytes());
        hasher.update(servers);
        for (item, shown) in items {
            // What cannot be written is not shown either.
            let shown = serde_json::to_vec(shown).unwrap_or_default();
            for part in [item.rpc.as_bytes(), &shown] {
                hasher.update(part.len().to_be_bytes());
                hasher.update(part);
            }
        }
        Self(hasher.finalize().into())
    }
}
