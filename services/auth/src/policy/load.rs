//! Reads `policies/`: schemas, the catalog's entities and the policies, all of it checked before any of it
//! is used.

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
};

use cedar_policy::{
    Authorizer, Entities, Entity, EntityUid, EvalResult, Policy, PolicyId, PolicySet, Schema, SchemaFragment,
    ValidationMode, Validator,
};
use sha2::{Digest as _, Sha256};

use super::{Item, ItemKind, Policies, uid};

/// The policies are not right.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// A file could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is not what its name says.
    #[error("{}: {message}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// The files do not fit together.
    #[error("{0}")]
    Together(String),
}

/// A file of the policy folder.
struct Source {
    path: PathBuf,
    text: String,
}

impl Source {
    fn wrong(&self, message: impl Into<String>) -> PolicyError {
        PolicyError::File { path: self.path.clone(), message: message.into() }
    }
}

impl Policies {
    /// Loads the folder `root`.
    ///
    /// # Errors
    /// When a file cannot be read, does not parse, does not validate strictly against the schema, or a
    /// policy has no `@id` of its own.
    pub(crate) fn load(root: &Path) -> Result<Self, PolicyError> {
        let catalog = root.join("catalog");
        let mut schemas = sources(root, ".cedarschema")?;
        schemas.extend(sources(&catalog, ".cedarschema")?);
        let entities = sources(&catalog, ".entities.json")?;
        let policies = sources(root, ".cedar")?;
        let revision = revision([&schemas, &entities, &policies]);

        let schema = load_schema(&schemas)?;
        let entities = load_entities(&entities, &schema)?;
        let policies = load_policies(&policies, &schema)?;
        let items = catalog_items(&entities, &schema)?;
        tracing::info!(
            revision,
            policies = policies.num_of_policies(),
            items = items.len(),
            "policies loaded"
        );
        Ok(Self { authorizer: Authorizer::new(), policies, schema, items, revision })
    }
}

/// The files of `folder` whose names end with `suffix`, by name.
fn sources(folder: &Path, suffix: &str) -> Result<Vec<Source>, PolicyError> {
    let unreadable = |path: &Path| {
        let path = path.to_owned();
        move |source| PolicyError::Read { path, source }
    };
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(unreadable(folder))? {
        let path = entry.map_err(unreadable(folder))?.path();
        if path.to_string_lossy().ends_with(suffix) {
            paths.push(path);
        }
    }
    paths.sort_unstable();
    paths
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(&path).map_err(unreadable(&path))?;
            Ok(Source { path, text })
        })
        .collect()
}

fn revision(groups: [&Vec<Source>; 3]) -> String {
    let mut digest = Sha256::new();
    for source in groups.into_iter().flatten() {
        for part in [source.path.file_name().unwrap_or_default().as_encoded_bytes(), source.text.as_bytes()] {
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part);
        }
    }
    digest.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

fn load_schema(sources: &[Source]) -> Result<Schema, PolicyError> {
    let mut fragments = Vec::new();
    for source in sources {
        let (fragment, warnings) = SchemaFragment::from_cedarschema_str(&source.text)
            .map_err(|error| source.wrong(error.to_string()))?;
        for warning in warnings {
            tracing::warn!(path = %source.path.display(), %warning, "schema");
        }
        fragments.push(fragment);
    }
    Schema::from_schema_fragments(fragments)
        .map_err(|error| PolicyError::Together(format!("the schemas do not fit together: {error}")))
}

fn load_entities(sources: &[Source], schema: &Schema) -> Result<Entities, PolicyError> {
    let mut entities = Entities::empty();
    for source in sources {
        entities = entities
            .add_entities_from_json_str(&source.text, Some(schema))
            .map_err(|error| source.wrong(format!("{error:?}")))?;
    }
    Ok(entities)
}

fn load_policies(sources: &[Source], schema: &Schema) -> Result<PolicySet, PolicyError> {
    let mut policies = PolicySet::new();
    let mut homes = HashMap::new();
    for source in sources {
        let parsed: PolicySet = source.text.parse().map_err(|error| source.wrong(format!("{error}")))?;
        if parsed.templates().next().is_some() {
            return Err(source.wrong("templates are not used here"));
        }
        for policy in parsed.policies() {
            let policy = with_own_id(source, policy)?;
            if let Some(other) = homes.insert(policy.id().clone(), &source.path) {
                let message = format!("@id({:?}) stands in {} too", policy.id().to_string(), other.display());
                return Err(source.wrong(message));
            }
            policies.add(policy).map_err(|error| source.wrong(error.to_string()))?;
        }
    }
    let result = Validator::new(schema.clone()).validate(&policies, ValidationMode::Strict);
    let errors: Vec<_> = result.validation_errors().map(ToString::to_string).collect();
    if !errors.is_empty() {
        return Err(PolicyError::Together(format!("the policies are not valid: {}", errors.join("; "))));
    }
    for warning in result.validation_warnings() {
        tracing::warn!(%warning, "policy");
    }
    Ok(policies)
}

/// Cedar names policies by their order; decisions and audit need a name that stays.
fn with_own_id(source: &Source, policy: &Policy) -> Result<Policy, PolicyError> {
    let id = policy.annotation("id").filter(|id| !id.is_empty());
    let id = id.ok_or_else(|| source.wrong(format!("this policy has no @id:\n{policy}")))?;
    Ok(policy.new_id(PolicyId::new(id)))
}

fn catalog_items(
    entities: &Entities,
    schema: &Schema,
) -> Result<HashMap<(ItemKind, String), Item>, PolicyError> {
    let actions = schema
        .action_entities()
        .map_err(|error| PolicyError::Together(format!("the schema's actions are broken: {error}")))?;
    let mut items = HashMap::new();
    for entity in entities.iter() {
        let type_name = entity.uid().type_name().to_string();
        let Some(kind) = ItemKind::ALL.into_iter().find(|kind| kind.type_name() == type_name) else {
            continue;
        };
        let name = entity.uid().id().unescaped().to_owned();
        let item = catalog_item(entity, &name, entities, &actions)
            .map_err(|what| PolicyError::Together(format!("{type_name}::{name:?} in the catalog {what}")))?;
        items.insert((kind, name), item);
    }
    Ok(items)
}

fn catalog_item(
    entity: &Entity,
    name: &str,
    entities: &Entities,
    actions: &Entities,
) -> Result<Item, &'static str> {
    let rpc = text(entity, "rpc").ok_or("has no rpc")?;
    let service = entities
        .ancestors(&entity.uid())
        .and_then(|mut ancestors| ancestors.find(|uid| uid.type_name().to_string() == "Service"))
        .ok_or("is in no service")?;
    let action = uid("Action", name);
    let known = actions.get(&action).ok_or("has no action of its name in a schema")?;
    let service_entity = entities.get(service).ok_or("is in a service that the catalog does not have")?;
    let action_groups = with_ancestors(actions, &action);
    Ok(Item {
        rpc,
        completion_rpc: text(entity, "completion_rpc"),
        watch_rpc: text(entity, "watch_rpc"),
        service: service.id().unescaped().to_owned(),
        action: known.uid(),
        uid: entity.uid(),
        entities: [entity.clone(), service_entity.clone()].into_iter().chain(action_groups).collect(),
    })
}

fn text(entity: &Entity, attribute: &str) -> Option<String> {
    match entity.attr(attribute) {
        Some(Ok(EvalResult::String(text))) => Some(text),
        _ => None,
    }
}

fn with_ancestors(entities: &Entities, uid: &EntityUid) -> Vec<Entity> {
    let ancestors = entities.ancestors(uid).into_iter().flatten();
    std::iter::once(uid).chain(ancestors).filter_map(|uid| entities.get(uid)).cloned().collect()
}
