//! What all services offer together.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use drawbridge_proto::auth::v1 as auth;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::{
    CatalogLock, CompletionItem, ItemKind, Namespace, Pins, PromptItem, ResourceItem, ServiceCatalog,
    ToolItem, Variables, View, WatchItem,
    pins::{Departure, Pinned as _, pinned},
};

/// What all tool services offer together. Immutable: a change makes a new one.
#[derive(Clone, Debug)]
pub(crate) struct Catalog {
    services: BTreeMap<Namespace, ServiceCatalog>,
    view: Arc<View>,
    /// By the names that clients see.
    tools: BTreeMap<String, Arc<ToolItem>>,
    resources: Vec<Arc<ResourceItem>>,
    prompts: BTreeMap<String, Arc<PromptItem>>,
    /// By the prompt or resource, as its service and its name.
    completions: HashMap<(String, String), Arc<CompletionItem>>,
    /// By the resource, as its service and its name.
    watches: HashMap<(String, String), Arc<WatchItem>>,
    clashes: Vec<Clash>,
    misfits: Vec<Misfit>,
    /// What the items are held against, if anything.
    pins: Option<Arc<Pins>>,
    departures: Vec<Departure>,
    revision: Revision,
}

impl Default for Catalog {
    /// Nothing is offered.
    fn default() -> Self {
        Self::merge(BTreeMap::new(), Arc::default(), None)
    }
}

impl Catalog {
    /// This catalog with what `namespace` now offers.
    pub(crate) fn with(&self, namespace: Namespace, service: ServiceCatalog) -> Self {
        let mut services = self.services.clone();
        services.insert(namespace, service);
        Self::merge(services, Arc::clone(&self.view), self.pins.clone())
    }

    /// This catalog without what `namespace` offers.
    pub(crate) fn without(&self, namespace: &Namespace) -> Self {
        let mut services = self.services.clone();
        services.remove(namespace);
        Self::merge(services, Arc::clone(&self.view), self.pins.clone())
    }

    /// This catalog as clients see it when this is said of it, held against these pins.
    pub(crate) fn seen_through(&self, view: &Arc<View>, pins: Option<Arc<Pins>>) -> Self {
        Self::merge(self.services.clone(), Arc::clone(view), pins)
    }

    /// Where two RPCs claim one name, the first in the order of namespaces keeps it, whoever came first.
    fn merge(
        services: BTreeMap<Namespace, ServiceCatalog>,
        view: Arc<View>,
        pins: Option<Arc<Pins>>,
    ) -> Self {
        let (mut clashes, mut misfits, mut departures) = (Vec::new(), Vec::new(), Vec::new());
        let shown: Vec<_> = services
            .values()
            .flat_map(|service| &service.tools)
            .filter_map(|tool| {
                view.show(tool).unwrap_or_else(|error| {
                    misfits.push(Misfit { tool: tool.item.name.clone(), problem: error.to_string() });
                    None
                })
            })
            .collect();
        let tools = claim(
            shown.iter(),
            |tool| &tool.item,
            // A policy names a tool as its service does.
            |tool| vec![("tool name", tool.tool.name.as_ref()), ("tool's own name", &tool.item.name)],
            &mut clashes,
        );
        let resources = claim(
            services.values().flat_map(|service| &service.resources),
            |resource| &resource.item,
            |resource| vec![("resource name", &resource.item.name), ("resource URI", resource.uri.as_str())],
            &mut clashes,
        );
        let prompts = claim(
            services.values().flat_map(|service| &service.prompts),
            |prompt| &prompt.item,
            |prompt| vec![("prompt name", &prompt.item.name)],
            &mut clashes,
        );
        let tools = pinned(pins.as_deref(), tools, &mut departures);
        let resources = pinned(pins.as_deref(), resources, &mut departures);
        let prompts = pinned(pins.as_deref(), prompts, &mut departures);
        let prompts: BTreeMap<_, _> =
            prompts.into_iter().map(|prompt| (prompt.item.name.clone(), prompt)).collect();
        let completions = services.values().flat_map(|service| &service.completions);
        let completions = completions.map(|one| (key(&one.item), Arc::clone(one))).collect();
        let watches = services.values().flat_map(|service| &service.watches);
        let watches = watches.map(|one| (key(&one.item), Arc::clone(one))).collect();
        let tools: BTreeMap<_, _> =
            tools.into_iter().map(|tool| (tool.tool.name.clone().into_owned(), tool)).collect();
        let servers = view.servers_seen();
        let revision = Revision {
            tools: Seen::of(&servers, tools.values().map(|tool| (&tool.item, &tool.tool))),
            resources: Seen::of(&servers, resources.iter().map(|resource| (&resource.item, &resource.shown))),
            prompts: Seen::of(&servers, prompts.values().map(|prompt| (&prompt.item, &prompt.prompt))),
        };
        Self {
            services,
            view,
            tools,
            resources,
            prompts,
            completions,
            watches,
            clashes,
            misfits,
            pins,
            departures,
            revision,
        }
    }

    /// What tells this catalog from others, as clients see it.
    pub(crate) fn revision(&self) -> Revision {
        self.revision
    }

    /// What is left out because something else has its name.
    pub(crate) fn clashes(&self) -> &[Clash] {
        &self.clashes
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
        CatalogLock::new(tools.chain(resources).chain(prompts))
    }

    /// Tools of which the config file says something, and that no service offers.
    pub(crate) fn unknown_tools(&self) -> Vec<&str> {
        let offered = |name: &str| {
            self.services.values().flat_map(|service| &service.tools).any(|tool| tool.item.name == name)
        };
        self.view.tools.keys().map(String::as_str).filter(|name| !offered(name)).collect()
    }

    /// Whether a service of this name has been read, or there is a virtual server.
    pub(crate) fn has_endpoint(&self, name: &str) -> bool {
        self.services.contains_key(name) || self.view.has_server(name)
    }

    /// Whether an endpoint serves this item.
    pub(crate) fn serves(&self, endpoint: &str, kind: ItemKind, item: &auth::CatalogItem) -> bool {
        item.service == endpoint || self.view.serves(endpoint, kind, item)
    }

    /// All tools, by the names that clients see.
    pub(crate) fn tools(&self) -> impl Iterator<Item = &Arc<ToolItem>> {
        self.tools.values()
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

    /// The prompt of this name.
    pub(crate) fn prompt(&self, name: &str) -> Option<&Arc<PromptItem>> {
        self.prompts.get(name)
    }

    /// What completes the arguments of a prompt or resource.
    pub(crate) fn completion(&self, item: &auth::CatalogItem) -> Option<&Arc<CompletionItem>> {
        self.completions.get(&key(item))
    }

    /// What streams the changes of a resource.
    pub(crate) fn watch(&self, item: &auth::CatalogItem) -> Option<&Arc<WatchItem>> {
        self.watches.get(&key(item))
    }
}

fn key(item: &auth::CatalogItem) -> (String, String) {
    (item.service.clone(), item.name.clone())
}

/// Two RPCs claim one name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Clash {
    /// What kind of name it is.
    pub(crate) kind: &'static str,
    pub(crate) name: String,
    /// The RPC that has the name.
    pub(crate) kept: String,
    /// The RPC that is left out.
    pub(crate) left_out: String,
}

/// A tool is not as the config file says.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Misfit {
    pub(crate) tool: String,
    pub(crate) problem: String,
}

/// Items in the order in which they come, without those of which a name is taken.
fn claim<'a, T: 'a>(
    items: impl Iterator<Item = &'a Arc<T>>,
    item: impl Fn(&T) -> &auth::CatalogItem,
    names: impl Fn(&T) -> Vec<(&'static str, &str)>,
    clashes: &mut Vec<Clash>,
) -> Vec<Arc<T>> {
    let mut taken: HashMap<(&str, &str), &str> = HashMap::new();
    let mut kept = Vec::new();
    for one in items {
        let (rpc, names) = (&item(one).rpc, names(one));
        let clash = names.iter().find_map(|&(kind, name)| Some((kind, name, *taken.get(&(kind, name))?)));
        if let Some((kind, name, first)) = clash {
            let (name, kept, left_out) = (name.to_owned(), first.to_owned(), rpc.clone());
            clashes.push(Clash { kind, name, kept, left_out });
            continue;
        }
        taken.extend(names.into_iter().map(|name| (name, rpc.as_str())));
        kept.push(Arc::clone(one));
    }
    kept
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
