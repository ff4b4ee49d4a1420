//! The invoices service as a process.

use clap::Parser;
use drawbridge_invoices::{Config, migrate_by_own_login, start};
use drawbridge_sdk::{Telemetry, TelemetryConfig, parse_args, run_main, shutdown_signal};
use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Gets the data out of invoices, keeps them, and has them approved.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    config: Config,
    #[command(flatten)]
    telemetry: TelemetryConfig,
}

/// What else there is to do than to serve. Options stand before it.
#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Bring the database to the schema of this version, and end.
    Migrate,
}

fn main() -> anyhow::Result<()> {
    run_main(serve())
}

async fn serve() -> anyhow::Result<()> {
    let args = parse_args::<Args>("invoices");
    let telemetry = Telemetry::install("invoices", &args.telemetry)?;
    if let Some(Command::Migrate) = args.command {
        let version = migrate_by_own_login(args.config).await?;
        tracing::info!(version, "the database is migrated");
        telemetry.flush().await;
        return Ok(());
    }
    let running = start(args.config, &telemetry).await?;
    tracing::info!(address = %running.address, admin = %running.admin, "serving");
    shutdown_signal().await;
    running.stop().await;
    telemetry.flush().await;
    Ok(())
}
