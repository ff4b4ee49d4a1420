use drawbridge_auth::policy::{Problem, Severity, Study};
use serde_json::json;

use super::{Common, Verdict, count, paint, print_json, print_problems};

/// What to check.
#[derive(Clone, Debug, clap::Args)]
pub struct CheckArgs {
    #[command(flatten)]
    common: Common,

    /// Fail when something looks wrong, though it can be used.
    #[arg(long)]
    deny_warnings: bool,
}

pub(super) fn run(args: &CheckArgs) -> anyhow::Result<Verdict> {
    let folder = args.common.policies.display();
    let opened = Study::open(&args.common.policies);
    let (problems, summary) = match &opened {
        Ok(study) => {
            let items = study.policies().items().count();
            let (policies, items) = (count(study.len(), "policy"), count(items, "item"));
            let revision = study.policies().revision();
            (study.warnings(), format!("{folder}: {policies} for {items}, revision {revision}"))
        }
        Err(error) => (error.0.clone(), folder.to_string()),
    };
    let of = |severity| problems.iter().filter(|problem: &&Problem| problem.severity == severity).count();
    let (errors, warnings) = (of(Severity::Error), of(Severity::Warning));
    let good = errors == 0 && (warnings == 0 || !args.deny_warnings);
    if args.common.json {
        let revision = opened.as_ref().ok().map(|study| study.policies().revision());
        print_json(&json!({ "ok": good, "revision": revision, "problems": problems }))?;
    } else {
        print_problems(&problems);
        let found = match (errors, warnings) {
            (0, 0) => paint::good("ok"),
            (0, _) => paint::warning(&count(warnings, "warning")),
            (_, 0) => paint::bad(&count(errors, "error")),
            _ => paint::bad(&format!("{}, {}", count(errors, "error"), count(warnings, "warning"))),
        };
        anstream::println!("{summary}: {found}");
    }
    Ok(Verdict::good_if(good))
}
