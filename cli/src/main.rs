//! The command line `drawbridge`.

use std::process::ExitCode;

use drawbridge_cli::{
    audit, call, catalog, client,
    command_line::{self, CommandLine, Subcommands},
    config, docs, doctor, init, mcp, new, policy, revoke, token, top, trace, transform, up, vault,
};
use drawbridge_runtime::exit_code;
use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    let CommandLine { command, up } = CommandLine::read();
    exit_code(match command {
        None => up::run(up).await,
        Some(Subcommands::Up(args)) => up::run(*args).await,
        Some(Subcommands::Call(args)) => call::run(args).await,
        Some(Subcommands::Revoke(args)) => revoke::run(args).await,
        Some(Subcommands::Transform(command)) => transform::run(command),
        Some(Subcommands::Vault(command)) => vault::run(command).await,
        Some(Subcommands::Init(args)) => init::run(&args),
        Some(Subcommands::New(command)) => new::run(&command),
        Some(Subcommands::Client(command)) => client::run(&command),
        Some(Subcommands::Docs(args)) => docs::run(&args, command_line::command()),
        Some(Subcommands::Man { folder }) => command_line::man(folder),
        Some(Subcommands::Completions { shell }) => command_line::print_completions(shell),
        Some(Subcommands::Token(args)) => token::run(args).await,
        Some(Subcommands::Top(args)) => top::run(args).await,
        Some(Subcommands::Trace(args)) => trace::run(args).await,
        Some(Subcommands::Logs(args)) => trace::logs(args).await,
        Some(Subcommands::Tools(command)) => return mcp::tools(command).await,
        Some(Subcommands::Resources(command)) => return mcp::resources(command).await,
        Some(Subcommands::Prompts(command)) => return mcp::prompts(command).await,
        Some(Subcommands::Doctor(args)) => return doctor::run(args).await,
        Some(Subcommands::Audit(command)) => return audit::run(&command),
        Some(Subcommands::Config(command)) => return config::run(&command),
        Some(Subcommands::Catalog(command)) => return catalog::run(command).await,
        Some(Subcommands::Policy(command)) => return policy::run(command).await,
    })
}
