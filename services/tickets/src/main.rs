//! The tickets service as a process.

use clap::Parser;
use drawbridge_sdk::{Telemetry, TelemetryConfig, parse_args, run_main, shutdown_signal};
use drawbridge_tickets::{Config, start};
use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Finds, reads, summarizes and answers support tickets.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    #[command(flatten)]
    config: Config,
    #[command(flatten)]
    telemetry: TelemetryConfig,
}

fn main() -> anyhow::Result<()> {
    run_main(serve())
}

async fn serve() -> anyhow::Result<()> {
    let args = parse_args::<Args>("tickets");
    let telemetry = Telemetry::install("tickets", &args.telemetry)?;
    let running = start(args.config, &telemetry).await?;
    tracing::info!(address = %running.address, admin = %running.admin, "serving");
    shutdown_signal().await;
    running.stop().await;
    telemetry.flush().await;
    Ok(())
}
