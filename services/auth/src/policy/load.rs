//! Loading of policy files. All files are checked before any takes effect.

use std::{
    collections::{HashMap, hash_map::Entry},
    path::{Path, PathBuf},
    sync::Arc,
};

use cedar_policy::{Entities, Schema, SchemaFragment};
use drawbridge_proto::auth::v1 as pb;
use miette::Diagnostic;
use moka::sync::Cache;

use super::{
    PARTIAL_DECISIONS_IDLE, PARTIAL_DECISIONS_MAX, Policies,
    caller::PolicyCaller,
    catalog::Catalog,
    check::PolicyChecker,
    evaluate::PolicySets,
    index::PolicyIndex,
    members::{Memberships, source_chain},
    problem::{PolicyError, Problem, Severity},
    source::{ParsedPolicy, PolicySource, PolicySources, parse},
};
use crate::Identity;

/// Loads a policy folder repeatedly, and skips checks of unchanged policies.
#[derive(Debug, Default)]
pub(super) struct Loader {
    /// The files as last parsed.
    parsed: HashMap<PathBuf, (String, Vec<ParsedPolicy>)>,
    checker: PolicyChecker,
}

/// Valid policies with their warnings.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) policies: Policies,
    pub(super) warnings: Vec<Problem>,
}

impl Loader {
    /// Builds policies from files.
    pub(super) fn load(&mut self, sources: &PolicySources) -> Result<Loaded, PolicyError> {
        let mut problems = Vec::new();
        let schema = load_schema(&sources.schemas);
        let mut policies = self.parse(&sources.policies, &mut problems);
        let schema = match schema {
            Ok(schema) => schema,
            Err(invalid) => {
                problems.extend(invalid);
                return Err(PolicyError(problems));
            }
        };
        problems.extend(duplicate_ids(&policies, &sources.policies));
        self.checker.use_schema(&sources.schemas);
        problems.extend(self.checker.check(&schema, &sources.policies, &mut policies));

        let index = PolicyIndex::new(&policies);
        let catalog = or_problems(Catalog::load(&sources.catalog, &schema, &index), &mut problems);
        let members = or_problems(Memberships::load(&sources.members, &schema), &mut problems);
        if let Err(message) = check_principals(&schema) {
            let path =
                sources.schemas.first().map_or(Path::new("mcp.cedarschema"), |source| &source.path);
            problems.push(Problem::error(path, message));
        }
        let (warnings, errors): (Vec<_>, Vec<_>) =
            problems.into_iter().partition(|problem| problem.severity == Severity::Warning);
        if !errors.is_empty() {
            return Err(PolicyError(errors));
        }
        let policies =
            Policies::new(sources.revision(), schema, catalog, members, index, &policies);
        Ok(Loaded { policies, warnings })
    }

    fn parse(
        &mut self,
        sources: &[PolicySource],
        problems: &mut Vec<Problem>,
    ) -> Vec<ParsedPolicy> {
        let mut before = std::mem::take(&mut self.parsed);
        for source in sources {
            let known = before.remove(&source.path).filter(|(text, _)| *text == source.text);
            match known.map_or_else(|| parse(source), |(_, policies)| Ok(policies)) {
                Ok(policies) => {
                    self.parsed.insert(source.path.clone(), (source.text.clone(), policies));
                }
                Err(invalid) => problems.extend(invalid),
            }
        }
        let in_order = sources.iter().filter_map(|source| self.parsed.get(&source.path));
        in_order.flat_map(|(_, policies)| policies).cloned().collect()
    }
}

/// Reports duplicate `@id`s.
fn duplicate_ids(policies: &[ParsedPolicy], sources: &[PolicySource]) -> Vec<Problem> {
    let mut first_uses = HashMap::new();
    let mut problems = Vec::new();
    for policy in policies {
        let meta = &policy.meta;
        match first_uses.entry(&meta.id) {
            Entry::Vacant(entry) => {
                entry.insert(meta);
            }
            Entry::Occupied(entry) => {
                let (path, line) = (entry.get().path.display(), entry.get().line);
                let message = format!("@id({:?}) is already used at {path}:{line}", meta.id);
                let problem = Problem::error(&meta.path, message);
                let source = sources.iter().find(|source| source.path == meta.path);
                problems.push(match source {
                    Some(source) => problem.at(&source.text, policy.offset, meta.text.len()),
                    None => problem,
                });
            }
        }
    }
    problems
}

fn load_schema(sources: &[PolicySource]) -> Result<Schema, Vec<Problem>> {
    let mut problems = Vec::new();
    let mut fragments = Vec::new();
    for PolicySource { path, text } in sources {
        match SchemaFragment::from_cedarschema_str(text) {
            Ok((fragment, warnings)) => {
                for warning in warnings {
                    tracing::warn!(path = %path.display(), %warning, "schema");
                }
                fragments.push(fragment);
            }
            Err(error) => problems.push(Problem::from_cedar(path, text, &error)),
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    Schema::from_schema_fragments(fragments).map_err(|error| {
        let path = sources.first().map_or(Path::new("mcp.cedarschema"), |source| &source.path);
        let mut problem =
            Problem::error(path, format!("the schemas contradict one another: {error}"));
        problem.help = error.help().map(|help| help.to_string());
        vec![problem]
    })
}

fn or_problems<T: Default>(result: Result<T, Vec<Problem>>, problems: &mut Vec<Problem>) -> T {
    result.unwrap_or_else(|invalid| {
        problems.extend(invalid);
        T::default()
    })
}

/// Checks that the base schema declares principals as auth creates them.
fn check_principals(schema: &Schema) -> Result<(), String> {
    for workload in [false, true] {
        let some = || vec!["some".to_owned()];
        let principal =
            pb::Principal { tenant: "some".to_owned(), scopes: some(), ..pb::Principal::default() };
        let email = Some("some".to_owned());
        let identity =
            Identity { principal, groups: some(), roles: some(), email, mfa: false, workload };
        let caller =
            PolicyCaller::new(&identity, &Memberships::default(), &PolicyIndex::default(), 0);
        let entity = caller.map_err(|error| error.to_string())?.entity;
        Entities::from_entities([entity], Some(schema)).map_err(|error| {
            format!("principals do not match the schema: {}", source_chain(&error))
        })?;
    }
    Ok(())
}

impl Policies {
    /// Loads the folder `root`.
    ///
    /// # Errors
    /// If a file cannot be read or parsed, does not validate strictly against the schema, or a
    /// policy has no unique `@id`. The error lists all problems.
    pub fn load(root: &Path) -> Result<Self, PolicyError> {
        let sources = PolicySources::read(root)?;
        let Loaded { policies, warnings } = Loader::default().load(&sources)?;
        for warning in warnings {
            tracing::warn!(%warning, "policy");
        }
        Ok(policies)
    }

    /// Combines checked parts.
    fn new(
        revision: String,
        schema: Schema,
        catalog: Catalog,
        members: Memberships,
        index: PolicyIndex,
        policies: &[ParsedPolicy],
    ) -> Self {
        let mut all = PolicySets::default();
        let mut meta = HashMap::new();
        for parsed in policies {
            all.add(&parsed.policy);
            meta.insert(parsed.policy.id().clone(), Arc::clone(&parsed.meta));
        }
        tracing::info!(
            revision,
            policies = policies.len(),
            items = catalog.items().len(),
            "policies loaded"
        );
        let items = u32::try_from(catalog.items().len()).unwrap_or(u32::MAX).max(1);
        let callers = Cache::builder()
            .weigher(move |_, _| items)
            .max_capacity(PARTIAL_DECISIONS_MAX)
            .time_to_idle(PARTIAL_DECISIONS_IDLE)
            .build();
        Self { revision, schema, catalog, members, index, all, meta, callers }
    }
}
