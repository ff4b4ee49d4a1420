//! Policy tests: `policies/tests/*.json`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use serde_json::{Value, value::RawValue};

use super::{
    DecisionOutcome, PolicyError, PolicyWorkspace, PrincipalSpec, Problem,
    members::{at_json_error, without_place},
    problem::Place,
    source::{PolicySource, files},
};

/// One policy test.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// The expectation, as a sentence.
    pub name: String,
    /// The caller.
    #[serde(default)]
    pub principal: PrincipalSpec,
    /// The tool, resource or prompt; its action has the same name.
    pub action: String,
    /// The item's uid in Cedar's notation, such as `Tool::"code_search"`, to check which item is
    /// meant.
    pub resource: Option<String>,
    /// The arguments; omitted ones have their defaults. Absent: whether the item is listed.
    pub arguments: Option<Value>,
    /// The expected outcome.
    pub expect: Expected,
    /// The policies that must determine the outcome, if tested.
    pub policies: Option<Vec<String>>,
}

/// The expected outcome of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expected {
    /// Allowed; without arguments: for all arguments.
    Allow,
    /// It depends on the arguments, which are not given.
    #[serde(rename = "perhaps")]
    Conditional,
    /// Denied.
    Deny,
}

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
        match in_file(&source) {
            Ok(parsed) => cases.extend(parsed),
            Err(invalid) => problems.extend(invalid),
        }
    }
    if problems.is_empty() { Ok(cases) } else { Err(PolicyError(problems)) }
}

fn in_file(source: &PolicySource) -> Result<Vec<(PathBuf, Place, Case)>, Vec<Problem>> {
    let all: Vec<&RawValue> = serde_json::from_str(&source.text)
        .map_err(|error| vec![at_json_error(source, "cases", &error)])?;
    let (mut cases, mut problems) = (Vec::new(), Vec::new());
    for json in all {
        let (offset, length) = source.span_of(json);
        match serde_json::from_str(json.get()) {
            Ok(case) => {
                cases.push((source.path.clone(), Place::new(&source.text, offset, length), case));
            }
            Err(error) => {
                let problem = Problem::error(&source.path, without_place(&error));
                problems.push(problem.at(&source.text, offset, length));
            }
        }
    }
    if problems.is_empty() { Ok(cases) } else { Err(problems) }
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
