//! The invoices service as a process.

use std::process::ExitCode;

use drawbridge_invoices::{Config, migrate_by_own_login, start};
use drawbridge_sdk::{ServiceArgs, Telemetry, parse_args, run_main, serve_until_signal};
use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

const ABOUT: &str = "Extracts, stores and approves invoices";

#[derive(Debug, clap::Args)]
struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    service: ServiceArgs<Config>,
}

/// Subcommands. Without one, the service starts. Options precede the subcommand.
#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Migrate the database to the schema of this version, and exit.
    Migrate,
}

fn main() -> ExitCode {
    let Args { command, service } = parse_args("invoices", ABOUT);
    match command {
        Some(Command::Migrate) => run_main(migrate(service)),
        None => run_main(serve_until_signal("invoices", service, start)),
    }
}

async fn migrate(args: ServiceArgs<Config>) -> anyhow::Result<()> {
    let telemetry = Telemetry::install("invoices", &args.telemetry)?;
    let version = migrate_by_own_login(args.config).await?;
    tracing::info!(version, "the database is migrated");
    telemetry.flush().await;
    Ok(())
}
