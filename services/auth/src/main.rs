//! The auth service.

use clap::Parser;
use drawbridge_sdk::{Telemetry, TelemetryConfig, parse_args, run_main, shutdown_signal};
use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Validates access tokens, evaluates Cedar policies and signs transaction tokens.
#[derive(Parser)]
#[command(name = "drawbridge-auth", version)]
struct Args {
    #[command(flatten)]
    config: drawbridge_auth::Config,
    #[command(flatten)]
    telemetry: TelemetryConfig,
}

fn main() -> anyhow::Result<()> {
    run_main(serve())
}

async fn serve() -> anyhow::Result<()> {
    let args: Args = parse_args("auth");
    let telemetry = Telemetry::install("auth", &args.telemetry)?;
    let running = drawbridge_auth::start(args.config, &telemetry).await?;
    shutdown_signal().await;
    running.stop().await;
    telemetry.flush().await;
    Ok(())
}
