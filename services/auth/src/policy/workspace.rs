//! Analysis of a policy folder for the command line.

use std::{
    collections::{BTreeSet, HashMap},
    path::{Path, PathBuf},
};

use cedar_policy::{Effect, PolicyId, SchemaFragment};
use drawbridge_config::policy::PrincipalSpec;
use drawbridge_proto::auth::v1::{self as pb, operation::Kind};
use serde::Serialize;
use serde_json::{Map, Value};

use super::{
    DecisionOutcome, Policies, PolicyDecision, PolicyError, Problem,
    caller::PolicyCaller,
    evaluate::Verdict,
    lint,
    load::{Loaded, Loader},
    source::{ParsedPolicy, PolicySource, PolicySources, parse},
    suggest,
};
use crate::Identity;

/// A policy folder that is analysed but not in force.
#[derive(Debug)]
pub struct PolicyWorkspace {
    policies: Policies,
    sources: PolicySources,
    warnings: Vec<Problem>,
    /// The types of each action's arguments, in the schema's JSON form.
    inputs: HashMap<String, Value>,
    /// The default arguments of each action.
    defaults: HashMap<String, Value>,
}

/// Why an operation is allowed or denied.
#[derive(Clone, Debug, Serialize)]
pub struct Explanation {
    /// The outcome.
    pub answer: DecisionOutcome,
    /// The outcome with shadow policies, if different.
    pub shadow: Option<DecisionOutcome>,
    /// The results of single policies: those that determine the outcome first, then others on this
    /// item.
    pub policies: Vec<Explained>,
    /// Why the arguments do not match the schema, if they do not.
    pub arguments: Vec<String>,
}

/// The result of one policy, with its text.
#[derive(Clone, Debug, Serialize)]
pub struct Explained {
    /// Its `@id`.
    pub id: String,
    /// Whether it is a permit rather than a forbid.
    pub permits: bool,
    /// Whether it is annotated `@shadow`.
    pub shadow: bool,
    /// Its result.
    #[serde(rename = "says")]
    pub contribution: Contribution,
    /// Why it could not be evaluated.
    pub error: Option<String>,
    /// Its file.
    pub path: PathBuf,
    /// The line on which it starts.
    pub line: usize,
    /// Its text.
    pub text: String,
}

/// How a policy contributes to the decision on an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Contribution {
    /// It could not be evaluated.
    Error,
    /// It applies.
    #[serde(rename = "yes")]
    Applies,
    /// It depends on the arguments.
    Conditional,
    /// Its scope matches but its conditions are false.
    #[serde(rename = "no")]
    DoesNotApply,
    /// Its scope matches this item but not this caller.
    #[serde(rename = "others")]
    OtherCallers,
}

impl PolicyWorkspace {
    /// Loads the folder `root`.
    ///
    /// # Errors
    /// If the policies are invalid. The error lists all problems.
    pub fn open(root: &Path) -> Result<Self, PolicyError> {
        Self::load(PolicySources::read(root)?, &mut Loader::default())
    }

    /// Builds policies from files.
    pub(super) fn load(sources: PolicySources, loader: &mut Loader) -> Result<Self, PolicyError> {
        let Loaded { policies, warnings } = loader.load(&sources)?;
        let inputs = inputs(&sources);
        let defaults =
            inputs.iter().filter_map(|(name, input)| Some((name.clone(), default(input)?)));
        let defaults = defaults.collect();
        Ok(Self { policies, sources, warnings, inputs, defaults })
    }

    /// The policies, to put them in force.
    pub(super) fn into_loaded(self) -> Loaded {
        // Callers in cases are not those of the mesh.
        self.policies.callers.invalidate_all();
        Loaded { policies: self.policies, warnings: self.warnings }
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

    /// Whether there are no policies.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.policies.meta.is_empty()
    }

    /// Warnings about valid policies.
    #[must_use]
    pub fn warnings(&self) -> Vec<Problem> {
        let parsed = self.parsed();
        let lints = parsed.iter().flat_map(|(text, policies)| {
            policies.iter().flat_map(move |policy| lint::lint(text, policy))
        });
        self.warnings.iter().cloned().chain(lints).collect()
    }

    /// Membership files.
    pub(super) fn members(&self) -> impl Iterator<Item = &PolicySource> {
        self.sources.members.iter()
    }

    pub(super) fn parsed(&self) -> Vec<(&str, Vec<ParsedPolicy>)> {
        let sources = self.sources.policies.iter();
        sources.map(|source| (source.text.as_str(), parse(source).unwrap_or_default())).collect()
    }

    /// The tool, resource or prompt with this name.
    #[must_use]
    pub fn item(&self, name: &str) -> Option<(Kind, pb::CatalogItem)> {
        self.policies.items().find(|(_, item)| item.name == name)
    }

    /// Adds defaults for omitted arguments, as a tool service does.
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
        principal: &PrincipalSpec,
        item: &(Kind, pb::CatalogItem),
        arguments: Option<&Value>,
    ) -> PolicyDecision {
        let arguments =
            arguments.map(|arguments| self.complete(&item.1.name, arguments).to_string());
        let arguments = arguments.as_deref().map(str::as_bytes);
        self.policies.decide(&principal.into(), item.0, &item.1, arguments)
    }

    /// Explains which policies determine a decision, and which could have.
    #[must_use]
    pub fn explain(
        &self,
        principal: &PrincipalSpec,
        item: &(Kind, pb::CatalogItem),
        arguments: Option<&Value>,
    ) -> Explanation {
        let decision = self.decide(principal, item, arguments);
        let invalid = arguments.filter(|_| decision.outcome == DecisionOutcome::Arguments);
        let violations =
            invalid.map_or_else(Vec::new, |given| self.argument_errors(&item.1.name, given));
        let arguments =
            arguments.map(|arguments| self.complete(&item.1.name, arguments).to_string());
        let mut policies =
            self.contributions(&principal.into(), item, arguments.as_deref().map(str::as_bytes));
        policies.sort_by_key(|policy| (policy.contribution, policy.permits, policy.id.clone()));
        let shadow = decision.shadow.map(|shadow| shadow.outcome);
        Explanation { answer: decision.outcome, shadow, policies, arguments: violations }
    }

    /// The errors in the arguments of an item.
    fn argument_errors(&self, item: &str, arguments: &Value) -> Vec<String> {
        let mut found = Vec::new();
        if let Some(input) = self.inputs.get(item) {
            argument_errors(input, arguments, "", &mut found);
        }
        found
    }

    /// The contribution of every policy whose scope matches the item.
    fn contributions(
        &self,
        identity: &Identity,
        (kind, wanted): &(Kind, pb::CatalogItem),
        arguments: Option<&[u8]>,
    ) -> Vec<Explained> {
        let policies = &self.policies;
        let index = &policies.index;
        let Some((number, item)) = policies.catalog.find(*kind, wanted) else { return Vec::new() };
        let Ok(caller) = PolicyCaller::new(identity, &policies.members, index, 0) else {
            return Vec::new();
        };
        let Ok(verdicts) = policies.evaluate_all(&caller, item, arguments) else {
            return Vec::new();
        };
        let groups = policies.catalog.groups(number);
        let ids_of = |bucket: usize| index.bucket(bucket).ids();
        let for_caller: BTreeSet<_> =
            index.slice(groups, &caller.scope_keys).flat_map(ids_of).collect();
        let all: BTreeSet<_> = index.all(groups).flat_map(ids_of).collect();
        let contribution = |id: &str| {
            let made = verdicts.iter().find(|made| AsRef::<str>::as_ref(&made.policy) == id);
            match made.map(|made| &made.verdict) {
                Some(Verdict::Satisfied) => (Contribution::Applies, None),
                Some(Verdict::Unknown) => (Contribution::Conditional, None),
                Some(Verdict::Error(error)) => (Contribution::Error, Some(error.clone())),
                None if for_caller.contains(id) => (Contribution::DoesNotApply, None),
                None => (Contribution::OtherCallers, None),
            }
        };
        all.into_iter().map(|id| self.explained(id, contribution(id))).collect()
    }

    fn explained(
        &self,
        id: &str,
        (contribution, error): (Contribution, Option<String>),
    ) -> Explained {
        let meta = &self.policies.meta[&PolicyId::new(id)];
        Explained {
            id: meta.id.clone(),
            permits: meta.effect == Effect::Permit,
            shadow: meta.shadow,
            contribution,
            error,
            path: meta.path.clone(),
            line: meta.line,
            text: meta.text.clone(),
        }
    }

    /// Principals, groups and roles named in policies and memberships, as `(type, id)`.
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
}

/// The types of every action's arguments.
fn inputs(sources: &PolicySources) -> HashMap<String, Value> {
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

/// Collects unknown arguments and arguments of a wrong type.
fn argument_errors(schema: &Value, given: &Value, path: &str, found: &mut Vec<String>) {
    let (Some(attributes), Some(given)) = (schema["attributes"].as_object(), given.as_object())
    else {
        return;
    };
    for (name, value) in given {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        let Some(attribute) = attributes.get(name) else {
            let meant = suggest(name, attributes.keys().map(String::as_str));
            found.push(match meant {
                Some(meant) => format!("unknown argument {path:?}; did you mean {meant:?}?"),
                None => {
                    let known: Vec<_> = attributes.keys().map(String::as_str).collect();
                    format!("unknown argument {path:?}; known arguments: {}", known.join(", "))
                }
            });
            continue;
        };
        let is_valid = match type_name(attribute) {
            Some("String") => value.is_string(),
            Some("Bool") => value.is_boolean(),
            Some("Long") => value.is_i64(),
            Some("Set") => value.is_array(),
            _ => attribute["attributes"].is_null() || value.is_object(),
        };
        if !is_valid {
            let expected = type_name(attribute).unwrap_or("record");
            found.push(format!("the argument {path:?} must be a {expected}, not {value}"));
        }
        argument_errors(attribute, value, &path, found);
    }
}

/// Cedar's name of a type other than a record.
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

/// The default arguments of an action, as in protobuf: of each required field.
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

/// Merges `given` into `defaults` recursively.
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
