use std::path::PathBuf;

use drawbridge_auth::policy::{PolicyError, PolicyWorkspace, Problem, Severity, cases};
use drawbridge_config::{ConfigText, issuers::IssuersFile};
use serde_json::json;

use super::{CommonArgs, Verdict, paint, pluralize, print_json, print_problems};

/// Arguments of `policy check`.
#[derive(Clone, Debug, clap::Args)]
pub struct CheckArgs {
    #[command(flatten)]
    common: CommonArgs,

    /// Fail on warnings too.
    #[arg(long)]
    deny_warnings: bool,

    /// The file of issuers that auth accepts. A policy that names a principal of another issuer is
    /// an error: it never matches.
    #[arg(long, value_name = "FILE")]
    issuers: Option<PathBuf>,
}

/// The warnings about valid policies, and the errors in their issuers and cases.
fn find_problems(workspace: &PolicyWorkspace, args: &CheckArgs) -> anyhow::Result<Vec<Problem>> {
    let mut problems = workspace.warnings();
    if let Some(path) = &args.issuers {
        let IssuersFile { issuers } = ConfigText::read(path)?.parse()?;
        let issuers: Vec<_> = issuers.into_iter().map(|entry| entry.issuer.into_inner()).collect();
        problems.extend(workspace.check_issuers(&issuers));
    }
    match cases(&args.common.policies) {
        Ok(cases) => problems.extend(workspace.check_groups(&cases)),
        Err(PolicyError(errors)) => problems.extend(errors),
    }
    Ok(problems)
}

pub(super) fn run(args: &CheckArgs) -> anyhow::Result<Verdict> {
    let folder = args.common.policies.display();
    let opened = PolicyWorkspace::open(&args.common.policies);
    let (problems, summary) = match &opened {
        Ok(workspace) => {
            let items = workspace.policies().items().count();
            let (policies, items) =
                (pluralize(workspace.len(), "policy"), pluralize(items, "item"));
            let revision = workspace.policies().revision();
            (
                find_problems(workspace, args)?,
                format!("{folder}: {policies} for {items}, revision {revision}"),
            )
        }
        Err(error) => (error.0.clone(), folder.to_string()),
    };
    let count = |severity| {
        problems.iter().filter(|problem: &&Problem| problem.severity == severity).count()
    };
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    let good = errors == 0 && (warnings == 0 || !args.deny_warnings);
    if args.common.json {
        let revision = opened.as_ref().ok().map(|workspace| workspace.policies().revision());
        print_json(&json!({ "ok": good, "revision": revision, "problems": problems }))?;
    } else {
        print_problems(&problems);
        let outcome = match (errors, warnings) {
            (0, 0) => paint::good("ok"),
            (0, _) => paint::warning(&pluralize(warnings, "warning")),
            (_, 0) => paint::bad(&pluralize(errors, "error")),
            _ => paint::bad(&format!(
                "{}, {}",
                pluralize(errors, "error"),
                pluralize(warnings, "warning")
            )),
        };
        anstream::println!("{summary}: {outcome}");
    }
    Ok(Verdict::good_if(good))
}
