//! `drawbridge transform`: what the edge's config file makes of a sample, before any client calls the tool.

use std::{
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use drawbridge_edge::{Direction, Principal, Trial};
use serde_json::Value;

/// The largest sample, in bytes.
const SAMPLE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// What to do about transformations.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum TransformCommand {
    /// Run what changes a tool's arguments, or its results, on a sample.
    ///
    /// No service is asked: what its own schema would refuse is seen only by a call.
    Try(TryArgs),
}

/// What to run, and on what.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Examples:
  echo '{\"limit\": 500}' | drawbridge transform try --config edge.toml \\
    --tool invoices_search --input -
  drawbridge transform try --config edge.toml --tool invoices_search \\
    --response --input result.json --principal alice.json

A principal's file has what `$principal` has: issuer, subject, tenant, client, groups, roles, scopes.")]
pub struct TryArgs {
    /// The edge's config file.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,

    /// The tool, by the name that its service gives it.
    #[arg(long)]
    tool: String,

    /// Transform arguments. This is what is done unless you say `--response`.
    #[arg(long = "request", conflicts_with = "response")]
    _request: bool,

    /// Transform a structured result.
    #[arg(long)]
    response: bool,

    /// The sample, as JSON. `-` reads it from standard input.
    #[arg(long, value_name = "FILE")]
    input: PathBuf,

    /// Who calls, as JSON. Absent: nobody in particular.
    #[arg(long, value_name = "FILE")]
    principal: Option<PathBuf>,
}

/// Runs `drawbridge transform`.
///
/// # Errors
/// When a file is not right, or the transformation fails.
pub fn run(TransformCommand::Try(args): TransformCommand) -> anyhow::Result<()> {
    let trial = Trial::open(&args.config)?;
    let sample: Value = read(&args.input)?;
    let principal = args.principal.as_deref().map(read).transpose()?;
    let principal: Principal = match (&args.principal, principal) {
        (Some(path), Some(json)) => serde_json::from_value(json)
            .with_context(|| format!("{} is no principal", path.display()))?,
        _ => Principal::default(),
    };
    let direction = if args.response { Direction::Response } else { Direction::Request };
    let output = trial.run(&args.tool, direction, &sample, &principal)?;
    anstream::println!("{}", serde_json::to_string_pretty(&output)?);
    Ok(())
}

fn read(path: &Path) -> anyhow::Result<Value> {
    let mut text = String::new();
    let reading = if path == Path::new("-") {
        io::stdin().take(SAMPLE_BYTES_MAX).read_to_string(&mut text)
    } else {
        fs::File::open(path).and_then(|file| file.take(SAMPLE_BYTES_MAX).read_to_string(&mut text))
    };
    reading.with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is no JSON", path.display()))
}
