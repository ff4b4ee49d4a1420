//! What a person asks of a policy folder, at the command line.

use std::{
    collections::{BTreeSet, HashMap},
    path::{Path, PathBuf},
};

use cedar_policy::{Effect, PolicyId, SchemaFragment};
use drawbridge_proto::auth::v1::{self as pb, operation::Kind};
use serde::Serialize;
use serde_json::{Map, Value};

use super::{
    Answer, Outcome, Policies, PolicyError, Problem, Who,
    caller::Caller,
    evaluate::Verdict,
    lint,
    load::{Loaded, Loader},
    names::suggest,
    source::{ParsedPolicy, Source, Sources, parse},
};
use crate::{Identity, decision_log::DecisionRecord};

/// A policy folder that is not in force but looked at.
#[derive(Debug)]
pub struct Study {
    policies: Policies,
    sources: Sources,
    warnings: Vec<Problem>,
    /// The types of each action's arguments, in the schema's JSON form.
    inputs: HashMap<String, Value>,
    /// The arguments of each action as they are when nobody gives any.
    defaults: HashMap<String, Value>,
}

/// Why an operation is allowed or not.
#[derive(Clone, Debug, Serialize)]
pub struct Explanation {
    /// How it is decided.
    pub answer: Answer,
    /// What shadow policies would make of it, if anything else.
    pub shadow: Option<Answer>,
    /// What single policies say: those that decide first, then the others about this item.
    pub policies: Vec<Explained>,
    /// What is wrong with the arguments, when they do not fit.
    pub arguments: Vec<String>,
}

/// What one policy says, and how it is written.
#[derive(Clone, Debug, Serialize)]
pub struct Explained {
    /// Its `@id`.
    pub id: String,
    /// Whether it permits; else it forbids.
    pub permits: bool,
    /// Whether it is annotated `@shadow`.
    pub shadow: bool,
    /// What it says.
    pub says: Says,
    /// Why it could not be evaluated.
    pub error: Option<String>,
    /// Its file.
    pub path: PathBuf,
    /// Where it begins.
    pub line: usize,
    /// Its text.
    pub text: String,
}

/// What a policy says of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Says {
    /// It could not be evaluated.
    Error,
    /// It applies.
    Yes,
    /// It depends on the arguments.
    Perhaps,
    /// Its scope fits and its conditions do not hold.
    No,
    /// It is about this item and about other callers.
    Others,
}

/// How a recorded decision would end under these policies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Replayed {
    /// As it did.
    Same,
    /// Otherwise.
    Changed(Outcome),
    /// It depends on the arguments, which were not recorded.
    DependsOnArguments,
}

impl Study {
    /// Loads the folder `root`.
    ///
    /// # Errors
    /// When the policies are not right: all that is wrong.
    pub fn open(root: &Path) -> Result<Self, PolicyError> {
        let sources = Sources::read(root)?;
        let Loaded { policies, warnings } = Loader::default().load(&sources)?;
        let inputs = inputs(&sources);
        let with_default =
            inputs.iter().filter_map(|(name, input)| Some((name.clone(), default(input)?)));
        let defaults = with_default.collect();
        Ok(Self { policies, sources, warnings, inputs, defaults })
    }

    /// The policies.
    #[must_use]
    pub fn policies(&self) -> &Policies {
        &self.policies
    }

    /// How many policies there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.policies.meta.len()
    }

    /// Whether there is no policy at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.policies.meta.is_empty()
    }

    /// What looks wrong and yet can be used.
    #[must_use]
    pub fn warnings(&self) -> Vec<Problem> {
        let parsed = self.parsed();
        let lints = parsed.iter().flat_map(|(text, policies)| {
            policies.iter().flat_map(move |policy| lint::lint(text, policy))
        });
        self.warnings.iter().cloned().chain(lints).collect()
    }

    /// Files that say who is in which group.
    pub(super) fn members(&self) -> impl Iterator<Item = &Source> {
        self.sources.members.iter()
    }

    pub(super) fn parsed(&self) -> Vec<(&str, Vec<ParsedPolicy>)> {
        let sources = self.sources.policies.iter();
        sources.map(|source| (source.text.as_str(), parse(source).unwrap_or_default())).collect()
    }

    /// The tool, resource or prompt of this name.
    #[must_use]
    pub fn item(&self, name: &str) -> Option<(Kind, pb::CatalogItem)> {
        self.policies.items().find(|(_, item)| item.name == name)
    }

    /// Arguments with what nobody gave filled in, as a tool service gets them.
    #[must_use]
    pub fn complete(&self, item: &str, arguments: &Value) -> Value {
        match self.defaults.get(item) {
            Some(defaults) => merged(defaults, arguments),
            None => arguments.clone(),
        }
    }

    /// Decides as auth does.
    #[must_use]
    pub fn decide(
        &self,
        who: &Who,
        item: &(Kind, pb::CatalogItem),
        arguments: Option<&Value>,
    ) -> Outcome {
        let arguments =
            arguments.map(|arguments| self.complete(&item.1.name, arguments).to_string());
        self.policies.decide(&who.into(), item.0, &item.1, arguments.as_deref().map(str::as_bytes))
    }

    /// Says which policies decide an operation, and which could have.
    #[must_use]
    pub fn explain(
        &self,
        who: &Who,
        item: &(Kind, pb::CatalogItem),
        arguments: Option<&Value>,
    ) -> Explanation {
        let outcome = self.decide(who, item, arguments);
        let wrong = arguments.filter(|_| outcome.answer == Answer::Arguments);
        let wrong = wrong.map_or_else(Vec::new, |given| self.misfits(&item.1.name, given));
        let arguments =
            arguments.map(|arguments| self.complete(&item.1.name, arguments).to_string());
        let mut policies = self.said(&who.into(), item, arguments.as_deref().map(str::as_bytes));
        policies.sort_by_key(|policy| (policy.says, policy.permits, policy.id.clone()));
        let shadow = outcome.shadow.map(|shadow| shadow.answer);
        Explanation { answer: outcome.answer, shadow, policies, arguments: wrong }
    }

    /// What is wrong with the arguments of an item, one by one.
    fn misfits(&self, item: &str, arguments: &Value) -> Vec<String> {
        let mut found = Vec::new();
        if let Some(input) = self.inputs.get(item) {
            misfits(input, arguments, "", &mut found);
        }
        found
    }

    /// What every policy says that is about an item.
    fn said(
        &self,
        identity: &Identity,
        (kind, wanted): &(Kind, pb::CatalogItem),
        arguments: Option<&[u8]>,
    ) -> Vec<Explained> {
        let policies = &self.policies;
        let index = &policies.index;
        let Some((_, item)) = policies.catalog.find(*kind, wanted) else { return Vec::new() };
        let Ok(caller) = Caller::new(identity, &policies.members, index, 0) else {
            return Vec::new();
        };
        let Ok(said) = policies.everything_said(&caller, item, arguments) else {
            return Vec::new();
        };
        let ids_of = |bucket: usize| index.bucket(bucket).ids();
        let fitting: BTreeSet<_> =
            index.slice(&item.groups, &caller.heads).flat_map(ids_of).collect();
        let all: BTreeSet<_> = index.all(&item.groups).flat_map(ids_of).collect();
        let says = |id: &str| {
            let said = said.iter().find(|said| AsRef::<str>::as_ref(&said.policy) == id);
            match said.map(|said| &said.verdict) {
                Some(Verdict::Satisfied) => (Says::Yes, None),
                Some(Verdict::Unknown) => (Says::Perhaps, None),
                Some(Verdict::Error(error)) => (Says::Error, Some(error.clone())),
                None if fitting.contains(id) => (Says::No, None),
                None => (Says::Others, None),
            }
        };
        all.into_iter().map(|id| self.explained(id, says(id))).collect()
    }

    fn explained(&self, id: &str, (says, error): (Says, Option<String>)) -> Explained {
        let meta = &self.policies.meta[&PolicyId::new(id)];
        Explained {
            id: meta.id.clone(),
            permits: meta.effect == Effect::Permit,
            shadow: meta.shadow,
            says,
            error,
            path: meta.path.clone(),
            line: meta.line,
            text: meta.text.clone(),
        }
    }

    /// Principals, groups and roles that the policies and the memberships name, as `(type, id)`.
    #[must_use]
    pub fn named(&self) -> BTreeSet<(String, String)> {
        let mut named: BTreeSet<_> = self.policies.members.named().collect();
        for (_, policies) in self.parsed() {
            named.extend(policies.iter().flat_map(|parsed| parsed.policy.entity_literals()));
        }
        let principals = ["Group", "Role", "Tenant", "User", "Workload"];
        let named = named
            .into_iter()
            .map(|uid| (uid.type_name().to_string(), uid.id().unescaped().to_owned()));
        named.filter(|(type_name, _)| principals.contains(&type_name.as_str())).collect()
    }

    /// Decides a recorded decision again.
    #[must_use]
    pub fn replay(&self, record: &DecisionRecord) -> Replayed {
        let Some(kind) = Kind::from_str_name(&record.operation) else { return Replayed::Same };
        let wanted = pb::CatalogItem {
            name: record.item.clone(),
            service: record.service.clone(),
            rpc: record.rpc.clone(),
            scopes: Vec::new(),
        };
        let identity = Identity::from(&Who::from(record));
        let arguments = record.arguments.as_ref().filter(|_| !record.arguments_redacted);
        let bytes = arguments.map(ToString::to_string);
        let outcome =
            self.policies.decide(&identity, kind, &wanted, bytes.as_deref().map(str::as_bytes));
        let were_given = record.argument_digest.is_some();
        if were_given && bytes.is_none() && outcome.answer == Answer::Perhaps {
            return Replayed::DependsOnArguments;
        }
        if outcome.answer == record.outcome { Replayed::Same } else { Replayed::Changed(outcome) }
    }
}

/// The types of every action's arguments.
fn inputs(sources: &Sources) -> HashMap<String, Value> {
    let mut inputs = HashMap::new();
    for source in &sources.schemas {
        let schema = SchemaFragment::from_cedarschema_str(&source.text);
        let Some(json) = schema.ok().and_then(|(fragment, _)| fragment.to_json_value().ok()) else {
            continue;
        };
        for (name, action) in json[""]["actions"].as_object().into_iter().flatten() {
            let input = &action["appliesTo"]["context"]["attributes"]["input"];
            inputs.insert(name.clone(), input.clone());
        }
    }
    inputs
}

/// Notes arguments that there are not, and those of another type.
fn misfits(schema: &Value, given: &Value, path: &str, found: &mut Vec<String>) {
    let (Some(attributes), Some(given)) = (schema["attributes"].as_object(), given.as_object())
    else {
        return;
    };
    for (name, value) in given {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        let Some(attribute) = attributes.get(name) else {
            let meant = suggest(name, attributes.keys().map(String::as_str));
            found.push(match meant {
                Some(meant) => format!("there is no argument {path:?}; did you mean {meant:?}?"),
                None => {
                    let known: Vec<_> = attributes.keys().map(String::as_str).collect();
                    format!("there is no argument {path:?}; there are {}", known.join(", "))
                }
            });
            continue;
        };
        let fits = match type_name(attribute) {
            Some("String") => value.is_string(),
            Some("Bool") => value.is_boolean(),
            Some("Long") => value.is_i64(),
            Some("Set") => value.is_array(),
            _ => attribute["attributes"].is_null() || value.is_object(),
        };
        if !fits {
            let expected = type_name(attribute).unwrap_or("record");
            found.push(format!("the argument {path:?} must be a {expected}, and is {value}"));
        }
        misfits(attribute, value, &path, found);
    }
}

/// Cedar's name of a type, but of a record.
fn type_name(schema: &Value) -> Option<&str> {
    let name = |key: &str| schema[key].as_str().map(|name| name.trim_start_matches("__cedar::"));
    match (name("type"), name("name")) {
        (Some("String"), _) | (_, Some("String")) => Some("String"),
        (Some("Boolean"), _) | (_, Some("Bool")) => Some("Bool"),
        (Some("Long"), _) | (_, Some("Long")) => Some("Long"),
        (Some("Set"), _) => Some("Set"),
        _ => None,
    }
}

/// The default arguments of an action, as protobuf has them: of each field that is always there.
fn default(schema: &Value) -> Option<Value> {
    if let Some(attributes) = schema["attributes"].as_object() {
        let required = attributes.iter().filter(|(_, of)| of["required"] != Value::Bool(false));
        let fields: Map<_, _> =
            required.filter_map(|(name, of)| Some((name.clone(), default(of)?))).collect();
        return Some(Value::Object(fields));
    }
    match type_name(schema)? {
        "String" => Some(Value::from("")),
        "Bool" => Some(Value::from(false)),
        "Long" => Some(Value::from(0)),
        "Set" => Some(Value::Array(Vec::new())),
        _ => None,
    }
}

/// `given` over `defaults`, in depth.
fn merged(defaults: &Value, given: &Value) -> Value {
    match (defaults, given) {
        (Value::Object(defaults), Value::Object(given)) => {
            let mut all = defaults.clone();
            for (name, value) in given {
                let value = defaults
                    .get(name)
                    .map_or_else(|| value.clone(), |default| merged(default, value));
                all.insert(name.clone(), value);
            }
            Value::Object(all)
        }
        _ => given.clone(),
    }
}
