//! The code service as a process.

use std::process::ExitCode;

use drawbridge_code::{Config, start};
use drawbridge_sdk::{ServiceArgs, Telemetry, parse_args, run_main, shutdown_signal};
use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

const ABOUT: &str = "Searches and reads one source tree";

fn main() -> ExitCode {
    run_main(serve())
}

async fn serve() -> anyhow::Result<()> {
    let ServiceArgs::<Config> { config, telemetry } = parse_args("code", ABOUT);
    let telemetry = Telemetry::install("code", &telemetry)?;
    let running = start(config, &telemetry).await?;
    tracing::info!(address = %running.address, admin = %running.admin, "serving");
    shutdown_signal().await;
    running.stop().await;
    telemetry.flush().await;
    Ok(())
}
