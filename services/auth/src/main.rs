//! The auth service as a process.

use std::process::ExitCode;

use drawbridge_auth::{Config, start};
use drawbridge_runtime::{ServiceArgs, Telemetry, parse_args, run_main, shutdown_signal};
use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

const ABOUT: &str =
    "Validates access tokens, evaluates Cedar policies and signs transaction tokens";

fn main() -> ExitCode {
    run_main(serve())
}

async fn serve() -> anyhow::Result<()> {
    let ServiceArgs::<Config> { config, telemetry } = parse_args("auth", ABOUT);
    let telemetry = Telemetry::install("auth", &telemetry)?;
    let running = start(config, &telemetry).await?;
    shutdown_signal().await;
    running.stop().await;
    telemetry.flush().await;
    Ok(())
}
