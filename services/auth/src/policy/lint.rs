use cedar_policy::{ActionConstraint, Effect, PrincipalConstraint, ResourceConstraint};

use super::{problem::Problem, source::ParsedPolicy};

/// Annotations with a meaning here or for readers.
const ANNOTATIONS: [&str; 3] = ["id", "shadow", "description"];

/// Warnings about a valid policy.
pub(super) fn lint(text: &str, parsed: &ParsedPolicy) -> Vec<Problem> {
    let ParsedPolicy { policy, meta, offset, .. } = parsed;
    let own = meta.text.as_str();
    let warning = |message: String, needle: &str| {
        let within = own.find(needle).unwrap_or_default();
        Problem::warning(&meta.path, message).at(text, offset + within, needle.len())
    };
    let mut problems = Vec::new();
    for (name, _) in policy.annotations().filter(|(name, _)| !ANNOTATIONS.contains(name)) {
        let message = format!("the annotation @{name} is unknown and has no effect");
        let known = ANNOTATIONS.map(|name| format!("@{name}")).join(", ");
        problems.push(
            warning(message, &format!("@{name}")).help(format!("known annotations: {known}")),
        );
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
            format!("the policy {:?} {all} everything to every caller", meta.id)
        };
        let help =
            "restrict its scope to a principal, action or resource, such as `resource is Tool`";
        problems.push(warning(message, effect).help(help));
    }
    problems
}
