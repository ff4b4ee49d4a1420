//! The command line: what `drawbridge` can be asked, and the environment variables that say the
//! same.

use std::{
    fs,
    io::{self, Write as _},
    path::PathBuf,
};

use anyhow::Context as _;
use clap::{Arg, Command, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use clap_complete::Shell;
use drawbridge_sdk::{argument_with_env, env_name, with_env};

use crate::{call, catalog, policy, revoke, transform, up, vault};

/// Remote MCP servers in front of your internal gRPC tools.
#[derive(Parser)]
#[command(name = NAME, version = env!("DRAWBRIDGE_VERSION"), args_conflicts_with_subcommands = true)]
pub struct CommandLine {
    /// What to do. Absent: [`Subcommands::Up`].
    #[command(subcommand)]
    pub command: Option<Subcommands>,
    /// How to start the mesh, without a subcommand.
    #[command(flatten)]
    pub up: up::UpArgs,
}

/// What to do.
#[derive(Subcommand)]
pub enum Subcommands {
    /// Start the whole mesh in this process (the default).
    Up(up::UpArgs),
    /// Call an RPC of a tool service directly, as an internal caller does.
    Call(call::CallArgs),
    /// Refuse from now on tokens that would still be valid.
    Revoke(revoke::RevokeArgs),
    /// Check, test and explain policies, and generate what they are checked against.
    #[command(subcommand)]
    Policy(policy::PolicyCommand),
    /// Review and lock what clients see of tools, resources and prompts.
    #[command(subcommand)]
    Catalog(catalog::CatalogCommand),
    /// Try what the edge's config file makes of arguments and results.
    #[command(subcommand)]
    Transform(transform::TransformCommand),
    /// Set a Vault up, from which tool services get credentials.
    #[command(subcommand)]
    Vault(vault::VaultCommand),
    /// Print what completes this command line in a shell.
    #[command(after_help = "\
Examples:
  drawbridge completions bash >> ~/.bash_completion
  drawbridge completions fish > ~/.config/fish/completions/drawbridge.fish")]
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Print the man page, or write one for each command.
    #[command(after_help = "\
Examples:
  drawbridge man | man -l -
  drawbridge man ~/.local/share/man/man1")]
    Man {
        /// The folder to write the pages to. Absent: the first one is printed.
        folder: Option<PathBuf>,
    },
}

const NAME: &str = "drawbridge";

impl CommandLine {
    /// Parses this process's arguments and environment. Prints help or a clear error and exits when
    /// they are not right.
    #[must_use]
    pub fn read() -> Self {
        let matches = command().get_matches();
        Self::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
    }
}

/// The command line with all its environment variables: `DRAWBRIDGE_<COMMAND>_<OPTION>`, and
/// `DRAWBRIDGE_UP_<OPTION>` without a command.
#[must_use]
pub fn command() -> Command {
    CommandLine::command()
        .mut_args(|argument| argument_with_env(argument, "DRAWBRIDGE_UP_"))
        .mut_subcommand("revoke", |revoke| revoke.mut_args(as_called))
        .mut_subcommands(|command| {
            let name = command.get_name().to_owned();
            with_env(command, &name)
        })
}

/// Whoever calls services shows the same to auth: `revoke` takes it from the variables of `call`.
fn as_called(argument: Arg) -> Arg {
    let is_callers = argument.get_help_heading() == Some("Between services");
    match argument.get_long() {
        Some(long) if is_callers => {
            let name = env_name(&["call"], long);
            argument.env(name)
        }
        _ => argument,
    }
}

/// Prints what completes the command line in a shell.
///
/// # Errors
/// When it cannot be printed.
pub fn print_completions(shell: Shell) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command(), NAME, &mut script);
    print(&script)
}

/// Prints all of it, or as much as whoever reads it wants.
fn print(text: &[u8]) -> anyhow::Result<()> {
    match io::stdout().write_all(text) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("cannot print")
        }
        _ => Ok(()),
    }
}

/// Prints the man page, or writes one for each command to a folder.
///
/// # Errors
/// When it cannot be written.
pub fn man(folder: Option<PathBuf>) -> anyhow::Result<()> {
    let command = command();
    match folder {
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(command)
                .render(&mut page)
                .context("cannot render the man page")?;
            print(&page)
        }
        Some(folder) => {
            let shown = folder.display().to_string();
            fs::create_dir_all(&folder).with_context(|| format!("cannot make {shown}"))?;
            clap_mangen::generate_to(command, &folder)
                .with_context(|| format!("cannot write the man pages to {shown}"))
        }
    }
}
