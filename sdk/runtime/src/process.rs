//! A service as a process: five steps that every service repeats.

use std::{error::Error, process::ExitCode};

use clap::Args;

use crate::{
    args::{ServiceArgs, parse_args},
    blocking::run_main,
    service::RunningService,
    signals::ShutdownSignals,
    telemetry::Telemetry,
};

/// The `main` of a service: parses the command line, and serves until Ctrl-C or SIGTERM. `about` is
/// the first line of its help.
///
/// Prints the help or an error and exits when the arguments are invalid.
pub fn run_service<C, E>(
    service: &'static str,
    about: &'static str,
    start: impl AsyncFnOnce(C, &Telemetry) -> Result<RunningService, E>,
) -> ExitCode
where
    C: Args,
    E: Into<Box<dyn Error + Send + Sync>>,
{
    let args = parse_args::<ServiceArgs<C>>(service, about);
    run_main(serve_until_signal(service, args, start))
}

/// A second signal arrived while a service drained.
#[derive(Debug, thiserror::Error)]
#[error("ended by a second signal, before the calls in flight had ended")]
struct Interrupted;

/// Installs telemetry, starts a service, waits for Ctrl-C or SIGTERM, drains the service, and
/// exports the last spans.
///
/// # Errors
/// When telemetry or the service cannot start, or a second signal ends the drain.
pub async fn serve_until_signal<C, E>(
    service: &'static str,
    args: ServiceArgs<C>,
    start: impl AsyncFnOnce(C, &Telemetry) -> Result<RunningService, E>,
) -> Result<(), Box<dyn Error + Send + Sync>>
where
    C: Args,
    E: Into<Box<dyn Error + Send + Sync>>,
{
    let telemetry = Telemetry::install(service, &args.telemetry)?;
    let mut signals = ShutdownSignals::listen();
    let running = tokio::select! {
        started = start(args.config, &telemetry) => started.map_err(Into::into)?,
        () = signals.next() => {
            tracing::info!("ended by a signal before the service had started");
            telemetry.flush().await;
            return Ok(());
        }
    };
    tracing::info!(address = %running.address, admin = %running.admin, "serving");
    signals.next().await;
    tracing::info!("draining; a second signal ends the process at once");
    let draining = async {
        running.drain(&args.drain).await;
        telemetry.flush().await;
    };
    tokio::select! {
        () = draining => Ok(()),
        () = signals.next() => Err(Interrupted.into()),
    }
}
