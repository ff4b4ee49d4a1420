//! Checks of names that no schema declares and that could be misspelt: issuers, groups and roles.

use std::{
    collections::{BTreeSet, HashMap},
    path::PathBuf,
};

use cedar_policy::EntityUid;
use drawbridge_config::{Place, policy::Case};

use super::{PolicyWorkspace, Problem, caller::is_principal, suggest};

impl PolicyWorkspace {
    /// Reports ids of principals in policies and memberships whose issuer is not one of `issuers`.
    #[must_use]
    pub fn check_issuers(&self, issuers: &[String]) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut check = |uid: &EntityUid, path: &PathBuf, text: &str, offset: usize, own: &str| {
            let id = uid.id().unescaped();
            let Some((issuer, _)) = id.split_once('#').filter(|_| is_principal(uid)) else {
                return;
            };
            if issuers.iter().any(|known| known == issuer) {
                return;
            }
            let within = own.find(id).unwrap_or_default();
            let problem = Problem::error(
                path,
                format!("{uid} names the issuer {issuer:?}, which is not configured"),
            );
            let problem = problem.at(text, offset + within, id.len());
            problems.push(problem.help(
                match suggest(issuer, issuers.iter().map(String::as_str)) {
                    Some(meant) => format!("did you mean {meant:?}?"),
                    None => format!("configured issuers: {}", issuers.join(", ")),
                },
            ));
        };
        for (text, policies) in self.parsed() {
            for parsed in policies {
                let meta = &parsed.meta;
                for uid in parsed.policy.entity_literals() {
                    check(&uid, &meta.path, text, parsed.offset, &meta.text);
                }
            }
        }
        let members: BTreeSet<_> = self.policies().members.named().filter(is_principal).collect();
        for uid in members {
            let source = self.members().find(|source| source.text.contains(uid.id().unescaped()));
            if let Some(source) = source {
                check(&uid, &source.path, &source.text, 0, &source.text);
            }
        }
        problems
    }

    /// Warns of groups and roles named by one policy only, and by no membership and no test case.
    #[must_use]
    pub fn check_groups(&self, cases: &[(PathBuf, Place, Case)]) -> Vec<Problem> {
        let is_group =
            |uid: &EntityUid| matches!(uid.type_name().to_string().as_str(), "Group" | "Role");
        let mut named: HashMap<(String, String), usize> = HashMap::new();
        let mut count = |type_name: &str, id: &str| {
            *named.entry((type_name.to_owned(), id.to_owned())).or_default() += 1;
        };
        for uid in self.policies().members.named().filter(is_group) {
            count(&uid.type_name().to_string(), uid.id().unescaped());
        }
        for (_, _, case) in cases {
            case.principal.groups.iter().for_each(|group| count("Group", group));
            case.principal.roles.iter().for_each(|role| count("Role", role));
        }
        let parsed = self.parsed();
        let policies =
            parsed.iter().flat_map(|(text, policies)| policies.iter().map(move |one| (*text, one)));
        let groups: Vec<_> = policies
            .flat_map(|(text, parsed)| {
                let groups: BTreeSet<_> =
                    parsed.policy.entity_literals().into_iter().filter(is_group).collect();
                groups.into_iter().map(move |uid| (text, parsed, uid))
            })
            .collect();
        for (_, _, uid) in &groups {
            count(&uid.type_name().to_string(), uid.id().unescaped());
        }
        let unique = groups.iter().filter_map(|(text, parsed, uid)| {
            let (type_name, id) = (uid.type_name().to_string(), uid.id().unescaped());
            if named.get(&(type_name.clone(), id.to_owned())).is_some_and(|times| *times > 1) {
                return None;
            }
            let known =
                named.keys().filter(|(known, _)| *known == type_name).map(|(_, id)| id.as_str());
            let help = match suggest(id, known) {
                Some(meant) => format!("did you mean {type_name}::{meant:?}?"),
                None => "name it in a case in tests/ if it is correct".to_owned(),
            };
            let within = parsed.meta.text.find(&uid.to_string()).unwrap_or_default();
            let problem = Problem::warning(&parsed.meta.path, format!("nothing else names {uid}"));
            Some(problem.at(text, parsed.offset + within, uid.to_string().len()).help(help))
        });
        unique.collect()
    }
}
