//! The tickets service as a process.

use clap::Parser;
use drawbridge_sdk::{Telemetry, TelemetryConfig, parse_args, shutdown_signal};
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

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = parse_args::<Args>("tickets");
    let telemetry = Telemetry::install("tickets", &args.telemetry)?;
    let running = start(args.config, &telemetry).await?;
    tracing::info!(address = %running.address, admin = %running.admin, "serving");
    shutdown_signal().await;
    running.stop().await;
    telemetry.flush().await;
    Ok(())
}
