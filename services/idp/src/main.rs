//! The development authorization server as a process.

use std::process::ExitCode;

use drawbridge_idp::{Config, start};
use drawbridge_runtime::{ServiceArgs, Telemetry, parse_args, run_main, shutdown_signal};
use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

const ABOUT: &str = "A small OAuth 2.1 authorization server for development";

fn main() -> ExitCode {
    run_main(serve())
}

async fn serve() -> anyhow::Result<()> {
    let ServiceArgs::<Config> { config, telemetry } = parse_args("idp", ABOUT);
    let telemetry = Telemetry::install("idp", &telemetry)?;
    let running = start(config, &telemetry).await?;
    shutdown_signal().await;
    running.stop().await;
    telemetry.flush().await;
    Ok(())
}
