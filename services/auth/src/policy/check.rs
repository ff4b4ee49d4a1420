//! Strict validation. It takes milliseconds per policy and thousands of tools, so it uses a part of
//! the schema where that suffices, and results are cached.

use std::{
    collections::HashMap,
    num::NonZero,
    sync::{Arc, OnceLock},
    thread,
};

use cedar_policy::{
    EntityUid, Policy, PolicySet, Schema, ValidationMode, ValidationResult, Validator,
};
use miette::Diagnostic;
use sha2::{Digest as _, Sha256};

use self::slice::{Distinctions, SchemaParts, Slice};
use super::{
    caller::is_principal,
    problem::{Problem, Severity},
    schema::KnownSchema,
    source::{ParsedPolicy, PolicySource},
    values::{EnumMismatch, EnumValues},
};

mod slice;

/// A SHA-256 digest.
type Digest = [u8; 32];

/// What a result depends on: the text of the policy, and the slice or the whole of the schema.
type Key = (Digest, Digest);

/// Checks policies again and again while they and the schema change.
#[derive(Debug, Default)]
pub(super) struct PolicyChecker {
    schema_digest: Digest,
    values: EnumValues,
    /// The schema in parts, if they are known.
    parts: Option<SchemaParts>,
    /// What each policy distinguishes, by its text.
    distinctions: HashMap<Digest, Arc<Distinctions>>,
    /// The slices of the schema by what they suffice for.
    slices: HashMap<Arc<Distinctions>, Option<Arc<Slice>>>,
    known: HashMap<Key, CheckResult>,
}

/// A policy to check.
#[derive(Clone, Debug)]
struct Task {
    text: Digest,
    reads_arguments: bool,
    slice: Option<Arc<Slice>>,
}

/// The result of checking a policy.
#[derive(Clone, Debug)]
struct CheckResult {
    findings: Vec<Finding>,
}

/// A problem of a policy.
#[derive(Clone, Debug)]
struct Finding {
    problem: Problem,
    /// Offset from the start of the policy, and length, in bytes.
    place: (usize, usize),
}

impl PolicyChecker {
    pub(super) fn use_schema(&mut self, schema: &KnownSchema) {
        if self.schema_digest != schema.digest() {
            self.schema_digest = schema.digest();
            self.values = EnumValues::from_fragments(schema.fragments());
            self.parts = SchemaParts::new(schema.fragments());
            self.slices.clear();
        }
    }

    /// Checks policies, determines which of them read the arguments, and returns their problems.
    pub(super) fn check(
        &mut self,
        schema: &Schema,
        sources: &[PolicySource],
        policies: &mut [ParsedPolicy],
    ) -> Vec<Problem> {
        let tasks = self.tasks(policies);
        let before = std::mem::take(&mut self.known);
        let mut results: Vec<_> = tasks.iter().map(|task| self.recall(task, &before)).collect();
        let new: Vec<_> = (0..policies.len()).filter(|number| results[*number].is_none()).collect();
        for (number, result) in self.check_all(&new, &tasks, policies, schema) {
            results[number] = Some(result);
        }
        let by_path: HashMap<_, _> = sources.iter().map(|source| (&source.path, source)).collect();
        let mut problems = Vec::new();
        for ((task, result), policy) in tasks.iter().zip(results).zip(policies) {
            policy.reads_arguments = task.reads_arguments;
            let Some((key, result)) = result else {
                problems
                    .push(Problem::error(&policy.meta.path, "the policies could not be validated"));
                continue;
            };
            let source = by_path.get(&policy.meta.path).copied();
            problems.extend(result.findings.iter().map(|finding| finding.in_file(policy, source)));
            self.known.insert(key, result);
        }
        problems
    }

    /// What is to be checked of each policy. Forgets what other policies distinguish.
    fn tasks(&mut self, policies: &[ParsedPolicy]) -> Vec<Task> {
        let mut before = std::mem::take(&mut self.distinctions);
        let mut slices = std::mem::take(&mut self.slices);
        let mut tasks = Vec::with_capacity(policies.len());
        for parsed in policies {
            let text: Digest = Sha256::digest(&parsed.meta.text).into();
            let distinctions = self.distinctions.entry(text).or_insert_with(|| {
                before.remove(&text).unwrap_or_else(|| Arc::new(Distinctions::of(&parsed.policy)))
            });
            let slice = self.slices.entry(Arc::clone(distinctions)).or_insert_with(|| {
                slices
                    .remove(distinctions)
                    .unwrap_or_else(|| Some(Arc::new(self.parts.as_ref()?.slice(distinctions)?)))
            });
            let reads_arguments = distinctions.reads_arguments;
            tasks.push(Task { text, reads_arguments, slice: slice.clone() });
        }
        tasks
    }

    fn recall(&self, task: &Task, known: &HashMap<Key, CheckResult>) -> Option<(Key, CheckResult)> {
        let of_slice = task.slice.as_ref().map(|slice| slice.digest);
        [of_slice, Some(self.schema_digest)].into_iter().flatten().find_map(|of_schema| {
            let key = (task.text, of_schema);
            known.get(&key).map(|result| (key, result.clone()))
        })
    }

    /// Checks policies on all processors.
    fn check_all(
        &self,
        new: &[usize],
        tasks: &[Task],
        policies: &[ParsedPolicy],
        schema: &Schema,
    ) -> Vec<(usize, (Key, CheckResult))> {
        // Those of the same slice follow one another.
        let mut new = new.to_vec();
        new.sort_by_key(|number| tasks[*number].slice.as_ref().map(|slice| slice.digest));
        let threads = thread::available_parallelism().map_or(1, NonZero::get);
        let share = new.len().div_ceil(threads).max(1);
        let whole = OnceLock::new();
        let check_share = |share: &[usize]| {
            let mut validators = Validators { checker: self, schema, whole: &whole, last: None };
            let check =
                |number: &usize| (*number, validators.check(&tasks[*number], &policies[*number]));
            share.iter().map(check).collect::<Vec<_>>()
        };
        let check_share = &check_share;
        thread::scope(|scope| {
            let shares: Vec<_> =
                new.chunks(share).map(|share| scope.spawn(move || check_share(share))).collect();
            shares.into_iter().filter_map(|share| share.join().ok()).flatten().collect()
        })
    }
}

/// The validators of a thread.
struct Validators<'a> {
    checker: &'a PolicyChecker,
    schema: &'a Schema,
    whole: &'a OnceLock<Validator>,
    /// That of the last slice.
    last: Option<(Digest, Option<Validator>)>,
}

impl Validators<'_> {
    fn check(&mut self, task: &Task, parsed: &ParsedPolicy) -> (Key, CheckResult) {
        let path = &parsed.meta.path;
        let whole = (0, parsed.meta.text.len());
        let set = match PolicySet::from_policies([parsed.policy.clone()]) {
            Ok(set) => set,
            Err(error) => {
                let finding =
                    Finding { problem: Problem::error(path, error.to_string()), place: whole };
                let key = (task.text, self.checker.schema_digest);
                return (key, CheckResult { findings: vec![finding] });
            }
        };
        let (of_schema, result) = self.validate(task, &set);
        let finding = |diagnostic: &dyn Diagnostic, severity| {
            let label = diagnostic.labels().and_then(|mut labels| labels.next());
            let place =
                label.map(|label| (label.offset().saturating_sub(parsed.offset), label.len()));
            let problem = Problem { severity, ..Problem::from_cedar(path, "", diagnostic) };
            Finding { problem, place: place.unwrap_or(whole) }
        };
        let errors = merge(result.validation_errors().map(|error| finding(error, Severity::Error)));
        let warnings =
            result.validation_warnings().map(|warning| finding(warning, Severity::Warning));
        let mut findings: Vec<_> = errors.into_iter().chain(warnings).collect();
        if task.reads_arguments {
            findings.extend(self.checker.mismatches(parsed));
        }
        findings.extend(ids_without_issuer(&parsed.policy).map(|uid| {
            let problem =
                Problem::error(path, format!("{uid} names no issuer, so it matches no caller"));
            let help = format!("the id of a {0} is {0}::\"<issuer>#<subject>\"", uid.type_name());
            Finding::about(parsed, &uid.to_string(), problem.help(help))
        }));
        ((task.text, of_schema), CheckResult { findings })
    }

    /// Validates with the slice. Findings are those of the whole schema, so that they say how many
    /// actions they are about, and what else has a similar name.
    fn validate(&mut self, task: &Task, set: &PolicySet) -> (Digest, ValidationResult) {
        if let Some(slice) = &task.slice
            && let Some(validator) = self.of_slice(slice)
        {
            let result = validator.validate(set, ValidationMode::Strict);
            if result.validation_passed_without_warnings() {
                return (slice.digest, result);
            }
        }
        let validator = self.whole.get_or_init(|| Validator::new(self.schema.clone()));
        (self.checker.schema_digest, validator.validate(set, ValidationMode::Strict))
    }

    fn of_slice(&mut self, slice: &Slice) -> Option<&Validator> {
        if self.last.as_ref().is_none_or(|(digest, _)| *digest != slice.digest) {
            let schema = self.checker.parts.as_ref().and_then(|parts| parts.schema(slice));
            self.last = Some((slice.digest, schema.map(Validator::new)));
        }
        self.last.as_ref().and_then(|(_, validator)| validator.as_ref())
    }
}

impl PolicyChecker {
    /// Texts that an argument never equals.
    fn mismatches(&self, parsed: &ParsedPolicy) -> impl Iterator<Item = Finding> {
        let json = parsed.policy.to_json().ok();
        let mismatches = json.map(|json| self.values.mismatches(&json)).unwrap_or_default();
        mismatches.into_iter().map(|EnumMismatch { text, message, help }| {
            let problem = Problem { help, ..Problem::error(&parsed.meta.path, message) };
            Finding::about(parsed, &format!("{text:?}"), problem)
        })
    }
}

/// Merges errors at the same place: Cedar checks a policy once for each action in its scope, in an
/// order that changes. The first by its text remains.
fn merge(errors: impl Iterator<Item = Finding>) -> Vec<Finding> {
    let mut errors: Vec<_> = errors.collect();
    errors.sort_by(|one, other| {
        (one.place, &one.problem.message).cmp(&(other.place, &other.problem.message))
    });
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

#[cfg(test)]
impl PolicyChecker {
    /// Validates with the whole schema.
    pub(super) fn use_no_slices(&mut self) {
        self.parts = None;
    }

    /// The actions in each slice.
    pub(super) fn slice_sizes(&self) -> impl Iterator<Item = usize> {
        self.slices.values().flatten().map(|slice| slice.size())
    }
}
