//! `drawbridge transform`: runs an edge config file's transformations on a sample, before clients
//! use them.

use std::{
    io,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use drawbridge_edge::{Direction, ProgramPrincipal, Trial};
use drawbridge_runtime::bounded;
use serde_json::Value;

/// The largest sample, in bytes.
const SAMPLE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// The subcommands.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum TransformCommand {
    /// Transform sample arguments, or a sample result, of a tool.
    ///
    /// This calls no service, so violations of the service's own schema appear only in a real call.
    Try(TryArgs),
}

/// The transformation, and the sample.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Examples:
  echo '{\"limit\": 500}' | drawbridge transform try --config edge.toml \\
    --tool invoices_search --input -
  drawbridge transform try --config edge.toml --tool invoices_search \\
    --response --input result.json --principal alice.json

The principal file has the fields of `$principal`: issuer, subject, tenant, client, groups, \
roles, scopes.")]
pub struct TryArgs {
    /// The edge's config file.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,

    /// The tool, by its original name in the service's contract.
    #[arg(long)]
    tool: String,

    /// Transform arguments (the default).
    #[arg(long = "request", conflicts_with = "response")]
    _request: bool,

    /// Transform a structured result.
    #[arg(long)]
    response: bool,

    /// The sample, as JSON. `-` reads standard input.
    #[arg(long, value_name = "FILE")]
    input: PathBuf,

    /// The caller, as JSON. Absent: an anonymous caller.
    #[arg(long, value_name = "FILE")]
    principal: Option<PathBuf>,
}

/// Runs `drawbridge transform`.
///
/// # Errors
/// When a file is invalid, or the transformation fails.
pub fn run(TransformCommand::Try(args): TransformCommand) -> anyhow::Result<()> {
    let trial = Trial::open(&args.config)?;
    let sample: Value = read(&args.input)?;
    let principal = args.principal.as_deref().map(read).transpose()?;
    let principal: ProgramPrincipal = match (&args.principal, principal) {
        (Some(path), Some(json)) => serde_json::from_value(json)
            .with_context(|| format!("{} is not a valid principal", path.display()))?,
        _ => ProgramPrincipal::default(),
    };
    let direction = if args.response { Direction::Response } else { Direction::Request };
    let output = trial.run(&args.tool, direction, &sample, &principal)?;
    anstream::println!("{}", serde_json::to_string_pretty(&output)?);
    Ok(())
}

fn read(path: &Path) -> anyhow::Result<Value> {
    let read = if path == Path::new("-") {
        bounded::read(io::stdin(), SAMPLE_BYTES_MAX)
    } else {
        bounded::read_file(path, SAMPLE_BYTES_MAX)
    };
    let text = read.with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("{} is not valid JSON", path.display()))
}
