//! For how long a stream may stay open: as long as its token lives, is not revoked, and policy allows it.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures::future::BoxFuture;
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
pub(crate) struct Lease {
    /// What is asked again. All of it has to be allowed.
    asks: Arc<[Reauthorizer]>,
    epochs: watch::Receiver<u64>,
    /// The epoch in which the stream was allowed last.
    decided: u64,
    again_at: Instant,
    /// The decision that is under way, and the epoch that it is for.
    asking: Option<(u64, Deciding)>,
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("asks", &self.asks)
            .field("decided", &self.decided)
            .finish_non_exhaustive()
    }
}

/// A decision under way: in which epoch it was allowed, and until when.
type Deciding = BoxFuture<'static, Result<(u64, Instant), Refusal>>;

/// The stream is no longer allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Over;

impl Lease {
    /// A lease on what was allowed in `epoch`, until the token expires.
    pub(crate) fn new(asks: Vec<Reauthorizer>, epoch: u64, expires_at: Option<SystemTime>) -> Self {
        let epochs = asks
            .first()
            .map_or_else(|| watch::channel(SILENCE).1, |ask| ask.authorizer().kept.epochs());
        Self { asks: asks.into(), epochs, decided: epoch, again_at: at(expires_at), asking: None }
    }

    /// Whether it was decided in the epoch that holds. While it was not, or auth is silent, nothing is sent on
    /// the stream.
    pub(crate) fn is_decided(&self) -> bool {
        let epoch = *self.epochs.borrow();
        epoch != SILENCE && epoch == self.decided
    }

    /// Asks whether the caller may also see what was allowed to another.
    pub(crate) fn also(&self, other: &Reauthorizer) -> Option<Reauthorizer> {
        Some(self.asks.first()?.of(Arc::clone(other.operation())))
    }

    /// Waits until the epoch or the token ends, and decides again. It may be dropped and called again: a decision
    /// that is under way goes on then.
    ///
    /// # Errors
    /// When the stream is to end.
    pub(crate) async fn renew(&mut self) -> Result<(), Over> {
        let epoch = *self.epochs.borrow_and_update();
        let is_due = self.again_at <= Instant::now();
        if self.asking.is_none() && !is_due && (epoch == SILENCE || epoch == self.decided) {
            tokio::select! {
                changed = self.epochs.changed() => changed.map_err(|_| Over)?,
                () = tokio::time::sleep_until(self.again_at) => {}
            }
            return Ok(());
        }
        let begin =
            || -> (u64, Deciding) { (epoch, Box::pin(ask(Arc::clone(&self.asks), !is_due))) };
        let (asked_in, asking) = self.asking.get_or_insert_with(begin);
        let (asked_in, answer) = (*asked_in, asking.await);
        self.asking = None;
        match answer {
            Ok((allowed_in, again_at)) if again_at > Instant::now() => {
                self.again_at = again_at;
                if asked_in != SILENCE {
                    self.decided = asked_in;
                }
                if allowed_in != asked_in {
                    self.again_at = again_at.min(Instant::now() + OTHER_EPOCH);
                }
                Ok(())
            }
            // The token has expired, whatever leeway new requests have.
            _ => Err(Over),
        }
    }
}

/// Asks for all of it. Says in which epoch it is allowed, and until when. Before the token has expired, auth that
/// gives no answer is asked until it does.
async fn ask(asks: Arc<[Reauthorizer]>, has_time: bool) -> Result<(u64, Instant), Refusal> {
    loop {
        match ask_once(&asks).await {
            Err(Refusal::AuthUnavailable | Refusal::Unverified) if has_time => {
                tokio::time::sleep(RETRY_PAUSE).await;
            }
            answer => return answer,
        }
    }
}

async fn ask_once(asks: &[Reauthorizer]) -> Result<(u64, Instant), Refusal> {
    let Some(first) = asks.first() else { return Err(Refusal::AuthUnavailable) };
    let _permit = first.authorizer().renewals.acquire().await;
    let mut allowed = (SILENCE, at(None));
    for ask in asks {
        let Allowed { epoch, expires_at, .. } = ask.ask().await?;
        allowed = (epoch, allowed.1.min(at(expires_at)));
    }
    Ok(allowed)
}

fn at(time: Option<SystemTime>) -> Instant {
    let left =
        time.map_or(NEVER, |time| time.duration_since(SystemTime::now()).unwrap_or_default());
    Instant::now() + left.min(NEVER)
}
