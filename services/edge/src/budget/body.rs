//! Request bodies in memory: how many bytes of them this replica holds at once, per caller and in
//! total.

use std::{sync::Arc, time::Duration};

use axum::body::Body;
use axum::body::HttpBody as _;
use bytes::{Bytes, BytesMut};
use drawbridge_runtime::BodyTimeout;
use http_body_util::BodyExt as _;
use tokio::time::timeout;

use crate::{
    metrics::{BODIES_REFUSED, BODIES_WAITING},
    refusal::Refusal,
    traffic::queue::CallerHash,
};

use super::Budget;

/// How many bytes of an unauthenticated request's body are read and discarded: a client that is
/// still sending would lose its connection, and with it the response.
const DISCARDED_BYTES_MAX: usize = 64 * 1024;
/// Bodies above this size, in bytes, are large.
const LARGE_BYTES: usize = 64 * 1024;
/// How many copies of its bytes a body is charged for: itself, its parsed strings, and the gRPC
/// message made from them.
const COPIES: usize = 3;
/// How long a body waits for memory, and how long discarding one takes at most.
const WAIT: Duration = Duration::from_secs(1);

/// The limits of request bodies on this replica.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Request bodies")]
pub struct BodyLimits {
    /// The largest request body, in bytes.
    #[arg(long, default_value_t = 4 * 1024 * 1024)]
    pub body_bytes_max: usize,

    /// How many bytes of bodies may be in memory at once, each counted three times, with the values
    /// parsed from them. One principal may use a quarter of it, and large bodies three quarters.
    #[arg(long, default_value_t = 64 * 1024 * 1024)]
    pub bodies_bytes_max: usize,

    /// How many values the parameters of one message may contain.
    #[arg(long, default_value_t = 32 * 1024)]
    pub params_values_max: usize,

    /// How deep the parameters may nest.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u8).range(1..=100))]
    pub params_depth_max: u8,
}

impl Default for BodyLimits {
    fn default() -> Self {
        drawbridge_runtime::parse_defaults(&[])
    }
}

/// The memory of request bodies.
#[derive(Debug)]
pub(crate) struct BodyBudget {
    limits: BodyLimits,
    budget: Budget,
}

/// The memory of one body, released on drop.
#[derive(Debug)]
pub(crate) struct BodyPermit {
    budget: Arc<BodyBudget>,
    caller: CallerHash,
    bytes: usize,
}

impl BodyBudget {
    pub(crate) fn new(limits: BodyLimits) -> Self {
        Self { limits, budget: Budget::default() }
    }

    pub(crate) fn limits(&self) -> &BodyLimits {
        &self.limits
    }

    /// The permit of a body before anything of it is read.
    pub(crate) fn permit(self: &Arc<Self>, caller: CallerHash) -> BodyPermit {
        BodyPermit { budget: Arc::clone(self), caller, bytes: 0 }
    }

    /// Reads the body of an authenticated caller, as memory permits.
    pub(crate) async fn read(
        self: &Arc<Self>,
        caller: CallerHash,
        mut body: Body,
    ) -> Result<(Bytes, BodyPermit), Refusal> {
        let bytes_max = self.limits.body_bytes_max;
        let mut permit = self.permit(caller);
        // The declared length is charged at once, so that bodies do not deadlock on each other's
        // memory.
        let declared = body.size_hint().exact().and_then(|length| usize::try_from(length).ok());
        let declared = declared.filter(|length| *length <= bytes_max).unwrap_or_default();
        permit.grow(COPIES * declared).await?;
        let (mut first, mut rest, mut length) = (Bytes::new(), BytesMut::new(), 0);
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| body_error(&error))?;
            let Ok(data) = frame.into_data() else { continue };
            length += data.len();
            if length > bytes_max {
                return Err(Refusal::TooLarge { bytes_max });
            }
            if length > declared {
                permit.grow(COPIES * data.len()).await?;
            }
            // Most bodies consist of one frame.
            if first.is_empty() && rest.is_empty() {
                first = data;
            } else {
                if rest.is_empty() {
                    rest.extend_from_slice(&std::mem::take(&mut first));
                }
                rest.extend_from_slice(&data);
            }
        }
        let bytes = if rest.is_empty() { first } else { rest.freeze() };
        Ok((bytes, permit))
    }

    fn try_take(&self, caller: CallerHash, taken: usize, more: usize) -> bool {
        let total = self.limits.bodies_bytes_max;
        let max = if taken + more > COPIES * LARGE_BYTES { total / 4 * 3 } else { total };
        self.budget.take(caller, more, |all, own| all <= max && own <= total / 4)
    }
}

impl BodyPermit {
    /// Takes more memory if it is available now.
    pub(crate) fn try_grow(&mut self, more: usize) -> bool {
        let taken = self.budget.try_take(self.caller, self.bytes, more);
        if taken {
            self.bytes += more;
        }
        taken
    }

    /// Takes more memory, and waits until it is available.
    async fn grow(&mut self, more: usize) -> Result<(), Refusal> {
        if self.try_grow(more) {
            return Ok(());
        }
        let _gauge = WaitingGauge::increment();
        let budget = Arc::clone(&self.budget);
        let waiting = async {
            loop {
                let released = budget.budget.released.notified();
                if self.try_grow(more) {
                    return;
                }
                released.await;
            }
        };
        let waited = timeout(WAIT, waiting).await;
        waited.map_err(|_| {
            BODIES_REFUSED.get().increment(1);
            Refusal::Overloaded
        })
    }
}

/// Counts a body that waits for memory, until dropped.
struct WaitingGauge;

impl WaitingGauge {
    fn increment() -> Self {
        BODIES_WAITING.get().increment(1);
        Self
    }
}

impl Drop for WaitingGauge {
    fn drop(&mut self) {
        BODIES_WAITING.get().decrement(1);
    }
}

impl Drop for BodyPermit {
    fn drop(&mut self) {
        self.budget.budget.release(self.caller, self.bytes);
    }
}

/// Reads and discards a body, up to a bound. Returns whether it was read to its end.
pub(crate) async fn discard(mut body: Body) -> bool {
    let reading = async {
        let mut read = 0;
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else { return false };
            read += frame.data_ref().map_or(0, Bytes::len);
            if read > DISCARDED_BYTES_MAX {
                return false;
            }
        }
        true
    };
    timeout(WAIT, reading).await.unwrap_or(false)
}

fn body_error(error: &axum::Error) -> Refusal {
    let mut source: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = source {
        if error.is::<BodyTimeout>() {
            return Refusal::BodySlow;
        }
        source = error.source();
    }
    Refusal::BodyUnreadable
}

#[cfg(test)]
mod tests {
    use std::hash::{BuildHasher as _, RandomState};

    use super::*;

    const MIB: usize = 1024 * 1024;

    fn budget() -> Arc<BodyBudget> {
        Arc::new(BodyBudget::new(BodyLimits {
            bodies_bytes_max: 24 * MIB,
            ..BodyLimits::default()
        }))
    }

    fn callers<const N: usize>() -> [CallerHash; N] {
        let hasher = RandomState::new();
        std::array::from_fn(|number| CallerHash::new(hasher.hash_one(number)))
    }

    async fn read(
        budget: &Arc<BodyBudget>,
        caller: CallerHash,
        bytes: usize,
    ) -> Result<BodyPermit, Refusal> {
        budget.read(caller, Body::from(vec![b'x'; bytes])).await.map(|(_, permit)| permit)
    }

    #[tokio::test]
    async fn a_caller_gets_a_quarter_and_large_bodies_leave_memory_for_small_ones() {
        let (budget, [alice, bob, carol, dave]) = (budget(), callers());
        let mut permits = vec![read(&budget, alice, 2 * MIB).await.unwrap()];
        assert!(matches!(read(&budget, alice, 1).await, Err(Refusal::Overloaded)));
        for caller in [bob, carol] {
            permits.push(read(&budget, caller, 2 * MIB).await.unwrap());
        }
        assert!(matches!(read(&budget, dave, 2 * MIB).await, Err(Refusal::Overloaded)));
        assert!(read(&budget, dave, 1000).await.is_ok());
        permits.clear();
        assert!(read(&budget, alice, 2 * MIB).await.is_ok());
        assert_eq!(budget.budget.taken(), (0, 0));
    }

    #[tokio::test]
    async fn a_body_waits_until_another_releases_its_memory() {
        let (budget, [alice]) = (budget(), callers());
        let first = read(&budget, alice, 2 * MIB).await.unwrap();
        let waiting = tokio::spawn({
            let budget = Arc::clone(&budget);
            async move { read(&budget, alice, MIB).await.is_ok() }
        });
        tokio::task::yield_now().await;
        drop(first);
        assert!(waiting.await.unwrap());
    }

    #[tokio::test]
    async fn concurrent_bodies_of_one_caller_all_get_memory() {
        let (budget, [alice]) = (budget(), callers());
        let reading = (0..4).map(|_| async { read(&budget, alice, MIB + MIB / 2).await.is_ok() });
        assert_eq!(futures::future::join_all(reading).await, [true; 4]);
    }

    #[tokio::test]
    async fn a_body_above_the_maximum_is_rejected_even_without_a_declared_length() {
        let (budget, [alice]) = (Arc::new(BodyBudget::new(BodyLimits::default())), callers());
        let bytes_max = budget.limits.body_bytes_max;
        let parts = (0..5).map(|_| Ok::<_, std::io::Error>(Bytes::from(vec![b'x'; MIB])));
        let body = Body::from_stream(futures::stream::iter(parts));
        let refusal = budget.read(alice, body).await.unwrap_err();
        assert!(matches!(refusal, Refusal::TooLarge { bytes_max: max } if max == bytes_max));
        assert_eq!(budget.budget.taken(), (0, 0));
    }
}
