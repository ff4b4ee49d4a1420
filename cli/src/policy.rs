//! `drawbridge policy`: checks, tests and explains a policy folder before it is deployed, and
//! distributes it to replicas of auth.
//!
//! Exit codes: 0, success; 1, a negative result (a problem, a failed case, a denial, a changed
//! decision); 2, an error.

use std::{path::PathBuf, process::ExitCode};

use drawbridge_auth::policy::{PolicyError, PolicyWorkspace, Problem, Severity};
use drawbridge_runtime::print_error;
use serde::Serialize;

mod bundle;
mod check;
mod diff;
mod explain;
mod key;
mod paint;
pub mod schema;
mod status;
mod test;
mod who_can;

/// The subcommands.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum PolicyCommand {
    /// Check that policies parse, match the schema and have ids, and warn of likely mistakes.
    Check(check::CheckArgs),
    /// Run the cases in `tests/*.json`: who may do what, and by which policy.
    Test(test::TestArgs),
    /// Explain why an operation is allowed or denied, with the text of the policies.
    Explain(Box<explain::ExplainArgs>),
    /// Show which groups, roles and principals may use which tools, resources and prompts.
    WhoCan(who_can::WhoCanArgs),
    /// Show which recorded decisions would change under other policies.
    Diff(diff::DiffArgs),
    /// Generate the policy schema and catalog of tool services from their contracts.
    ///
    /// A tool that is not in the catalog is hidden, and calls of it are denied.
    Schema(schema::SchemaArgs),
    /// Make a private key that signs bundles of policies, and print its public key.
    Key(key::KeyArgs),
    /// Check and test a policy folder, and write it as one signed file for many replicas of auth.
    Bundle(bundle::BundleArgs),
    /// Add signatures to a bundle, where auth wants several.
    Sign(bundle::SignArgs),
    /// Upload a bundle and its signature to where auth fetches them.
    Push(bundle::PushArgs),
    /// Show which policies each replica of auth has in force, and which replicas are behind.
    Status(status::StatusArgs),
}

/// Options of several subcommands.
#[derive(Clone, Debug, clap::Args)]
struct CommonArgs {
    /// The folder of policies.
    #[arg(long, default_value = "policies")]
    policies: PathBuf,

    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

/// The result that the exit code reports.
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
    let verdict = match command {
        PolicyCommand::Check(args) => check::run(&args),
        PolicyCommand::Test(args) => test::run(&args),
        PolicyCommand::Explain(args) => explain::run(&args),
        PolicyCommand::WhoCan(args) => who_can::run(&args),
        PolicyCommand::Diff(args) => diff::run(&args),
        PolicyCommand::Key(args) => key::run(&args),
        PolicyCommand::Bundle(args) => bundle::make(&args),
        PolicyCommand::Sign(args) => bundle::sign(&args),
        PolicyCommand::Push(args) => bundle::upload(&args).await,
        PolicyCommand::Status(args) => status::run(&args).await,
        PolicyCommand::Schema(args) => match schema::run(args).await {
            Ok(()) => Ok(Verdict::Good),
            Err(error) => {
                print_error(error.as_ref());
                Ok(Verdict::Bad)
            }
        },
    };
    match verdict {
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

/// Opens a policy folder that must be valid.
fn open_workspace(folder: &std::path::Path) -> anyhow::Result<PolicyWorkspace> {
    PolicyWorkspace::open(folder).map_err(|PolicyError(problems)| {
        print_problems(&problems);
        anyhow::anyhow!("the policies in {} are invalid", folder.display())
    })
}

fn pluralize(number: usize, what: &str) -> String {
    let plural = match what.strip_suffix('y') {
        _ if number == 1 => what.to_owned(),
        Some(stem) => format!("{stem}ies"),
        None => format!("{what}s"),
    };
    format!("{number} {plural}")
}
