//! The part of a schema that decides whether a policy is valid.
//!
//! Cedar type-checks a policy in each request environment: each action with each type of principal
//! and resource that it applies to. A policy that names an action neither in its scope nor in its
//! conditions cannot tell it from another one in the same groups that applies to the same types. If
//! it reads no arguments, or the action is outside of its scope, their types do not matter either.
//! So a slice has the actions that the policy names, and one for each kind of the others. A policy
//! without findings there has none in the whole schema; thousands of tools have a few kinds.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use cedar_policy::{ActionConstraint, EntityUid, Policy, Schema};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::Digest;

/// A schema in parts.
#[derive(Debug, Default)]
pub(super) struct SchemaParts {
    /// All but `leaves`: entity types, common types, and groups of actions.
    base: Map<String, Value>,
    base_digest: Digest,
    /// Actions that are no groups.
    leaves: Vec<Leaf>,
    by_name: HashMap<String, usize>,
    /// The leaves in each group, at any depth.
    by_group: HashMap<String, Vec<usize>>,
    /// The leaves that differ in name and arguments only.
    by_plain: HashMap<Digest, Vec<usize>>,
}

#[derive(Debug)]
struct Leaf {
    name: String,
    /// As declared, and without its arguments.
    whole: Part,
    plain: Part,
}

/// A declaration without its name.
#[derive(Clone, Debug)]
struct Part {
    json: Box<str>,
    digest: Digest,
}

impl Part {
    fn new(json: &Value) -> Self {
        let json = json.to_string();
        Self { digest: Sha256::digest(&json).into(), json: json.into() }
    }

    fn json(&self) -> Option<Value> {
        serde_json::from_str(&self.json).ok()
    }
}

/// What a policy distinguishes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Distinctions {
    /// Actions that it names, and those of its scope; `None`: every action.
    named: BTreeSet<String>,
    scope: Option<BTreeSet<String>>,
    pub(super) reads_arguments: bool,
}

impl Distinctions {
    pub(super) fn of(policy: &Policy) -> Self {
        // If unknown, assume that the policy reads them.
        let reads_arguments = policy.to_json().as_ref().map_or(true, names_context);
        let name = |uid: &EntityUid| uid.id().unescaped().to_owned();
        let literals = policy.entity_literals();
        let named = literals.iter().filter(|uid| uid.type_name().basename() == "Action");
        let scope = match policy.action_constraint() {
            ActionConstraint::Any => None,
            ActionConstraint::Eq(uid) => Some([name(&uid)].into()),
            ActionConstraint::In(uids) => Some(uids.iter().map(name).collect()),
        };
        Self { named: named.map(name).collect(), scope, reads_arguments }
    }
}

/// A slice of a schema.
#[derive(Clone, Debug)]
pub(super) struct Slice {
    /// Equal for slices in which the same policies are valid.
    pub(super) digest: Digest,
    /// The leaves in it, each with or without its arguments. Those that the policy does not name
    /// stand for all others of their kind.
    actions: Vec<(usize, bool)>,
}

#[cfg(test)]
impl Slice {
    /// The number of actions that apply to something.
    pub(super) fn size(&self) -> usize {
        self.actions.len()
    }
}

impl SchemaParts {
    /// `None` if the schema has parts that this module does not know.
    pub(super) fn new(fragments: impl Iterator<Item = Value>) -> Option<Self> {
        let (mut base, mut actions) = (Map::new(), Map::new());
        for mut fragment in fragments {
            for (namespace, parts) in std::mem::take(fragment.as_object_mut()?) {
                let Value::Object(parts) = parts else { return None };
                if !namespace.is_empty() {
                    return None;
                }
                for (kind, declared) in parts {
                    let Value::Object(declared) = declared else { return None };
                    if kind == "actions" {
                        actions.extend(declared);
                    } else {
                        base.entry(kind)
                            .or_insert_with(|| json!({}))
                            .as_object_mut()?
                            .extend(declared);
                    }
                }
            }
        }
        let mut above: HashMap<String, Vec<String>> = HashMap::new();
        for (name, action) in &actions {
            above.insert(name.clone(), parents(action)?);
        }
        let groups: HashSet<&String> = above.values().flatten().collect();
        let is_leaf = |name: &String, action: &Value| {
            !groups.contains(name) && action["appliesTo"].is_object()
        };
        let (leaves, others): (Vec<_>, Vec<_>) =
            actions.into_iter().partition(|(name, action)| is_leaf(name, action));
        base.insert("actions".to_owned(), Value::Object(others.into_iter().collect()));
        let mut parts = Self { base_digest: digest_of(&base), base, ..Self::default() };
        for (name, json) in leaves {
            let mut plain = json.clone();
            plain["appliesTo"].as_object_mut()?.remove("context");
            plain.as_object_mut()?.remove("annotations");
            let (whole, plain) = (Part::new(&json), Part::new(&plain));
            let number = parts.leaves.len();
            for group in groups_of(&name, &above) {
                parts.by_group.entry(group.clone()).or_default().push(number);
            }
            parts.by_plain.entry(plain.digest).or_default().push(number);
            parts.by_name.insert(name.clone(), number);
            parts.leaves.push(Leaf { name, whole, plain });
        }
        Some(parts)
    }

    /// The slice for a policy that distinguishes this. `None`: it is hardly smaller than the whole.
    pub(super) fn slice(&self, distinctions: &Distinctions) -> Option<Slice> {
        let named: BTreeSet<usize> =
            distinctions.named.iter().filter_map(|name| self.by_name.get(name).copied()).collect();
        let read = self.read(distinctions);
        let others = read.difference(&named).copied();
        let mut kinds: BTreeMap<Digest, (usize, bool)> =
            others.map(|number| (self.leaves[number].whole.digest, (number, true))).collect();
        for (digest, members) in &self.by_plain {
            let other =
                members.iter().find(|number| !named.contains(number) && !read.contains(number));
            if let Some(number) = other {
                kinds.insert(*digest, (*number, false));
            }
        }
        if (named.len() + kinds.len()) * 2 > self.leaves.len() {
            return None;
        }
        let named: Vec<_> =
            named.into_iter().map(|number| (number, read.contains(&number))).collect();
        let mut digest = Sha256::new_with_prefix(self.base_digest);
        digest.update((named.len() as u64).to_be_bytes());
        for (number, is_whole) in &named {
            let leaf = &self.leaves[*number];
            digest.update(Sha256::digest(&leaf.name));
            digest.update(leaf.part(*is_whole).digest);
        }
        kinds.keys().for_each(|kind| digest.update(kind));
        let actions = named.into_iter().chain(kinds.into_values()).collect();
        Some(Slice { digest: digest.finalize().into(), actions })
    }

    /// The leaves whose arguments matter.
    fn read(&self, distinctions: &Distinctions) -> BTreeSet<usize> {
        match &distinctions.scope {
            _ if !distinctions.reads_arguments => BTreeSet::new(),
            None => (0..self.leaves.len()).collect(),
            Some(scope) => {
                let own = scope.iter().filter_map(|name| self.by_name.get(name));
                let of_groups = scope.iter().filter_map(|name| self.by_group.get(name)).flatten();
                own.chain(of_groups).copied().collect()
            }
        }
    }

    /// The schema of a slice; `None` if Cedar does not take it.
    pub(super) fn schema(&self, slice: &Slice) -> Option<Schema> {
        let mut all = self.base.clone();
        let actions = all.get_mut("actions")?.as_object_mut()?;
        for (number, is_whole) in &slice.actions {
            let leaf = &self.leaves[*number];
            actions.insert(leaf.name.clone(), leaf.part(*is_whole).json()?);
        }
        Schema::from_json_value(json!({ "": all })).ok()
    }
}

impl Leaf {
    fn part(&self, is_whole: bool) -> &Part {
        if is_whole { &self.whole } else { &self.plain }
    }
}

/// All groups of an action, given the declared ones of each.
fn groups_of<'a>(action: &str, above: &'a HashMap<String, Vec<String>>) -> HashSet<&'a String> {
    let (mut all, mut open) = (HashSet::new(), vec![action]);
    while let Some(next) = open.pop() {
        for group in above.get(next).into_iter().flatten() {
            if all.insert(group) {
                open.push(group);
            }
        }
    }
    all
}

/// The names of the groups that an action declares itself in.
fn parents(action: &Value) -> Option<Vec<String>> {
    let Some(groups) = action.get("memberOf").filter(|groups| !groups.is_null()) else {
        return Some(Vec::new());
    };
    groups.as_array()?.iter().map(|group| group["id"].as_str().map(str::to_owned)).collect()
}

fn digest_of(json: &impl serde::Serialize) -> Digest {
    Sha256::digest(serde_json::to_vec(json).unwrap_or_default()).into()
}

/// Whether the variable `context` occurs in a policy's JSON form.
fn names_context(json: &Value) -> bool {
    match json {
        Value::Object(fields) => fields
            .iter()
            .any(|(key, value)| (key == "Var" && value == "context") || names_context(value)),
        Value::Array(items) => items.iter().any(names_context),
        _ => false,
    }
}
