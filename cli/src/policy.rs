//! `drawbridge policy`: what a person asks of a policy folder before it is in force.
//!
//! Exit codes: 0, all is well; 1, it is not (a problem, a broken promise, a denial, a change); 2, it could not be
//! found out.

use std::{path::PathBuf, process::ExitCode};

use drawbridge_auth::policy::{PolicyError, Problem, Severity, Study};
use drawbridge_sdk::print_error;
use serde::Serialize;

mod check;
mod diff;
mod explain;
mod paint;
pub mod schema;
mod test;
mod who_can;

/// What to do about policies.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum PolicyCommand {
    /// Check that policies parse, fit the schema and have ids, and point at what looks wrong.
    Check(check::CheckArgs),
    /// Run the cases in `tests/*.json`: who may do what, and by which policy.
    Test(test::TestArgs),
    /// Say why an operation is allowed or denied, with the text of the policies.
    Explain(Box<explain::ExplainArgs>),
    /// Say which groups, roles and principals may reach which tools, resources and prompts.
    WhoCan(who_can::WhoCanArgs),
    /// Say which recorded decisions would end otherwise under other policies.
    Diff(diff::DiffArgs),
    /// Write the policy schema and catalog of tool services, from their contracts.
    ///
    /// A tool that is not in the catalog is hidden and refused: writing it there is what locks it in.
    Schema(schema::SchemaArgs),
}

/// Where the policies are, and how to answer.
#[derive(Clone, Debug, clap::Args)]
struct Common {
    /// The folder of policies.
    #[arg(long, default_value = "policies")]
    policies: PathBuf,

    /// Answer as JSON.
    #[arg(long)]
    json: bool,
}

/// Whether all is well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Good,
    Bad,
}

impl Verdict {
    fn good_if(good: bool) -> Self {
        if good { Self::Good } else { Self::Bad }
    }
}

/// Runs `drawbridge policy`.
pub async fn run(command: PolicyCommand) -> ExitCode {
    let done = match command {
        PolicyCommand::Check(args) => check::run(&args),
        PolicyCommand::Test(args) => test::run(&args),
        PolicyCommand::Explain(args) => explain::run(&args),
        PolicyCommand::WhoCan(args) => who_can::run(&args),
        PolicyCommand::Diff(args) => diff::run(&args),
        PolicyCommand::Schema(args) => match schema::run(args).await {
            Ok(()) => Ok(Verdict::Good),
            Err(error) => {
                print_error(error.as_ref());
                Ok(Verdict::Bad)
            }
        },
    };
    match done {
        Ok(Verdict::Good) => ExitCode::SUCCESS,
        Ok(Verdict::Bad) => ExitCode::from(1),
        Err(error) => {
            print_error(error.as_ref());
            ExitCode::from(2)
        }
    }
}

fn print_json(answer: &impl Serialize) -> anyhow::Result<()> {
    anstream::println!("{}", serde_json::to_string_pretty(answer)?);
    Ok(())
}

fn print_problems(problems: &[Problem]) {
    for problem in problems {
        let label = match problem.severity {
            Severity::Error => paint::bad("error"),
            Severity::Warning => paint::warning("warning"),
        };
        anstream::println!("{label}: {problem}\n");
    }
}

/// The policies of a folder that has to be right.
fn open(folder: &std::path::Path) -> anyhow::Result<Study> {
    Study::open(folder).map_err(|PolicyError(problems)| {
        print_problems(&problems);
        anyhow::anyhow!("the policies in {} are not right", folder.display())
    })
}

fn count(number: usize, what: &str) -> String {
    let plural = match what.strip_suffix('y') {
        _ if number == 1 => what.to_owned(),
        Some(stem) => format!("{stem}ies"),
        None => format!("{what}s"),
    };
    format!("{number} {plural}")
}
