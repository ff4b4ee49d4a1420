//! Runs the development authorization server as a process of its own.

use clap::Parser;
use drawbridge_sdk::{Telemetry, TelemetryConfig, parse_args, run_main, shutdown_signal};
use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// A small OAuth 2.1 authorization server for development.
#[derive(Debug, Parser)]
#[command(name = "drawbridge-idp", version)]
struct Args {
    #[command(flatten)]
    service: drawbridge_idp::Config,
    #[command(flatten)]
    telemetry: TelemetryConfig,
}

fn main() -> anyhow::Result<()> {
    run_main(serve())
}

async fn serve() -> anyhow::Result<()> {
    let args: Args = parse_args("idp");
    let telemetry = Telemetry::install("idp", &args.telemetry)?;
    let running = drawbridge_idp::start(args.service, &telemetry).await?;
    shutdown_signal().await;
    running.stop().await;
    telemetry.flush().await;
    Ok(())
}
