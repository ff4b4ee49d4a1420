//! For how long a stream may stay open: as long as its token lives, is not revoked, and policy allows it.

use std::time::{Duration, SystemTime};

use tokio::{sync::watch, time::Instant};

use super::{Allowed, Reauthorizer, kept::SILENCE};
use crate::refusal::Refusal;

/// Before auth is asked again that gave no answer.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// Before a decision is made again that another replica of auth made, in an epoch of its own.
const OTHER_EPOCH: Duration = Duration::from_secs(60);
/// The furthest moment that a timer is set to: a token may never expire.
const NEVER: Duration = Duration::from_secs(30 * 24 * 3600);

/// A stream's right to stay open. It is decided again in each epoch of auth, and ends with its token.
#[derive(Debug)]
pub(crate) struct Lease {
    /// What is asked again. All of it has to be allowed.
    asks: Vec<Reauthorizer>,
    epochs: watch::Receiver<u64>,
    /// The epoch in which the stream was allowed last.
    decided: u64,
    again_at: Instant,
}

/// The stream is no longer allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Over;

impl Lease {
    /// A lease on what was allowed in `epoch`, until the token expires.
    pub(crate) fn new(asks: Vec<Reauthorizer>, epoch: u64, expires_at: Option<SystemTime>) -> Self {
        let epochs =
            asks.first().map_or_else(|| watch::channel(SILENCE).1, |ask| ask.authorizer().kept.epochs());
        Self { asks, epochs, decided: epoch, again_at: at(expires_at) }
    }

    /// Whether it was decided in the epoch that holds. While it was not, or auth is silent, nothing is sent on
    /// the stream.
    pub(crate) fn is_decided(&self) -> bool {
        let epoch = *self.epochs.borrow();
        epoch != SILENCE && epoch == self.decided
    }

    /// Whether the caller may also see this.
    pub(crate) async fn may(&self, operation: &Reauthorizer) -> bool {
        let Some(own) = self.asks.first() else { return false };
        own.of(operation.operation().clone()).ask().await.is_ok()
    }

    /// Waits until the epoch or the token ends, and decides again. It may be dropped and called again.
    ///
    /// # Errors
    /// When the stream is to end.
    pub(crate) async fn renew(&mut self) -> Result<(), Over> {
        loop {
            let epoch = *self.epochs.borrow_and_update();
            let is_due = self.again_at <= Instant::now();
            if !is_due && (epoch == SILENCE || epoch == self.decided) {
                tokio::select! {
                    changed = self.epochs.changed() => changed.map_err(|_| Over)?,
                    () = tokio::time::sleep_until(self.again_at) => {}
                }
                return Ok(());
            }
            match self.ask().await {
                Ok((allowed_in, again_at)) if again_at > Instant::now() => {
                    self.again_at = again_at;
                    if epoch != SILENCE {
                        self.decided = epoch;
                    }
                    if allowed_in != epoch {
                        self.again_at = again_at.min(Instant::now() + OTHER_EPOCH);
                    }
                    return Ok(());
                }
                Err(Refusal::AuthUnavailable) if !is_due => tokio::time::sleep(RETRY_PAUSE).await,
                // The token has expired, whatever leeway new requests have.
                _ => return Err(Over),
            }
        }
    }

    /// Asks for all of it. Says in which epoch it is allowed, and until when.
    async fn ask(&self) -> Result<(u64, Instant), Refusal> {
        let Some(first) = self.asks.first() else { return Err(Refusal::AuthUnavailable) };
        let _permit = first.authorizer().renewals.acquire().await;
        let mut allowed = (SILENCE, at(None));
        for ask in &self.asks {
            let Allowed { epoch, expires_at, .. } = ask.ask().await?;
            allowed = (epoch, allowed.1.min(at(expires_at)));
        }
        Ok(allowed)
    }
}

fn at(time: Option<SystemTime>) -> Instant {
    let left = time.map_or(NEVER, |time| time.duration_since(SystemTime::now()).unwrap_or_default());
    Instant::now() + left.min(NEVER)
}
