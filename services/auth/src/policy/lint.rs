use cedar_policy::{ActionConstraint, Effect, PrincipalConstraint, ResourceConstraint};

use super::{problem::Problem, source::ParsedPolicy};

/// Annotations that mean something here, or are there for people.
const ANNOTATIONS: [&str; 3] = ["id", "shadow", "description"];

/// What looks wrong with a policy that is valid.
pub(super) fn lint(text: &str, parsed: &ParsedPolicy) -> Vec<Problem> {
    let ParsedPolicy { policy, meta, offset, .. } = parsed;
    let own = meta.text.as_str();
    let warning = |message: String, needle: &str| {
        let within = own.find(needle).unwrap_or_default();
        Problem::warning(&meta.path, message).at(text, offset + within, needle.len())
    };
    let mut problems = Vec::new();
    for (name, _) in policy.annotations().filter(|(name, _)| !ANNOTATIONS.contains(name)) {
        let message = format!("the annotation @{name} means nothing here");
        let known = ANNOTATIONS.map(|name| format!("@{name}")).join(", ");
        problems.push(warning(message, &format!("@{name}")).help(format!("there are {known}")));
    }
    let unscoped = policy.principal_constraint() == PrincipalConstraint::Any
        && policy.action_constraint() == ActionConstraint::Any
        && policy.resource_constraint() == ResourceConstraint::Any;
    if unscoped {
        let (effect, all) = match meta.effect {
            Effect::Permit => ("permit", "permits"),
            Effect::Forbid => ("forbid", "forbids"),
        };
        let message = if policy.has_non_scope_constraint() {
            format!(
                "the policy {:?} has no scope: it is evaluated for every caller and every item",
                meta.id
            )
        } else {
            format!("the policy {:?} {all} everything to everybody", meta.id)
        };
        let help = "say in its scope whom or what it is about, such as `resource is Tool`";
        problems.push(warning(message, effect).help(help));
    }
    problems
}
