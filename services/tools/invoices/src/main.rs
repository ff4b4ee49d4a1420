//! The invoices service as a process.

use std::process::ExitCode;

use drawbridge_invoices::{Config, migrate_by_own_login, start};
use drawbridge_sdk::{ServiceArgs, Telemetry, parse_args, run_main, shutdown_signal};
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
    run_main(serve())
}

async fn serve() -> anyhow::Result<()> {
    let Args { command, service: ServiceArgs { config, telemetry } } =
        parse_args("invoices", ABOUT);
    let telemetry = Telemetry::install("invoices", &telemetry)?;
    if let Some(Command::Migrate) = command {
        let version = migrate_by_own_login(config).await?;
        tracing::info!(version, "the database is migrated");
        telemetry.flush().await;
        return Ok(());
    }
    let running = start(config, &telemetry).await?;
    tracing::info!(address = %running.address, admin = %running.admin, "serving");
    shutdown_signal().await;
    running.stop().await;
    telemetry.flush().await;
    Ok(())
}
