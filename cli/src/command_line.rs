//! The command line of `drawbridge`: subcommands, options and their environment variables.

use std::{
    fs,
    io::{self, Write as _},
    path::PathBuf,
};

use anyhow::Context as _;
use clap::{Arg, Command, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use clap_complete::Shell;
use drawbridge_runtime::{argument_with_env, env_name, with_env};

use crate::{
    audit, call, catalog, client, config, docs, doctor, init, mcp, new, policy, revoke, token, top,
    trace, transform, up, vault,
};

/// Remote MCP servers in front of your internal gRPC tools.
#[derive(Parser)]
#[command(
    name = NAME,
    version = env!("DRAWBRIDGE_VERSION"),
    args_conflicts_with_subcommands = true
)]
pub struct CommandLine {
    /// The subcommand. Absent: [`Subcommands::Up`].
    #[command(subcommand)]
    pub command: Option<Subcommands>,
    /// The options of `up`, for use without a subcommand.
    #[command(flatten)]
    pub up: up::UpArgs,
}

/// The subcommands.
#[derive(Subcommand)]
pub enum Subcommands {
    /// Start the whole mesh in this process (the default).
    Up(Box<up::UpArgs>),
    /// Write the policies, config and users of a mesh of your own.
    Init(init::InitArgs),
    /// Write a new tool service from a template.
    #[command(subcommand)]
    New(new::NewCommand),
    /// Call an RPC of a tool service directly, as an internal caller does.
    Call(call::CallArgs),
    /// Print an access token for the MCP endpoint, for scripts.
    Token(token::TokenArgs),
    /// List, call and watch tools, as an AI client does.
    #[command(subcommand)]
    Tools(mcp::ToolsCommand),
    /// List and read resources, as an AI client does.
    #[command(subcommand)]
    Resources(mcp::ResourcesCommand),
    /// List and get prompts, as an AI client does.
    #[command(subcommand)]
    Prompts(mcp::PromptsCommand),
    /// Revoke access tokens before they expire.
    Revoke(revoke::RevokeArgs),
    /// Check, test and explain policies, and generate their schema and catalog.
    #[command(subcommand)]
    Policy(policy::PolicyCommand),
    /// Verify, search, prove and export audit logs.
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// Review and lock the tools, resources and prompts that clients see.
    #[command(subcommand)]
    Catalog(catalog::CatalogCommand),
    /// Check the files that an operator writes, and print their schemas.
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Run the transformations of an edge config file on a sample.
    #[command(subcommand)]
    Transform(transform::TransformCommand),
    /// Check what a set-up needs: issuers, Redis, Vault, PostgreSQL, certificates, services,
    /// policies, files; and say what to do.
    Doctor(doctor::DoctorArgs),
    /// Show calls, latencies, failures, queues, sessions and health of running services.
    Top(top::TopArgs),
    /// Show one call in the mesh of `up`: the decision, its spans as a tree, its log lines.
    Trace(trace::TraceArgs),
    /// Print the recent log lines of the mesh of `up`, or those of one request.
    Logs(trace::LogsArgs),
    /// Set up the Vault that issues credentials to tool services.
    #[command(subcommand)]
    Vault(vault::VaultCommand),
    /// Add the MCP endpoint to an AI client.
    #[command(subcommand)]
    Client(client::ClientCommand),
    /// Write the generated parts of the documentation. For contributors.
    #[command(hide = true)]
    Docs(docs::DocsArgs),
    /// Print a shell completion script.
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
        /// The folder to write the pages to. Absent: print the page of `drawbridge` itself.
        folder: Option<PathBuf>,
    },
}

const NAME: &str = "drawbridge";

impl CommandLine {
    /// Parses this process's arguments and environment. Prints help, or an error if they are
    /// invalid, and exits.
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
        .mut_subcommand("revoke", |revoke| revoke.mut_args(with_call_variable))
        .mut_subcommands(|command| {
            let name = command.get_name().to_owned();
            with_env(command, &name)
        })
}

/// `revoke` presents the same client certificate as `call`, so it reads the variables of `call`.
fn with_call_variable(argument: Arg) -> Arg {
    let is_caller_option = argument.get_help_heading() == Some("Between services");
    match argument.get_long() {
        Some(long) if is_caller_option => {
            let name = env_name(&["call"], long);
            argument.env(name)
        }
        _ => argument,
    }
}

/// Prints a shell completion script.
///
/// # Errors
/// When standard output cannot be written.
pub fn print_completions(shell: Shell) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command(), NAME, &mut script);
    print(&script)
}

/// Prints the text. A reader that closes the pipe early is not an error.
fn print(text: &[u8]) -> anyhow::Result<()> {
    match io::stdout().write_all(text) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to standard output")
        }
        _ => Ok(()),
    }
}

/// Prints the man page, or writes one for each command to a folder.
///
/// # Errors
/// When a page cannot be written.
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
            fs::create_dir_all(&folder)
                .with_context(|| format!("cannot create the folder {shown}"))?;
            clap_mangen::generate_to(command, &folder)
                .with_context(|| format!("cannot write the man pages to {shown}"))
        }
    }
}
