//! The edge service.

use clap::Parser;
use drawbridge_sdk::{Telemetry, TelemetryConfig, parse_args, run_main, shutdown_signal};
use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Speaks MCP to AI clients and calls tool services over gRPC.
#[derive(Parser)]
#[command(name = "drawbridge-edge", version)]
struct Args {
    #[command(flatten)]
    config: drawbridge_edge::Config,
    #[command(flatten)]
    telemetry: TelemetryConfig,
}

fn main() -> anyhow::Result<()> {
    run_main(serve())
}

async fn serve() -> anyhow::Result<()> {
    let args: Args = parse_args("edge");
    let telemetry = Telemetry::install("edge", &args.telemetry)?;
    let running = drawbridge_edge::start(args.config, &telemetry).await?;
    shutdown_signal().await;
    running.stop().await;
    telemetry.flush().await;
    Ok(())
}
