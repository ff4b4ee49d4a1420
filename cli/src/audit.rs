//! `drawbridge audit`: verifies, searches, proves and exports audit logs.
//!
//! Exit codes: 0, success; 1, a negative result (a log that was changed, a proof that does not hold,
//! nothing found); 2, an error.

use std::{
    io::{self, ErrorKind, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Context as _;
use drawbridge_audit::note::VerificationKey;
use drawbridge_runtime::{bounded, print_error};
use serde::Serialize;

mod export;
mod key;
mod proof;
mod query;
mod verify;

/// The subcommands.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum AuditCommand {
    /// Check that audit logs are as they were written, and say who vouches for which lines.
    Verify(verify::VerifyArgs),
    /// Search audit logs.
    Query(query::QueryArgs),
    /// Find the calls with these arguments by their keyed digest.
    Find(query::FindArgs),
    /// Prove what an audit log has about one request, for someone who does not get the log.
    Prove(proof::ProveArgs),
    /// Check a proof that `prove` has written.
    CheckProof(proof::CheckProofArgs),
    /// Write audit logs in the form of a security tool.
    Export(export::ExportArgs),
    /// Make a private key that signs checkpoints, or print the public keys of audit logs.
    Key(key::KeyArgs),
}

/// The logs that a command reads.
#[derive(Clone, Debug, clap::Args)]
pub struct Logs {
    /// Audit logs: folders with everything below them, or single files.
    #[arg(value_name = "LOG", required = true)]
    logs: Vec<PathBuf>,
}

/// The keys that logs must be signed by.
#[derive(Clone, Debug, clap::Args)]
pub struct TrustedKeys {
    /// A public key that must have signed the log, `NAME+ID+BASE64`, or a file with one in each
    /// line. Default: the key that the log itself names. Repeat for several.
    #[arg(long, value_name = "KEY_OR_FILE")]
    key: Vec<String>,
}

/// The largest file of public keys, in bytes.
const KEYS_BYTES_MAX: u64 = 1 << 20;

impl TrustedKeys {
    fn read(&self) -> anyhow::Result<Vec<VerificationKey>> {
        let mut keys = Vec::new();
        for text in &self.key {
            let file;
            let lines = if text.contains('+') {
                text
            } else {
                file = bounded::read_file_to_string(text.as_ref(), KEYS_BYTES_MAX)
                    .with_context(|| format!("cannot read the keys in {text}"))?;
                &file
            };
            for line in lines.lines().filter(|line| !line.trim().is_empty()) {
                keys.push(line.parse().with_context(|| format!("invalid --key {line}"))?);
            }
        }
        Ok(keys)
    }
}

/// Runs `drawbridge audit`.
#[must_use]
pub fn run(command: &AuditCommand) -> ExitCode {
    let good = match command {
        AuditCommand::Verify(args) => verify::run(args),
        AuditCommand::Query(args) => query::run(args),
        AuditCommand::Find(args) => query::find(args),
        AuditCommand::Prove(args) => proof::prove(args),
        AuditCommand::CheckProof(args) => proof::check(args),
        AuditCommand::Export(args) => export::run(args),
        AuditCommand::Key(args) => key::run(args),
    };
    match good {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        // The reader of a pipe has seen enough.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            print_error(error.as_ref());
            ExitCode::from(2)
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = error.chain().find_map(|cause| cause.downcast_ref::<io::Error>());
    io.is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}

/// Prints a line. Unlike `println!`, a closed pipe is an error of the caller.
fn print(line: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(line.as_bytes())?;
    stdout.write_all(b"\n")
}

fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    Ok(print(&serde_json::to_string_pretty(value)?)?)
}
