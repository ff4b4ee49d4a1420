//! What a policy folder promises: `policies/tests/*.json`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use serde_json::{Value, value::RawValue};

use super::{
    Answer, PolicyError, Problem, Study, Who,
    members::{at_json_error, without_place},
    problem::Place,
    source::{Source, files},
};

/// One promise.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// What is promised, as a sentence.
    pub name: String,
    /// Who calls.
    #[serde(default)]
    pub principal: Who,
    /// The tool, resource or prompt; its action has the same name.
    pub action: String,
    /// The item as Cedar writes it, such as `Tool::"code_search"`, to be sure which it is.
    pub resource: Option<String>,
    /// The arguments; those that are not given have their defaults. Absent: whether it is listed.
    pub arguments: Option<Value>,
    /// How it ends.
    pub expect: Expected,
    /// Which policies decide, if that is promised too.
    pub policies: Option<Vec<String>>,
}

/// How a case ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expected {
    /// It is allowed; without arguments: whatever they are.
    Allow,
    /// It depends on the arguments, which are not given.
    Perhaps,
    /// It is denied.
    Deny,
}

impl From<Answer> for Expected {
    fn from(answer: Answer) -> Self {
        match answer {
            Answer::Allow => Self::Allow,
            Answer::Perhaps => Self::Perhaps,
            _ => Self::Deny,
        }
    }
}

/// How a case went.
#[derive(Clone, Debug, Serialize)]
pub struct CaseResult {
    /// Its file.
    pub path: PathBuf,
    /// Where it begins.
    pub line: usize,
    /// Its name.
    pub name: String,
    /// What it promises.
    pub expected: Expected,
    /// Which policies it promises.
    pub expected_policies: Option<Vec<String>>,
    /// What policy says.
    pub answer: Answer,
    /// Which policies decided.
    pub policies: Vec<String>,
    /// Whether the promise is kept.
    pub passed: bool,
}

/// The cases of the folder `root`, with their files and places.
///
/// # Errors
/// When a file cannot be read or is not a list of cases.
pub fn cases(root: &Path) -> Result<Vec<(PathBuf, Place, Case)>, PolicyError> {
    let folder = root.join("tests");
    if !fs::exists(&folder).unwrap_or(false) {
        return Ok(Vec::new());
    }
    let (mut cases, mut problems) = (Vec::new(), Vec::new());
    for source in files(&folder, ".json")? {
        match in_file(&source) {
            Ok(found) => cases.extend(found),
            Err(wrong) => problems.extend(wrong),
        }
    }
    if problems.is_empty() { Ok(cases) } else { Err(PolicyError(problems)) }
}

fn in_file(source: &Source) -> Result<Vec<(PathBuf, Place, Case)>, Vec<Problem>> {
    let all: Vec<&RawValue> = serde_json::from_str(&source.text)
        .map_err(|error| vec![at_json_error(source, "cases", &error)])?;
    let (mut cases, mut problems) = (Vec::new(), Vec::new());
    for json in all {
        let (offset, length) = source.span_of(json);
        match serde_json::from_str(json.get()) {
            Ok(case) => {
                cases.push((source.path.clone(), Place::of(&source.text, offset, length), case));
            }
            Err(error) => {
                let problem = Problem::error(&source.path, without_place(&error));
                problems.push(problem.at(&source.text, offset, length));
            }
        }
    }
    if problems.is_empty() { Ok(cases) } else { Err(problems) }
}

impl Study {
    /// Runs a case.
    ///
    /// # Errors
    /// When there is no such item.
    pub fn run(&self, path: &Path, place: &Place, case: &Case) -> Result<CaseResult, Box<Problem>> {
        let wrong = |message: String| {
            let problem = Problem::error(path, message);
            Box::new(Problem { place: Some(place.clone()), ..problem })
        };
        let item = self
            .item(&case.action)
            .ok_or_else(|| wrong(format!("the catalog has no action {:?}", case.action)))?;
        let uid = self.policies().uid_of(&item);
        if let Some(resource) =
            case.resource.as_ref().filter(|resource| Some(*resource) != uid.as_ref())
        {
            let is = uid.unwrap_or_default();
            return Err(wrong(format!(
                "the resource of {:?} is {is} and not {resource}",
                case.action
            )));
        }
        let outcome = self.decide(&case.principal, &item, case.arguments.as_ref());
        let mut promised = case.policies.clone();
        if let Some(promised) = &mut promised {
            promised.sort_unstable();
        }
        let passed = Expected::from(outcome.answer) == case.expect
            && promised.as_ref().is_none_or(|promised| *promised == outcome.policy_ids);
        Ok(CaseResult {
            path: path.to_owned(),
            line: place.line,
            name: case.name.clone(),
            expected: case.expect,
            expected_policies: promised,
            answer: outcome.answer,
            policies: outcome.policy_ids,
            passed,
        })
    }
}
