//! From files to policies in force: all of it is checked before any of it is used.

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
    Policies, STANDINGS_IDLE, STANDINGS_MAX,
    caller::Caller,
    catalog::Catalog,
    check::Checks,
    evaluate::Sets,
    head::Index,
    members::{Members, source_chain},
    problem::{PolicyError, Problem, Severity},
    source::{ParsedPolicy, Source, Sources, parse},
};
use crate::Identity;

/// Loads a policy folder again and again, and does not check again what has not changed.
#[derive(Debug, Default)]
pub(super) struct Loader {
    /// The files as they were parsed last.
    parsed: HashMap<PathBuf, (String, Vec<ParsedPolicy>)>,
    checks: Checks,
}

/// Policies that can be used.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) policies: Policies,
    pub(super) warnings: Vec<Problem>,
}

impl Loader {
    /// Makes policies of what was read.
    pub(super) fn load(&mut self, sources: &Sources) -> Result<Loaded, PolicyError> {
        let mut problems = Vec::new();
        let schema = load_schema(&sources.schemas);
        let mut policies = self.parse(&sources.policies, &mut problems);
        let schema = match schema {
            Ok(schema) => schema,
            Err(wrong) => {
                problems.extend(wrong);
                return Err(PolicyError(problems));
            }
        };
        problems.extend(twice(&policies, &sources.policies));
        self.checks.use_schema(&sources.schemas);
        problems.extend(self.checks.check(&schema, &sources.policies, &mut policies));

        let index = Index::new(&policies);
        let catalog = or_problems(Catalog::load(&sources.catalog, &schema, &index), &mut problems);
        let members = or_problems(Members::load(&sources.members, &schema), &mut problems);
        if let Err(message) = knows_principals(&schema) {
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

    fn parse(&mut self, sources: &[Source], problems: &mut Vec<Problem>) -> Vec<ParsedPolicy> {
        let mut before = std::mem::take(&mut self.parsed);
        for source in sources {
            let known = before.remove(&source.path).filter(|(text, _)| *text == source.text);
            match known.map_or_else(|| parse(source), |(_, policies)| Ok(policies)) {
                Ok(policies) => {
                    self.parsed.insert(source.path.clone(), (source.text.clone(), policies));
                }
                Err(wrong) => problems.extend(wrong),
            }
        }
        let in_order = sources.iter().filter_map(|source| self.parsed.get(&source.path));
        in_order.flat_map(|(_, policies)| policies).cloned().collect()
    }
}

/// `@id`s that occur twice.
fn twice(policies: &[ParsedPolicy], sources: &[Source]) -> Vec<Problem> {
    let mut homes = HashMap::new();
    let mut problems = Vec::new();
    for policy in policies {
        let meta = &policy.meta;
        match homes.entry(&meta.id) {
            Entry::Vacant(entry) => {
                entry.insert(meta);
            }
            Entry::Occupied(entry) => {
                let (path, line) = (entry.get().path.display(), entry.get().line);
                let message = format!("@id({:?}) stands at {path}:{line} too", meta.id);
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

fn load_schema(sources: &[Source]) -> Result<Schema, Vec<Problem>> {
    let mut problems = Vec::new();
    let mut fragments = Vec::new();
    for Source { path, text } in sources {
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
        let mut problem = Problem::error(path, format!("the schemas do not fit together: {error}"));
        problem.help = error.help().map(|help| help.to_string());
        vec![problem]
    })
}

fn or_problems<T: Default>(result: Result<T, Vec<Problem>>, problems: &mut Vec<Problem>) -> T {
    result.unwrap_or_else(|wrong| {
        problems.extend(wrong);
        T::default()
    })
}

/// Whether the base schema has principals as they are made here.
fn knows_principals(schema: &Schema) -> Result<(), String> {
    for workload in [false, true] {
        let some = || vec!["some".to_owned()];
        let principal =
            pb::Principal { tenant: "some".to_owned(), scopes: some(), ..pb::Principal::default() };
        let email = Some("some".to_owned());
        let identity =
            Identity { principal, groups: some(), roles: some(), email, mfa: false, workload };
        let caller = Caller::new(&identity, &Members::default(), &Index::default(), 0);
        let entity = caller.map_err(|error| error.to_string())?.entity;
        Entities::from_entities([entity], Some(schema)).map_err(|error| {
            format!("principals do not fit the schema: {}", source_chain(&error))
        })?;
    }
    Ok(())
}

impl Policies {
    /// Loads the folder `root`.
    ///
    /// # Errors
    /// When a file cannot be read, does not parse, does not validate strictly against the schema, or a
    /// policy has no `@id` of its own: all that is wrong.
    pub fn load(root: &Path) -> Result<Self, PolicyError> {
        let sources = Sources::read(root)?;
        let Loaded { policies, warnings } = Loader::default().load(&sources)?;
        for warning in warnings {
            tracing::warn!(%warning, "policy");
        }
        Ok(policies)
    }

    /// Puts together what was checked.
    fn new(
        revision: String,
        schema: Schema,
        catalog: Catalog,
        members: Members,
        index: Index,
        policies: &[ParsedPolicy],
    ) -> Self {
        let mut all = Sets::default();
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
        let standings = u32::try_from(catalog.items().len()).unwrap_or(u32::MAX).max(1);
        let callers = Cache::builder()
            .weigher(move |_, _| standings)
            .max_capacity(STANDINGS_MAX)
            .time_to_idle(STANDINGS_IDLE)
            .build();
        Self { revision, schema, catalog, members, index, all, meta, callers }
    }
}
