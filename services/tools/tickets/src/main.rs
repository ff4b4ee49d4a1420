//! The tickets service as a process.

use std::process::ExitCode;

use drawbridge_sdk::{ServiceArgs, Telemetry, parse_args, run_main, shutdown_signal};
use drawbridge_tickets::{Config, start};
use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

const ABOUT: &str = "Finds, reads, summarizes and answers support tickets";

fn main() -> ExitCode {
    run_main(serve())
}

async fn serve() -> anyhow::Result<()> {
    let ServiceArgs::<Config> { config, telemetry } = parse_args("tickets", ABOUT);
    let telemetry = Telemetry::install("tickets", &telemetry)?;
    let running = start(config, &telemetry).await?;
    tracing::info!(address = %running.address, admin = %running.admin, "serving");
    shutdown_signal().await;
    running.stop().await;
    telemetry.flush().await;
    Ok(())
}
