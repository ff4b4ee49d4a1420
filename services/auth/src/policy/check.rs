//! Strict validation. It takes milliseconds per policy, so results are cached.

use std::{collections::HashMap, num::NonZero, thread};

use cedar_policy::{EntityUid, Policy, PolicySet, Schema, ValidationMode, Validator};
use miette::Diagnostic;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::{
    caller::is_principal,
    problem::{Problem, Severity},
    source::{ParsedPolicy, PolicySource},
    values::{EnumMismatch, EnumValues},
};

/// Results of checks by policy text, for one schema.
#[derive(Debug, Default)]
pub(super) struct PolicyChecker {
    schemas: Vec<PolicySource>,
    values: EnumValues,
    known: HashMap<[u8; 32], CheckResult>,
}

/// The result of checking a policy.
#[derive(Clone, Debug)]
struct CheckResult {
    findings: Vec<Finding>,
    reads_arguments: bool,
}

/// A problem of a policy.
#[derive(Clone, Debug)]
struct Finding {
    problem: Problem,
    /// Offset from the start of the policy, and length, in bytes.
    place: (usize, usize),
}

impl PolicyChecker {
    /// Drops all cached results if the schemas changed.
    pub(super) fn use_schema(&mut self, schemas: &[PolicySource]) {
        if self.schemas != schemas {
            self.schemas = schemas.to_vec();
            self.values = EnumValues::from_schemas(schemas);
            self.known.clear();
        }
    }

    /// Checks policies, determines which of them read the arguments, and returns their problems.
    pub(super) fn check(
        &mut self,
        schema: &Schema,
        sources: &[PolicySource],
        policies: &mut [ParsedPolicy],
    ) -> Vec<Problem> {
        let mut before = std::mem::take(&mut self.known);
        let digests: Vec<[u8; 32]> =
            policies.iter().map(|policy| Sha256::digest(&policy.meta.text).into()).collect();
        let with_digests = digests.iter().zip(&*policies);
        let new: Vec<_> =
            with_digests.filter(|(digest, _)| !before.contains_key(*digest)).collect();
        before.extend(check_all(&new, schema, &self.values));
        let mut problems = Vec::new();
        for (digest, policy) in digests.iter().zip(policies) {
            let Some(checked) = before.get(digest) else {
                problems
                    .push(Problem::error(&policy.meta.path, "the policies could not be validated"));
                continue;
            };
            policy.reads_arguments = checked.reads_arguments;
            let source = sources.iter().find(|source| source.path == policy.meta.path);
            problems.extend(checked.findings.iter().map(|finding| finding.in_file(policy, source)));
            self.known.insert(*digest, checked.clone());
        }
        problems
    }
}

/// Checks policies on all processors.
fn check_all(
    new: &[(&[u8; 32], &ParsedPolicy)],
    schema: &Schema,
    values: &EnumValues,
) -> Vec<([u8; 32], CheckResult)> {
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    let share = new.len().div_ceil(threads).max(1);
    let check_share = |share: &[(&[u8; 32], &ParsedPolicy)]| {
        let validator = Validator::new(schema.clone());
        share
            .iter()
            .map(|(digest, policy)| (**digest, check(&validator, policy, values)))
            .collect::<Vec<_>>()
    };
    thread::scope(|scope| {
        let shares: Vec<_> =
            new.chunks(share).map(|share| scope.spawn(move || check_share(share))).collect();
        shares.into_iter().filter_map(|share| share.join().ok()).flatten().collect()
    })
}

fn check(validator: &Validator, parsed: &ParsedPolicy, values: &EnumValues) -> CheckResult {
    let path = &parsed.meta.path;
    let whole = (0, parsed.meta.text.len());
    // If unknown, assume that the policy reads them.
    let json = parsed.policy.to_json();
    let reads_arguments = json.as_ref().map_or(true, names_context);
    let set = match PolicySet::from_policies([parsed.policy.clone()]) {
        Ok(set) => set,
        Err(error) => {
            let finding =
                Finding { problem: Problem::error(path, error.to_string()), place: whole };
            return CheckResult { findings: vec![finding], reads_arguments };
        }
    };
    let result = validator.validate(&set, ValidationMode::Strict);
    let finding = |diagnostic: &dyn Diagnostic, severity| {
        let label = diagnostic.labels().and_then(|mut labels| labels.next());
        let place = label.map(|label| (label.offset().saturating_sub(parsed.offset), label.len()));
        let problem = Problem { severity, ..Problem::from_cedar(path, "", diagnostic) };
        Finding { problem, place: place.unwrap_or(whole) }
    };
    let errors = merge(result.validation_errors().map(|error| finding(error, Severity::Error)));
    let warnings = result.validation_warnings().map(|warning| finding(warning, Severity::Warning));
    let mut findings: Vec<_> = errors.into_iter().chain(warnings).collect();
    findings.extend(json.iter().flat_map(|json| values.mismatches(json)).map(|mismatch| {
        let EnumMismatch { text, message, help } = mismatch;
        Finding::about(
            parsed,
            &format!("{text:?}"),
            Problem { help, ..Problem::error(path, message) },
        )
    }));
    findings.extend(ids_without_issuer(&parsed.policy).map(|uid| {
        let problem =
            Problem::error(path, format!("{uid} names no issuer, so it matches no caller"));
        let help = format!("the id of a {0} is {0}::\"<issuer>#<subject>\"", uid.type_name());
        Finding::about(parsed, &uid.to_string(), problem.help(help))
    }));
    CheckResult { findings, reads_arguments }
}

/// Merges errors at the same place: Cedar checks a policy once for each action in its scope.
fn merge(errors: impl Iterator<Item = Finding>) -> Vec<Finding> {
    let mut merged: Vec<(Finding, usize)> = Vec::new();
    for error in errors {
        match merged.iter_mut().find(|(known, _)| known.place == error.place) {
            Some((_, times)) => *times += 1,
            None => merged.push((error, 1)),
        }
    }
    let advise = |(mut finding, times): (Finding, usize)| {
        if times > 1 {
            let advice = format!(
                "this applies to {times} of the actions in the scope: name the intended \
                 action, such as `action == Action::\"…\"`"
            );
            finding.problem = finding.problem.help(advice);
        }
        finding
    };
    merged.into_iter().map(advise).collect()
}

/// Principals in a policy without their issuers: tokens always have both.
fn ids_without_issuer(policy: &Policy) -> impl Iterator<Item = EntityUid> {
    let named = policy.entity_literals().into_iter();
    named.filter(|uid| is_principal(uid) && !uid.id().unescaped().contains('#'))
}

impl Finding {
    /// A finding at the first occurrence of `needle` in a policy's text.
    fn about(parsed: &ParsedPolicy, needle: &str, problem: Problem) -> Self {
        let text = &parsed.meta.text;
        let place = text.find(needle).map_or((0, text.len()), |offset| (offset, needle.len()));
        Self { problem, place }
    }

    /// The problem at its place in the current files.
    fn in_file(&self, policy: &ParsedPolicy, source: Option<&PolicySource>) -> Problem {
        let problem =
            Problem { path: policy.meta.path.clone(), place: None, ..self.problem.clone() };
        let (offset, length) = self.place;
        match source {
            Some(source) => problem.at(&source.text, policy.offset + offset, length),
            None => problem,
        }
    }
}

/// Whether the variable `context` occurs in a policy's JSON form.
fn names_context(json: &Value) -> bool {
    match json {
        Value::Object(fields) => fields
            .iter()
            .any(|(key, value)| (key == "Var" && value == "context") || names_context(value)),
        Value::Array(items) => items.iter().any(names_context),
        _ => false,
    }
}
