//! Leases of open streams: a stream ends when its token expires or is revoked, or policy no longer
//! allows it.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures::future::BoxFuture;
use tokio::{sync::watch, time::Instant};

use super::{
    Allowed, Reauthorizer,
    epochs::{CurrentEpoch, Epochs, NO_EPOCH, Period},
};
use crate::refusal::Refusal;

/// How long to wait before an unavailable auth is asked again.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// How long a decision is valid that was made in another epoch than the one in which it was
/// requested, for example while replicas of auth differ.
const FOREIGN_EPOCH_TTL: Duration = Duration::from_secs(60);
/// The longest time that a timer is set to: a token may never expire.
const TIMER_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

/// A stream's permission to stay open. It is renewed in each epoch of auth, and ends with its
/// token.
pub(crate) struct StreamLease {
    /// All of these operations must be allowed.
    reauthorizers: Arc<[Reauthorizer]>,
    epochs: watch::Receiver<CurrentEpoch>,
    /// The period of the last renewal: an epoch's number returns, for example when auth restarts,
    /// though an issuer has withdrawn a key meanwhile. Absent: that of the decision was over.
    renewed_in: Option<Period>,
    renew_at: Instant,
    /// The renewal in progress, and the epoch for which it began.
    pending: Option<(CurrentEpoch, Renewal)>,
}

impl fmt::Debug for StreamLease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamLease")
            .field("reauthorizers", &self.reauthorizers)
            .field("renewed_in", &self.renewed_in)
            .finish_non_exhaustive()
    }
}

/// A renewal in progress. It returns the epoch of the decision, and when the token expires.
type Renewal = BoxFuture<'static, Result<(u64, Instant), Refusal>>;

/// The lease ended: the stream must be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LeaseEnded;

impl StreamLease {
    /// A lease of operations that were allowed in `epoch`, until the token expires.
    pub(crate) fn new(
        reauthorizers: Vec<Reauthorizer>,
        epoch: u64,
        expires_at: Option<SystemTime>,
    ) -> Self {
        let epochs = reauthorizers.first().map_or_else(
            || Epochs::new().subscribe(),
            |reauthorizer| reauthorizer.authorizer().decisions.subscribe(),
        );
        let current = *epochs.borrow();
        Self {
            reauthorizers: reauthorizers.into(),
            epochs,
            renewed_in: (current.number == epoch).then_some(current.period),
            renew_at: timer_at(expires_at),
            pending: None,
        }
    }

    /// Whether the lease was renewed in the current epoch. Until it is, and while the epoch stream
    /// is lost, nothing is sent on the stream.
    pub(crate) fn is_current(&self) -> bool {
        let epoch = self.epochs.borrow();
        epoch.number != NO_EPOCH && Some(epoch.period) == self.renewed_in
    }

    /// A reauthorizer of this stream's caller for the operation of another caller.
    pub(crate) fn reauthorizer_for(&self, other: &Reauthorizer) -> Option<Reauthorizer> {
        Some(self.reauthorizers.first()?.for_operation(Arc::clone(other.operation())))
    }

    /// Waits until the epoch or the token ends, and renews the lease. Cancellation safe: a renewal
    /// in progress continues with the next call.
    ///
    /// # Errors
    /// When the lease ends.
    pub(crate) async fn renew(&mut self) -> Result<(), LeaseEnded> {
        let epoch = *self.epochs.borrow_and_update();
        let is_due = self.renew_at <= Instant::now();
        let is_current = epoch.number == NO_EPOCH || Some(epoch.period) == self.renewed_in;
        if self.pending.is_none() && !is_due && is_current {
            tokio::select! {
                changed = self.epochs.changed() => changed.map_err(|_| LeaseEnded)?,
                () = tokio::time::sleep_until(self.renew_at) => {}
            }
            return Ok(());
        }
        let begin = || -> (CurrentEpoch, Renewal) {
            (epoch, Box::pin(reauthorize_all(Arc::clone(&self.reauthorizers), !is_due)))
        };
        let (requested_in, renewal) = self.pending.get_or_insert_with(begin);
        let (requested_in, result) = (*requested_in, renewal.await);
        self.pending = None;
        match result {
            Ok((decided_in, expires_at)) if expires_at > Instant::now() => {
                self.renew_at = expires_at;
                if requested_in.number != NO_EPOCH {
                    self.renewed_in = Some(requested_in.period);
                }
                if decided_in != requested_in.number {
                    self.renew_at = expires_at.min(Instant::now() + FOREIGN_EPOCH_TTL);
                }
                Ok(())
            }
            // The operation is not allowed, or the token has expired: the leeway of new requests
            // does not apply.
            _ => Err(LeaseEnded),
        }
    }
}

/// Reauthorizes all operations. Returns the epoch of the decisions, and when the token expires.
/// While the token has not expired, an unavailable auth is asked until it responds.
async fn reauthorize_all(
    reauthorizers: Arc<[Reauthorizer]>,
    may_retry: bool,
) -> Result<(u64, Instant), Refusal> {
    loop {
        match reauthorize_all_once(&reauthorizers).await {
            Err(Refusal::AuthUnavailable | Refusal::Unverified) if may_retry => {
                tokio::time::sleep(RETRY_INTERVAL).await;
            }
            result => return result,
        }
    }
}

async fn reauthorize_all_once(reauthorizers: &[Reauthorizer]) -> Result<(u64, Instant), Refusal> {
    let Some(first) = reauthorizers.first() else { return Err(Refusal::AuthUnavailable) };
    let _permit = first.authorizer().renewals.acquire().await;
    let mut allowed = (NO_EPOCH, timer_at(None));
    for reauthorizer in reauthorizers {
        let Allowed { epoch, expires_at, .. } = reauthorizer.reauthorize().await?;
        allowed = (epoch, allowed.1.min(timer_at(expires_at)));
    }
    Ok(allowed)
}

fn timer_at(time: Option<SystemTime>) -> Instant {
    let left =
        time.map_or(TIMER_MAX, |time| time.duration_since(SystemTime::now()).unwrap_or_default());
    Instant::now() + left.min(TIMER_MAX)
}
