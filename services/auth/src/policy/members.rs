//! Memberships in groups and roles beyond those in tokens: `policies/entities/*.json`.

use std::{
    collections::{HashMap, HashSet},
    path::Path,
};

use cedar_policy::{Entities, Entity, EntityUid, Schema};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{problem::Problem, source::PolicySource, uid};

/// Memberships that are not in tokens.
#[derive(Debug, Default)]
pub(super) struct Memberships {
    /// Groups and roles of each principal.
    of_principals: HashMap<EntityUid, HashSet<EntityUid>>,
    /// Groups and roles with their ancestors.
    groups: Entities,
}

/// An entity in Cedar's JSON form. Only its parents may be given.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Member {
    uid: Uid,
    #[serde(default)]
    attrs: serde_json::Map<String, serde_json::Value>,
    #[serde(default)]
    parents: Vec<Uid>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Uid {
    #[serde(rename = "type")]
    type_name: String,
    id: String,
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
            let entities: Vec<&RawValue> = match serde_json::from_str(&source.text) {
                Ok(entities) => entities,
                Err(error) => {
                    problems.push(at_json_error(source, "entities", &error));
                    continue;
                }
            };
            for entity in entities {
                if let Err(message) = parsed.add(entity.get(), schema) {
                    let (offset, length) = source.span_of(entity);
                    let problem = Problem::error(&source.path, message);
                    problems.push(problem.at(&source.text, offset, length));
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
    fn add(&mut self, json: &str, schema: &Schema) -> Result<(), String> {
        let member: Member = serde_json::from_str(json).map_err(|error| without_place(&error))?;
        let Member { uid: Uid { type_name, id }, attrs, parents } = member;
        if !attrs.is_empty() {
            return Err("attributes come from the token; only parents may be given here".to_owned());
        }
        // The token determines the tenant: tool services trust the token.
        if let Some(parent) =
            parents.iter().find(|parent| !matches!(&*parent.type_name, "Group" | "Role"))
        {
            return Err(format!("a parent must be a Group or a Role, not {}", parent.type_name));
        }
        let parents = parents.iter().map(|parent| uid(&parent.type_name, &parent.id));
        match type_name.as_str() {
            "User" | "Workload" if !id.contains('#') => {
                Err(format!("the id of a {type_name} is <issuer>#<subject>"))
            }
            "User" | "Workload" => {
                self.of_principals.entry(uid(&type_name, &id)).or_default().extend(parents);
                Ok(())
            }
            "Group" | "Role" => {
                let group = uid(&type_name, &id);
                let entity = Entity::new_no_attrs(group.clone(), parents.collect());
                Entities::from_entities([entity.clone()], Some(schema))
                    .map_err(|error| source_chain(&error))?;
                self.of_groups.entry(group).or_default().extend(entity.into_inner().2);
                Ok(())
            }
            _ => Err(format!("a member must be a User, Workload, Group or Role, not {type_name}")),
        }
    }
}

pub(super) fn at_json_error(
    source: &PolicySource,
    what: &str,
    error: &serde_json::Error,
) -> Problem {
    let before: usize =
        source.text.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum();
    let message = format!("this is not a JSON list of {what}: {}", without_place(error));
    let problem = Problem::error(&source.path, message);
    problem.at(&source.text, before + error.column().saturating_sub(1), 1)
}

/// A serde message without its position, which is reported separately.
pub(super) fn without_place(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.split(" at line ").next().unwrap_or_default().to_owned()
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
