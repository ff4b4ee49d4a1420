//! Policy tests: `policies/tests/*.json`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use drawbridge_config::{
    Place,
    policy::{Case, Expected, PrincipalSpec, read_cases},
};
use drawbridge_proto::auth::v1 as pb;
use serde::Serialize;

use super::{
    DecisionOutcome, PolicyError, PolicyWorkspace, Problem,
    load::Loader,
    source::{PolicySource, PolicySources, files},
};
use crate::Identity;

impl From<DecisionOutcome> for Expected {
    fn from(outcome: DecisionOutcome) -> Self {
        match outcome {
            DecisionOutcome::Allow => Self::Allow,
            DecisionOutcome::Conditional => Self::Conditional,
            _ => Self::Deny,
        }
    }
}

/// The result of a case.
#[derive(Clone, Debug, Serialize)]
pub struct CaseResult {
    /// Its file.
    pub path: PathBuf,
    /// The line on which it starts.
    pub line: usize,
    /// Its name.
    pub name: String,
    /// The expected outcome.
    pub expected: Expected,
    /// The expected policies.
    pub expected_policies: Option<Vec<String>>,
    /// The actual outcome.
    pub answer: DecisionOutcome,
    /// The policies that determined it.
    pub policies: Vec<String>,
    /// Whether the case passed.
    pub passed: bool,
}

/// Reads the cases of the folder `root`, with their files and places.
///
/// # Errors
/// If a file cannot be read or is not a list of cases.
pub fn cases(root: &Path) -> Result<Vec<(PathBuf, Place, Case)>, PolicyError> {
    parse_cases(&case_files(root)?)
}

/// The files of cases of the folder `root`.
pub(super) fn case_files(root: &Path) -> Result<Vec<PolicySource>, PolicyError> {
    let folder = root.join("tests");
    if fs::exists(&folder).unwrap_or(false) { files(&folder, ".json") } else { Ok(Vec::new()) }
}

fn parse_cases(sources: &[PolicySource]) -> Result<Vec<(PathBuf, Place, Case)>, PolicyError> {
    let (mut cases, mut problems) = (Vec::new(), Vec::new());
    for source in sources {
        match read_cases(&source.config_text()) {
            Ok(parsed) => cases.extend(parsed.into_iter().map(|case| {
                let place = Place::new(&source.text, case.span());
                (source.path.clone(), place, case.into_inner())
            })),
            Err(error) => problems.extend(Problem::of_file(&source.path, &error)),
        }
    }
    if problems.is_empty() { Ok(cases) } else { Err(PolicyError(problems)) }
}

/// Valid policies whose cases pass.
pub(super) struct Checked {
    pub(super) workspace: PolicyWorkspace,
    /// How many cases there are.
    pub(super) cases: usize,
}

impl PolicyWorkspace {
    /// Builds policies from files and runs all of their cases.
    pub(super) fn check(
        sources: PolicySources,
        case_sources: &[PolicySource],
        loader: &mut Loader,
    ) -> Result<Checked, PolicyError> {
        let workspace = Self::load(sources, loader)?;
        let cases = parse_cases(case_sources)?;
        let failures = cases.iter().filter_map(|(path, place, case)| {
            let result = match workspace.run(path, place, case) {
                Ok(result) => result,
                Err(problem) => return Some(*problem),
            };
            let CaseResult { name, expected, expected_policies, answer, policies, .. } = &result;
            let by = |policies: &[String]| match policies {
                [] => "no policy".to_owned(),
                policies => policies.join(", "),
            };
            let wanted = expected_policies.as_deref().map(by);
            let wanted = wanted.map_or_else(String::new, |wanted| format!(" by {wanted}"));
            let message = format!(
                "the case {name:?} fails: expected {expected:?}{wanted}, got {answer:?} by {}",
                by(policies)
            );
            let problem = Problem::error(path, message);
            (!result.passed).then(|| Problem { place: Some(place.clone()), ..problem })
        });
        let failures: Vec<_> = failures.collect();
        match failures.is_empty() {
            true => Ok(Checked { workspace, cases: cases.len() }),
            false => Err(PolicyError(failures)),
        }
    }

    /// Runs a case.
    ///
    /// # Errors
    /// If the catalog does not have the item.
    pub fn run(&self, path: &Path, place: &Place, case: &Case) -> Result<CaseResult, Box<Problem>> {
        let failed = |message: String| {
            let problem = Problem::error(path, message);
            Box::new(Problem { place: Some(place.clone()), ..problem })
        };
        let item = self
            .item(&case.action)
            .ok_or_else(|| failed(format!("the catalog has no action {:?}", case.action)))?;
        let uid = self.policies().uid_of(&item);
        if let Some(resource) =
            case.resource.as_ref().filter(|resource| Some(*resource) != uid.as_ref())
        {
            let is = uid.unwrap_or_default();
            return Err(failed(format!(
                "the resource of {:?} is {is} and not {resource}",
                case.action
            )));
        }
        let decision = self.decide(&case.principal, &item, case.arguments.as_ref());
        let mut expected_policies = case.policies.clone();
        if let Some(expected) = &mut expected_policies {
            expected.sort_unstable();
        }
        let passed = Expected::from(decision.outcome) == case.expect
            && expected_policies.as_ref().is_none_or(|expected| *expected == decision.policy_ids);
        Ok(CaseResult {
            path: path.to_owned(),
            line: place.line,
            name: case.name.clone(),
            expected: case.expect,
            expected_policies,
            answer: decision.outcome,
            policies: decision.policy_ids,
            passed,
        })
    }
}

impl From<&PrincipalSpec> for Identity {
    fn from(spec: &PrincipalSpec) -> Self {
        let spec = spec.clone();
        Self {
            principal: pb::Principal {
                issuer: spec.issuer,
                subject: spec.subject,
                client_id: spec.client,
                tenant: spec.tenant,
                scopes: spec.scopes,
                ..pb::Principal::default()
            },
            groups: spec.groups,
            roles: spec.roles,
            email: spec.email,
            mfa: spec.mfa,
            workload: spec.workload,
        }
    }
}
