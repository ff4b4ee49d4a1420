//! The policy catalog: the tools, resources and prompts locked in `catalog/`.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use cedar_policy::{Entities, Entity, EntityUid, EvalResult, Schema};
use drawbridge_proto::auth::v1::{self as pb, operation::Kind};
use serde_json::value::RawValue;

use super::{
    index::{PolicyIndex, ScopeKey},
    members::source_chain,
    problem::Problem,
    source::PolicySource,
    uid,
};

/// A tool, resource or prompt of the catalog.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) kind: ItemKind,
    pub(super) name: String,
    pub(super) rpc: String,
    /// The RPC that completes its arguments.
    completion_rpc: Option<String>,
    /// The RPC that streams its changes.
    watch_rpc: Option<String>,
    /// The RPC that lists the resources of a template, if any.
    list_rpc: Option<String>,
    pub(super) service: String,
    /// Scopes, all of which a token must have.
    pub(super) scopes: Vec<String>,
    pub(super) action: EntityUid,
    pub(super) uid: EntityUid,
    /// The item, its service and its action with their ancestors: the entities of a decision,
    /// except the principal.
    pub(super) entities: Entities,
    /// Principal types to which its action applies.
    pub(super) principal_types: Vec<String>,
    /// The scope keys of its action, and its own.
    scope_keys: (Vec<ScopeKey>, Vec<ScopeKey>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum ItemKind {
    Tool,
    Resource,
    Prompt,
}

impl ItemKind {
    const ALL: [Self; 3] = [Self::Tool, Self::Resource, Self::Prompt];

    fn from_operation(kind: Kind) -> Option<Self> {
        match kind {
            Kind::CallTool => Some(Self::Tool),
            Kind::ReadResource => Some(Self::Resource),
            Kind::GetPrompt => Some(Self::Prompt),
            Kind::Unspecified
            | Kind::Connect
            | Kind::Complete
            | Kind::WatchResource
            | Kind::ListResources => None,
        }
    }

    pub(super) fn operation(self) -> Kind {
        match self {
            Self::Tool => Kind::CallTool,
            Self::Resource => Kind::ReadResource,
            Self::Prompt => Kind::GetPrompt,
        }
    }

    fn type_name(self) -> &'static str {
        match self {
            Self::Tool => "Tool",
            Self::Resource => "Resource",
            Self::Prompt => "Prompt",
        }
    }
}

impl Item {
    pub(super) fn as_proto(&self) -> pb::CatalogItem {
        pb::CatalogItem {
            name: self.name.clone(),
            service: self.service.clone(),
            rpc: self.rpc.clone(),
            scopes: self.scopes.clone(),
        }
    }
}

/// All items, for the policies of an index.
#[derive(Debug, Default)]
pub(super) struct Catalog {
    items: Arc<Items>,
    /// The index groups of each item.
    groups: Vec<Vec<usize>>,
}

/// All items, whatever the policies are.
#[derive(Debug, Default)]
pub(super) struct Items {
    all: Vec<Item>,
    by_name: HashMap<ItemKind, HashMap<String, usize>>,
    by_rpc: HashMap<String, usize>,
}

impl Catalog {
    pub(super) fn new(items: Arc<Items>, index: &PolicyIndex) -> Self {
        let groups = |item: &Item| index.groups(&item.scope_keys.0, &item.scope_keys.1);
        let groups = items.all.iter().map(groups).collect();
        Self { items, groups }
    }

    pub(super) fn items(&self) -> &[Item] {
        &self.items.all
    }

    /// The index groups of the item with a number.
    pub(super) fn groups(&self, number: usize) -> &[usize] {
        &self.groups[number]
    }

    /// The item of an RPC.
    pub(super) fn find_rpc(&self, rpc: &str) -> Option<&Item> {
        self.items.by_rpc.get(rpc).map(|index| &self.items()[*index])
    }

    /// The wanted item and its number. The RPC that the edge names for the item must match the
    /// catalog.
    pub(super) fn find(&self, kind: Kind, wanted: &pb::CatalogItem) -> Option<(usize, &Item)> {
        let of_kind = |kind| {
            let index = *self.items.by_name.get(&kind)?.get(&wanted.name)?;
            Some((index, &self.items()[index]))
        };
        let found = match kind {
            Kind::Complete => [ItemKind::Prompt, ItemKind::Resource]
                .into_iter()
                .filter_map(of_kind)
                .find(|(_, item)| item.completion_rpc.as_ref() == Some(&wanted.rpc)),
            Kind::WatchResource => of_kind(ItemKind::Resource)
                .filter(|(_, item)| item.watch_rpc.as_ref() == Some(&wanted.rpc)),
            Kind::ListResources => of_kind(ItemKind::Resource)
                .filter(|(_, item)| item.list_rpc.as_ref() == Some(&wanted.rpc)),
            kind => {
                of_kind(ItemKind::from_operation(kind)?).filter(|(_, item)| item.rpc == wanted.rpc)
            }
        };
        found.filter(|(_, item)| item.service == wanted.service)
    }
}

impl Items {
    /// Reads the catalog's files.
    pub(super) fn load(sources: &[PolicySource], schema: &Schema) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        // At once: Cedar takes time for each call, in proportion to the schema.
        let mut entities = Entities::empty();
        let at_once = joined(sources)
            .and_then(|text| entities.clone().add_entities_from_json_str(&text, Some(schema)).ok());
        if let Some(all) = at_once {
            entities = all;
        } else {
            // To find the file.
            for source in sources {
                match entities.clone().add_entities_from_json_str(&source.text, Some(schema)) {
                    Ok(all) => entities = all,
                    Err(error) => problems.push(invalid_entity(source, schema, &error)),
                }
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let folder =
            sources.first().and_then(|source| source.path.parent()).unwrap_or("catalog".as_ref());
        let actions = schema.action_entities().map_err(|error| {
            vec![Problem::error(folder, format!("the schema's actions are invalid: {error}"))]
        })?;
        let (mut all, mut shared) = (Self::default(), HashMap::new());
        for entity in entities.iter() {
            let type_name = entity.uid().type_name().to_string();
            let Some(kind) = ItemKind::ALL.into_iter().find(|kind| kind.type_name() == type_name)
            else {
                continue;
            };
            let name = entity.uid().id().unescaped().to_owned();
            match item(kind, entity, &name, &entities, &actions, &mut shared, schema) {
                Ok(item) => all.add(item),
                Err(what) => problems.push(invalid_item(sources, folder, &type_name, &name, what)),
            }
        }
        if problems.is_empty() { Ok(all) } else { Err(problems) }
    }

    fn add(&mut self, item: Item) {
        let index = self.all.len();
        self.by_name.entry(item.kind).or_default().insert(item.name.clone(), index);
        self.by_rpc.insert(item.rpc.clone(), index);
        self.all.push(item);
    }
}

/// The entities of all files as one text. `None`: a file has no list.
fn joined(sources: &[PolicySource]) -> Option<String> {
    let mut all: Vec<&RawValue> = Vec::new();
    for source in sources {
        let entities: Vec<&RawValue> = serde_json::from_str(&source.text).ok()?;
        all.extend(entities);
    }
    serde_json::to_string(&all).ok()
}

/// Locates the entity that Cedar rejects: its errors have no position.
fn invalid_entity(
    source: &PolicySource,
    schema: &Schema,
    error: &cedar_policy::entities_errors::EntitiesError,
) -> Problem {
    let problem = Problem::error(&source.path, source_chain(error));
    let entities: Vec<&RawValue> = serde_json::from_str(&source.text).unwrap_or_default();
    let invalid =
        entities.into_iter().find(|json| Entity::from_json_str(json.get(), Some(schema)).is_err());
    match invalid {
        Some(json) => {
            let (offset, length) = source.span_of(json);
            problem.at(&source.text, offset, length)
        }
        None => problem,
    }
}

fn invalid_item(
    sources: &[PolicySource],
    folder: &std::path::Path,
    type_name: &str,
    name: &str,
    what: &str,
) -> Problem {
    let message = format!("{type_name}::{name:?} in the catalog {what}");
    let quoted = format!("{name:?}");
    let location = sources.iter().find_map(|source| Some((source, source.text.find(&quoted)?)));
    match location {
        Some((source, offset)) => {
            Problem::error(&source.path, message).at(&source.text, offset, quoted.len())
        }
        None => Problem::error(folder, message),
    }
}

/// The ancestors of an item, and of its action. Items with the same share these entities.
type SharedKey = (Vec<EntityUid>, Vec<EntityUid>);

const MISMATCH: &str = "does not match its service and action";

fn sorted(uids: &[&EntityUid]) -> Vec<EntityUid> {
    let mut uids: Vec<_> = uids.iter().copied().cloned().collect();
    uids.sort_unstable();
    uids
}

fn item(
    kind: ItemKind,
    entity: &Entity,
    name: &str,
    entities: &Entities,
    actions: &Entities,
    shared: &mut HashMap<SharedKey, Entities>,
    schema: &Schema,
) -> Result<Item, &'static str> {
    let uid_of_item = entity.uid();
    let rpc = text(entity, "rpc").ok_or("has no rpc")?;
    let ancestors: Vec<_> = entities.ancestors(&uid_of_item).into_iter().flatten().collect();
    let service = ancestors
        .iter()
        .find(|uid| uid.type_name().to_string() == "Service")
        .ok_or("has no service")?;
    let action = uid("Action", name);
    let known = actions.get(&action).ok_or("has no action with its name in a schema")?;
    let above: Vec<_> = actions.ancestors(&action).into_iter().flatten().collect();
    let key = (sorted(&ancestors), sorted(&above));
    let own = match shared.entry(key) {
        Entry::Occupied(entry) => entry.into_mut(),
        Entry::Vacant(entry) => {
            let mut own = Vec::new();
            for ancestor in &ancestors {
                let found = entities.get(ancestor);
                own.push(found.ok_or("belongs to a service that is not in the catalog")?.clone());
            }
            own.extend(above.iter().filter_map(|uid| actions.get(uid)).cloned());
            entry.insert(Entities::from_entities(own, None).map_err(|_| MISMATCH)?)
        }
    };
    let own = own.clone().add_entities([entity.clone(), known.clone()], None);
    let own = own.map_err(|_| MISMATCH)?;
    let principal_types = schema.principals_for_action(&action).into_iter().flatten();
    Ok(Item {
        kind,
        name: name.to_owned(),
        rpc,
        completion_rpc: text(entity, "completion_rpc"),
        watch_rpc: text(entity, "watch_rpc"),
        list_rpc: text(entity, "list_rpc"),
        service: service.id().unescaped().to_owned(),
        scopes: texts(entity, "scopes"),
        entities: own,
        principal_types: principal_types.map(ToString::to_string).collect(),
        scope_keys: (
            ScopeKey::all_of(&action, above),
            ScopeKey::all_of(&uid_of_item, ancestors.iter().copied()),
        ),
        action,
        uid: uid_of_item,
    })
}

fn text(entity: &Entity, attribute: &str) -> Option<String> {
    match entity.attr(attribute) {
        Some(Ok(EvalResult::String(text))) => Some(text),
        _ => None,
    }
}

fn texts(entity: &Entity, attribute: &str) -> Vec<String> {
    let Some(Ok(EvalResult::Set(set))) = entity.attr(attribute) else { return Vec::new() };
    let texts = set.iter().filter_map(|item| match item {
        EvalResult::String(text) => Some(text.clone()),
        _ => None,
    });
    let mut texts: Vec<_> = texts.collect();
    texts.sort_unstable();
    texts
}
