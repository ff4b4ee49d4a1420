//! The invoices service as a process.

use clap::Parser;
use drawbridge_invoices::{Config, start};
use drawbridge_sdk::{Telemetry, TelemetryConfig, parse_args, shutdown_signal};

/// Gets the data out of invoices.
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
    let args = parse_args::<Args>("invoices");
    let telemetry = Telemetry::install("invoices", &args.telemetry)?;
    let running = start(args.config, &telemetry).await?;
    tracing::info!(address = %running.address, admin = %running.admin, "serving");
    shutdown_signal().await;
    running.stop().await;
    telemetry.flush().await;
    Ok(())
}
