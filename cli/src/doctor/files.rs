//! Config files and policies.

use std::path::PathBuf;

use drawbridge_auth::policy::{PolicyError, PolicyWorkspace, Severity, cases};
use drawbridge_config::Namespace;

use super::check::{Check, Finding};
use crate::config;

/// The check of a config file, as by `drawbridge config check`.
pub(super) fn file(path: PathBuf, services: Vec<Namespace>) -> Check {
    Check::blocking("file", path.display().to_string(), move || {
        let to_do = format!("correct it; `drawbridge config check {}` shows where", path.display());
        match config::check_file(&path, services) {
            Ok(kind) => vec![Finding::ok(format!("right ({kind})"))],
            Err(problems) => {
                problems.into_iter().map(|problem| Finding::failed(problem, &to_do)).collect()
            }
        }
    })
}

/// The check of a policy folder, as by `drawbridge policy check` and `policy test`.
pub(super) fn policies(folder: PathBuf) -> Check {
    Check::blocking("policies", folder.display().to_string(), move || {
        let shown = folder.display();
        let check = format!("run `drawbridge policy check --policies {shown}`");
        let workspace = match PolicyWorkspace::open(&folder) {
            Ok(workspace) => workspace,
            Err(PolicyError(problems)) => {
                let problems = problems.iter();
                return problems
                    .map(|problem| Finding::failed(brief(&problem.to_string()), &check))
                    .collect();
            }
        };
        let revision = workspace.policies().revision();
        let mut findings =
            vec![Finding::ok(format!("{} policies, revision {revision}", workspace.len()))];
        for problem in workspace.warnings() {
            let text = brief(&problem.to_string());
            findings.push(match problem.severity {
                Severity::Error => Finding::failed(text, &check),
                Severity::Warning => Finding::warning(text, &check),
            });
        }
        findings.extend(test(&folder, &workspace));
        findings
    })
}

fn test(folder: &std::path::Path, workspace: &PolicyWorkspace) -> Option<Finding> {
    let run = format!("run `drawbridge policy test --policies {}`", folder.display());
    let cases = match cases(folder) {
        Ok(cases) if cases.is_empty() => {
            return Some(Finding::warning(
                "the policies have no tests",
                "write cases (docs/how-to/test-policies.md)",
            ));
        }
        Ok(cases) => cases,
        Err(_) => return Some(Finding::failed("the cases of the policies are invalid", run)),
    };
    let mut failed = Vec::new();
    for (path, place, case) in &cases {
        if !workspace.run(path, place, case).is_ok_and(|result| result.passed) {
            failed.push(&case.name);
        }
    }
    Some(match failed.first() {
        None => Finding::ok(format!("{} cases pass", cases.len())),
        Some(first) => Finding::failed(
            format!("{} of {} cases fail, the first is {first:?}", failed.len(), cases.len()),
            run,
        ),
    })
}

/// The first line of a problem, which may quote the place in the file below.
fn brief(problem: &str) -> String {
    problem.lines().next().unwrap_or_default().to_owned()
}
