use std::time::Duration;

use drawbridge_runtime::{CircuitBreaker, Transition};

use super::error::{CredentialsError, Outage};

/// After this many consecutive failures the circuit opens for the pause.
const FAILURES_MAX: u32 = 5;
const PAUSE: Duration = Duration::from_secs(2);

/// The circuit breaker of a source of credentials.
#[derive(Debug)]
pub(super) struct SourceCircuit {
    source: &'static str,
    breaker: CircuitBreaker,
}

impl SourceCircuit {
    /// A closed circuit to the source of this name.
    pub(super) fn new(source: &'static str) -> Self {
        Self { source, breaker: CircuitBreaker::new(FAILURES_MAX, PAUSE) }
    }

    /// Runs an operation, unless the circuit is open.
    pub(super) async fn call<T>(
        &self,
        operation: impl Future<Output = Result<T, CredentialsError>>,
    ) -> Result<T, CredentialsError> {
        let Some(permit) = self.breaker.admit() else {
            return Err(CredentialsError::Unavailable(Outage::CircuitOpen));
        };
        let done = operation.await;
        // An internal failure may concern one database; the others must not suffer from it.
        let outage = match &done {
            Err(CredentialsError::Unavailable(outage)) if *outage != Outage::Failed => Some(outage),
            _ => None,
        };
        match permit.record(outage.is_none()) {
            Some(Transition::Opened) => {
                let cause = outage.map(ToString::to_string);
                tracing::error!(
                    cause,
                    "{} failed repeatedly; its circuit is open but for trial calls",
                    self.source
                );
            }
            Some(Transition::Closed) => {
                tracing::info!("{} answers again; its circuit is closed", self.source);
            }
            None => {}
        }
        done
    }
}
