//! Loading of policy files. All files are checked before any takes effect.

use std::{
    collections::{HashMap, hash_map::Entry},
    path::{Path, PathBuf},
    sync::Arc,
};

use cedar_policy::{Entities, Schema};
use drawbridge_proto::auth::v1 as pb;
use moka::sync::Cache;

use super::{
    PARTIAL_DECISIONS_IDLE, PARTIAL_DECISIONS_MAX, Policies,
    caller::PolicyCaller,
    catalog::{Catalog, Items},
    check::PolicyChecker,
    evaluate::PolicySets,
    index::PolicyIndex,
    members::{Memberships, source_chain},
    problem::{PolicyError, Problem, Severity},
    schema::KnownSchema,
    source::{ParsedPolicy, PolicySource, PolicySources, parse},
};
use crate::Identity;

/// Loads a policy folder repeatedly, and skips checks of unchanged policies.
#[derive(Debug, Default)]
pub(super) struct Loader {
    /// The files as last parsed.
    parsed: HashMap<PathBuf, (String, Vec<ParsedPolicy>)>,
    schema: KnownSchema,
    checker: PolicyChecker,
    catalog: Option<KnownCatalog>,
}

/// The catalog as last read.
#[derive(Debug)]
struct KnownCatalog {
    sources: Vec<PolicySource>,
    schema: Arc<Schema>,
    items: Arc<Items>,
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
        let schema = self.schema.load(&sources.schemas);
        let mut policies = self.parse(&sources.policies, &mut problems);
        let schema = match schema {
            Ok(schema) => schema,
            Err(invalid) => {
                problems.extend(invalid);
                return Err(PolicyError(problems));
            }
        };
        problems.extend(duplicate_ids(&policies, &sources.policies));
        self.checker.use_schema(&self.schema);
        problems.extend(self.checker.check(&schema, &sources.policies, &mut policies));

        let index = PolicyIndex::new(&policies);
        let items = or_problems(self.items(&sources.catalog, &schema), &mut problems);
        let catalog = Catalog::new(items, &index);
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

    /// The items of the catalog.
    fn items(
        &mut self,
        sources: &[PolicySource],
        schema: &Arc<Schema>,
    ) -> Result<Arc<Items>, Vec<Problem>> {
        let known = self.catalog.as_ref();
        let is_same =
            |known: &&KnownCatalog| known.sources == sources && Arc::ptr_eq(&known.schema, schema);
        if let Some(known) = known.filter(is_same) {
            return Ok(Arc::clone(&known.items));
        }
        let items = Arc::new(Items::load(sources, schema)?);
        let (sources, schema) = (sources.to_vec(), Arc::clone(schema));
        self.catalog = Some(KnownCatalog { sources, schema, items: Arc::clone(&items) });
        Ok(items)
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
        schema: Arc<Schema>,
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
