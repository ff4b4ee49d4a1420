//! Policy tests: `policies/tests/*.json`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use drawbridge_config::policy::{Case, Expected, PrincipalSpec, read_cases};
use drawbridge_proto::auth::v1 as pb;
use serde::Serialize;

use super::{
    DecisionOutcome, PolicyError, PolicyWorkspace, Problem, problem::Place, source::files,
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
    let folder = root.join("tests");
    if !fs::exists(&folder).unwrap_or(false) {
        return Ok(Vec::new());
    }
    let (mut cases, mut problems) = (Vec::new(), Vec::new());
    for source in files(&folder, ".json")? {
        match read_cases(&source.config_text()) {
            Ok(parsed) => cases.extend(parsed.into_iter().map(|case| {
                let place = Place::new(&source.text, case.span().start, case.span().len());
                (source.path.clone(), place, case.into_inner())
            })),
            Err(error) => problems.extend(Problem::of_file(&source.path, &error)),
        }
    }
    if problems.is_empty() { Ok(cases) } else { Err(PolicyError(problems)) }
}

impl PolicyWorkspace {
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
