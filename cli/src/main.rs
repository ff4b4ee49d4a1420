//! The command line `drawbridge`.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use drawbridge_cli::{call, catalog, policy, revoke, transform, up, vault};
use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Remote MCP servers in front of your internal gRPC tools.
#[derive(Parser)]
#[command(name = "drawbridge", version, args_conflicts_with_subcommands = true)]
struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    up: up::UpArgs,
}

#[derive(Subcommand)]
enum Command {
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
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    let done = match args.command {
        None => up::run(args.up).await,
        Some(Command::Up(args)) => up::run(args).await,
        Some(Command::Call(args)) => call::run(args).await,
        Some(Command::Revoke(args)) => revoke::run(args).await,
        Some(Command::Transform(command)) => transform::run(command),
        Some(Command::Vault(command)) => vault::run(command).await,
        Some(Command::Catalog(command)) => return catalog::run(command).await,
        Some(Command::Policy(command)) => return policy::run(command).await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            anstream::eprintln!("drawbridge: {error:#}");
            ExitCode::FAILURE
        }
    }
}
