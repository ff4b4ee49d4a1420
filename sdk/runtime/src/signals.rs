//! Ctrl-C and SIGTERM.

#[cfg(unix)]
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that ask a process to stop: Ctrl-C (SIGINT) and SIGTERM.
#[derive(Debug)]
pub struct ShutdownSignals {
    /// Absent: a handler could not be installed, and the signal ends the process.
    #[cfg(unix)]
    signals: [Option<Signal>; 2],
}

impl ShutdownSignals {
    /// Installs the handlers, so that no signal from now on is lost. Must be called within a
    /// runtime.
    #[must_use]
    pub fn listen() -> Self {
        #[cfg(unix)]
        let signals = [SignalKind::interrupt(), SignalKind::terminate()].map(|kind| {
            signal(kind)
                .inspect_err(|error| tracing::error!(%error, ?kind, "cannot listen for a signal"))
                .ok()
        });
        Self {
            #[cfg(unix)]
            signals,
        }
    }

    /// Waits for the next of them.
    #[cfg(unix)]
    pub async fn next(&mut self) {
        let [interrupt, terminate] = &mut self.signals;
        tokio::select! {
            () = received(interrupt) => {}
            () = received(terminate) => {}
        }
    }

    /// Waits for the next Ctrl-C.
    #[cfg(not(unix))]
    pub async fn next(&mut self) {
        if let Err(error) = tokio::signal::ctrl_c().await {
            tracing::error!(%error, "cannot listen for Ctrl-C");
            std::future::pending().await
        }
    }
}

#[cfg(unix)]
async fn received(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}
