use std::path::PathBuf;

use drawbridge_auth::policy::{PolicyError, Problem, Severity, Study, cases};
use drawbridge_sdk::ConfigText;
use serde::Deserialize;
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

    /// The file of issuers that auth accepts: a principal of another issuer is nobody.
    #[arg(long, value_name = "FILE")]
    issuers: Option<PathBuf>,
}

/// Of the file of issuers, their names.
#[derive(Deserialize)]
struct Issuers {
    #[serde(default)]
    issuers: Vec<Issuer>,
}

#[derive(Deserialize)]
struct Issuer {
    issuer: String,
}

/// What looks wrong with policies that can be used.
fn look_at(study: &Study, args: &CheckArgs) -> anyhow::Result<Vec<Problem>> {
    let mut problems = study.warnings();
    if let Some(path) = &args.issuers {
        let Issuers { issuers } = ConfigText::read(path)?.parse()?;
        let issuers: Vec<_> = issuers.into_iter().map(|issuer| issuer.issuer).collect();
        problems.extend(study.of_unknown_issuers(&issuers));
    }
    match cases(&args.common.policies) {
        Ok(cases) => problems.extend(study.lonely_groups(&cases)),
        Err(PolicyError(wrong)) => problems.extend(wrong),
    }
    Ok(problems)
}

pub(super) fn run(args: &CheckArgs) -> anyhow::Result<Verdict> {
    let folder = args.common.policies.display();
    let opened = Study::open(&args.common.policies);
    let (problems, summary) = match &opened {
        Ok(study) => {
            let items = study.policies().items().count();
            let (policies, items) = (count(study.len(), "policy"), count(items, "item"));
            let revision = study.policies().revision();
            (
                look_at(study, args)?,
                format!("{folder}: {policies} for {items}, revision {revision}"),
            )
        }
        Err(error) => (error.0.clone(), folder.to_string()),
    };
    let of = |severity| {
        problems.iter().filter(|problem: &&Problem| problem.severity == severity).count()
    };
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
