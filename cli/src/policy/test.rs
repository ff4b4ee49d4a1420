use anyhow::Context as _;
use drawbridge_auth::policy::{CaseResult, PolicyError, Problem, cases};
use drawbridge_config::policy::Expected;
use serde_json::json;

use super::{CommonArgs, Verdict, open_workspace, paint, pluralize, print_json, print_problems};

/// Arguments of `policy test`.
#[derive(Clone, Debug, clap::Args)]
pub struct TestArgs {
    #[command(flatten)]
    common: CommonArgs,

    /// Run only cases whose names contain this text.
    filter: Option<String>,
}

pub(super) fn run(args: &TestArgs) -> anyhow::Result<Verdict> {
    let folder = &args.common.policies;
    let workspace = open_workspace(folder)?;
    let cases = cases(folder).map_err(|PolicyError(problems)| {
        print_problems(&problems);
        anyhow::anyhow!("the cases in {} are invalid", folder.join("tests").display())
    })?;
    let filter = args.filter.as_deref().unwrap_or_default();
    let wanted = cases.iter().filter(|(_, _, case)| case.name.contains(filter));
    let (mut results, mut problems) = (Vec::new(), Vec::new());
    for (path, place, case) in wanted {
        match workspace.run(path, place, case) {
            Ok(result) => results.push(result),
            Err(problem) => problems.push(*problem),
        }
    }
    (!results.is_empty() || !problems.is_empty())
        .then_some(())
        .with_context(|| format!("no case in {} matches", folder.join("tests").display()))?;
    let good = problems.is_empty() && results.iter().all(|result| result.passed);
    if args.common.json {
        print_json(&json!({ "ok": good, "cases": results, "problems": problems }))?;
    } else {
        print(&results, &problems);
    }
    Ok(Verdict::good_if(good))
}

fn print(results: &[CaseResult], problems: &[Problem]) {
    for result in results {
        if result.passed {
            anstream::println!("{} {}", paint::good("ok    "), result.name);
            continue;
        }
        anstream::println!("{} {}", paint::bad("FAILED"), paint::strong(&result.name));
        anstream::println!("       {}:{}", result.path.display(), result.line);
        let expected = describe(result.expected, result.expected_policies.as_deref());
        let was = result.expected_policies.as_ref().map(|_| result.policies.as_slice());
        anstream::println!("       {}", paint::bad(&format!("- {expected}")));
        let answer = format!("{} ({:?})", describe(result.answer.into(), was), result.answer);
        anstream::println!("       {}", paint::good(&format!("+ {answer}")));
    }
    print_problems(problems);
    let failed = results.iter().filter(|result| !result.passed).count() + problems.len();
    let passed = results.len() + problems.len() - failed;
    let summary = format!("{passed} passed, {failed} failed");
    let all = pluralize(passed + failed, "case");
    anstream::println!(
        "{all}: {}",
        if failed == 0 { paint::good(&summary) } else { paint::bad(&summary) }
    );
}

fn describe(expected: Expected, policies: Option<&[String]>) -> String {
    let expected = match expected {
        Expected::Allow => "allow",
        Expected::Conditional => "conditional",
        Expected::Deny => "deny",
    };
    match policies {
        None => expected.to_owned(),
        Some([]) => format!("{expected} by no policy"),
        Some(policies) => format!("{expected} by {}", policies.join(", ")),
    }
}
