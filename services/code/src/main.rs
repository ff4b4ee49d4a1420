//! The code service as a process.

use clap::Parser;
use drawbridge_code::{Config, start};
use drawbridge_sdk::{Telemetry, TelemetryConfig, parse_args, run_main, shutdown_signal};
use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Searches and reads one source tree.
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
    let args = parse_args::<Args>("code");
    let telemetry = Telemetry::install("code", &args.telemetry)?;
    let running = start(args.config, &telemetry).await?;
    tracing::info!(address = %running.address, admin = %running.admin, "serving");
    shutdown_signal().await;
    running.stop().await;
    telemetry.flush().await;
    Ok(())
}
