//! `drawbridge doctor`: checks what a set-up needs, and says what to do.
//!
//! Exit codes: 0, nothing has failed; 1, a check has failed, or with `--strict` has a warning; 2,
//! an error.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::bail;
use drawbridge_mesh::{
    issuer_name::IssuerName,
    state::{MeshArgs, MeshLookup},
};
use drawbridge_runtime::print_error;
use secrecy::SecretString;
use url::Url;

use crate::admin::AdminTarget;

use self::{report::Counts, setup::Setup, variables::Variables};

mod bundles;
mod certificates;
mod check;
mod database;
mod edge;
mod files;
mod http;
mod issuers;
mod redis;
mod report;
mod services;
mod setup;
mod variables;
mod vault;

/// What to check.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Examples:
  drawbridge doctor
  drawbridge doctor --env-file /etc/drawbridge/edge.env
  drawbridge doctor --public-url https://mcp.acme.example/mcp
  drawbridge doctor --admin edge-1=http://10.0.0.4:7181 --json

Without options it checks the running mesh or, if none is running, what variables of services \
name, such as DRAWBRIDGE_EDGE_PUBLIC_URL. Nothing is changed, and no token is sent.

Exit codes: 0, nothing has failed; 1, a check has failed; 2, an error.")]
pub struct DoctorArgs {
    /// A file with the variables of services, as systemd and compose read it. Repeat for more.
    #[arg(long, value_name = "FILE", value_delimiter = ',')]
    env_file: Vec<PathBuf>,

    /// The public URL of the MCP endpoint.
    #[arg(long, value_name = "URL")]
    public_url: Option<Url>,

    /// An issuer of access tokens.
    #[arg(long)]
    issuer: Option<IssuerName>,

    /// A TOML file of issuers.
    #[arg(long, value_name = "FILE")]
    issuers: Option<PathBuf>,

    /// The Redis that stores what replicas share.
    #[arg(long, hide_env_values = true)]
    redis_url: Option<SecretString>,

    /// The URL of Vault's API.
    #[arg(long)]
    vault_url: Option<Url>,

    /// The database of invoices. With a user and a password, the version of its schema is checked
    /// too.
    #[arg(long, hide_env_values = true)]
    database_url: Option<SecretString>,

    /// The folder of Cedar policies.
    #[arg(long, value_name = "DIR")]
    policies: Option<PathBuf>,

    /// A config file, such as `edge.toml` or `users.toml`. Repeat for more.
    #[arg(long, value_name = "FILE", value_delimiter = ',')]
    config: Vec<PathBuf>,

    /// The admin port of a service, as `http://host:port` or `name=http://host:port`. Repeat for
    /// more.
    #[arg(long, value_name = "[NAME=]URL", value_delimiter = ',')]
    admin: Vec<AdminTarget>,

    #[command(flatten)]
    mesh: MeshArgs,

    /// How long each check may take, in milliseconds.
    #[arg(
        long,
        default_value_t = 5_000,
        value_parser = clap::value_parser!(u64).range(1..=300_000)
    )]
    timeout_ms: u64,

    /// Fail on warnings too.
    #[arg(long)]
    strict: bool,

    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

/// Runs `drawbridge doctor`.
pub async fn run(args: DoctorArgs) -> ExitCode {
    match examine(&args).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            print_error(error.as_ref());
            ExitCode::from(2)
        }
    }
}

async fn examine(args: &DoctorArgs) -> anyhow::Result<bool> {
    let limit = Duration::from_millis(args.timeout_ms);
    let checked = check::run_all(setup(args)?.checks(limit), limit).await;
    let Counts { failed, warnings, .. } = Counts::of(&checked);
    let is_good = failed == 0 && (warnings == 0 || !args.strict);
    if args.json {
        let report = report::as_json(&checked, is_good);
        anstream::println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        anstream::println!("{}", report::as_text(&checked));
    }
    Ok(is_good)
}

/// What options name; or else the running mesh; or else what variables of services name.
fn setup(args: &DoctorArgs) -> anyhow::Result<Setup> {
    let mut variables = Variables::new();
    for path in &args.env_file {
        variables.extend(variables::read(path)?);
    }
    let mut given = Setup::default();
    given.add_options(args);
    let names_a_setup = !given.is_empty() || !variables.is_empty();
    let advice = match args.mesh.find()? {
        MeshLookup::Running(state) if !names_a_setup => return Ok(Setup::of_mesh(&state)),
        found => found.advice().to_owned(),
    };
    let mut setup = variables::setup(&variables);
    setup.add_options(args);
    if setup.is_empty() {
        bail!("nothing to check: {advice}, or name a set-up by options, --env-file or variables");
    }
    Ok(setup)
}
