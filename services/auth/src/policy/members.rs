//! Memberships in groups and roles beyond those in tokens: `policies/entities/*.json`.

use std::{
    collections::{HashMap, HashSet},
    path::Path,
};

use cedar_policy::{Entities, Entity, EntityUid, Schema};
use drawbridge_config::policy::{EntityId, Member, read_members};

use super::{problem::Problem, source::PolicySource, uid};

/// Memberships that are not in tokens.
#[derive(Debug, Default)]
pub(super) struct Memberships {
    /// Groups and roles of each principal.
    of_principals: HashMap<EntityUid, HashSet<EntityUid>>,
    /// Groups and roles with their ancestors.
    groups: Entities,
}

/// Parents per entity, as in the files.
#[derive(Default)]
struct Parents {
    of_principals: HashMap<EntityUid, HashSet<EntityUid>>,
    of_groups: HashMap<EntityUid, HashSet<EntityUid>>,
}

impl Memberships {
    pub(super) fn load(sources: &[PolicySource], schema: &Schema) -> Result<Self, Vec<Problem>> {
        let mut parsed = Parents::default();
        let mut problems = Vec::new();
        for source in sources {
            let members = match read_members(&source.config_text()) {
                Ok(members) => members,
                Err(error) => {
                    problems.extend(Problem::of_file(&source.path, &error));
                    continue;
                }
            };
            for member in members {
                if let Err(message) = parsed.add(&member, schema) {
                    let span = member.uid.span();
                    let problem = Problem::error(&source.path, message);
                    problems.push(problem.at(&source.text, span.start, span.len()));
                }
            }
        }
        let Parents { of_principals, of_groups } = parsed;
        let groups =
            of_groups.into_iter().map(|(group, parents)| Entity::new_no_attrs(group, parents));
        match Entities::from_entities(groups, None) {
            Ok(groups) if problems.is_empty() => Ok(Self { of_principals, groups }),
            Ok(_) => Err(problems),
            Err(error) => {
                let path = sources
                    .first()
                    .and_then(|source| source.path.parent())
                    .unwrap_or(Path::new(""));
                problems.push(Problem::error(path, source_chain(&error)));
                Err(problems)
            }
        }
    }

    /// All groups and roles of a principal, given the `direct` ones from its token.
    pub(super) fn closure(
        &self,
        principal: &EntityUid,
        direct: impl IntoIterator<Item = EntityUid>,
    ) -> HashSet<EntityUid> {
        let mut all: HashSet<_> = direct.into_iter().collect();
        all.extend(self.of_principals.get(principal).into_iter().flatten().cloned());
        let above: Vec<_> =
            all.iter().filter_map(|group| self.groups.ancestors(group)).flatten().collect();
        let above: Vec<_> = above.into_iter().cloned().collect();
        all.extend(above);
        all
    }

    /// Every principal, group and role named here.
    pub(super) fn named(&self) -> impl Iterator<Item = EntityUid> {
        let parents =
            self.groups.iter().filter_map(|group| self.groups.ancestors(&group.uid())).flatten();
        let principals = self
            .of_principals
            .iter()
            .flat_map(|(principal, parents)| parents.iter().chain([principal]));
        self.groups.iter().map(Entity::uid).chain(parents.chain(principals).cloned())
    }
}

impl Parents {
    fn add(&mut self, member: &Member, schema: &Schema) -> Result<(), String> {
        let EntityId { type_name, id } = &*member.uid;
        let entity_uid = uid(type_name, id);
        let parents = member.parents.iter().map(|parent| uid(&parent.type_name, &parent.id));
        if matches!(type_name.as_str(), "User" | "Workload") {
            self.of_principals.entry(entity_uid).or_default().extend(parents);
            return Ok(());
        }
        let entity = Entity::new_no_attrs(entity_uid.clone(), parents.collect());
        Entities::from_entities([entity.clone()], Some(schema))
            .map_err(|error| source_chain(&error))?;
        self.of_groups.entry(entity_uid).or_default().extend(entity.into_inner().2);
        Ok(())
    }
}

/// An error with its sources: Cedar puts the details there.
pub(super) fn source_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
