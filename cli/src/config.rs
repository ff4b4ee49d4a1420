//! `drawbridge config`: checks the files that an operator writes, and prints their schemas.
//!
//! Exit codes of `check`: 0, the files are right; 1, a file has mistakes; 2, a file cannot be read
//! or its kind is unknown, or the command line is wrong.

use std::process::ExitCode;

use drawbridge_runtime::print_error;

mod check;
mod kinds;
mod schema;

pub(crate) use self::{
    check::check_file,
    schema::{kinds, schemas},
};

/// The subcommands.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum ConfigCommand {
    /// Check files and report all their mistakes, with line and column.
    ///
    /// Nothing is started and no address is called. Exit codes: 0, the files are right; 1, a file
    /// has mistakes; 2, a file cannot be read or its kind is unknown, or the command line is wrong.
    #[command(after_help = "\
Examples:
  drawbridge config check edge.toml users.toml
  drawbridge config check --kind edge --service billing deploy/production.toml")]
    Check(check::CheckArgs),
    /// Print the JSON Schema (2020-12) of a kind of file, for editors.
    #[command(after_help = "\
Examples:
  drawbridge config schema edge --out edge.schema.json")]
    Schema(schema::SchemaArgs),
}

/// Runs `drawbridge config`.
#[must_use]
pub fn run(command: &ConfigCommand) -> ExitCode {
    let outcome = match command {
        ConfigCommand::Check(args) => check::run(args),
        ConfigCommand::Schema(args) => schema::run(args).map(|()| ExitCode::SUCCESS),
    };
    outcome.unwrap_or_else(|error| {
        print_error(error.as_ref());
        ExitCode::from(2)
    })
}
