//! Request bodies in memory: how many bytes this replica holds at once, for one caller and in all.

use std::{sync::Arc, time::Duration};

use axum::body::Body;
use axum::body::HttpBody as _;
use bytes::{Bytes, BytesMut};
use drawbridge_sdk::BodyTimeout;
use http_body_util::BodyExt as _;
use metrics::{counter, gauge};
use tokio::time::timeout;

use crate::{refusal::Refusal, traffic::queue::Caller};

use super::{budget::Budget, params::ParamsLimits};

/// How much of a body is read, and thrown away, of a caller who is not authenticated: a client that is still
/// sending would lose its connection, and with it the answer.
const DISCARDED_BYTES_MAX: usize = 64 * 1024;
/// A body beyond this is a large one, in bytes.
const LARGE_BYTES: usize = 64 * 1024;
/// For so many copies of its bytes a body is charged: itself, its texts as they are parsed, and the message that they
/// make.
const COPIES: usize = 3;
/// How long a body waits for memory, and how long the rest of one is waited for that is thrown away.
const WAIT: Duration = Duration::from_secs(1);

/// What request bodies may take on this replica.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Request bodies")]
pub struct BodyLimits {
    /// The largest request body, in bytes.
    #[arg(long, default_value_t = 4 * 1024 * 1024)]
    pub body_bytes_max: usize,

    /// How many bytes of bodies are in memory at once, each counted three times, with the values that they are parsed to.
    /// One principal has a quarter of it, and large bodies three quarters.
    #[arg(long, default_value_t = 64 * 1024 * 1024)]
    pub bodies_bytes_max: usize,

    /// How many values the parameters of one message may hold.
    #[arg(long, default_value_t = 32 * 1024)]
    pub params_values_max: usize,

    /// How deep they may nest.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u8).range(1..=100))]
    pub params_depth_max: u8,
}

impl Default for BodyLimits {
    fn default() -> Self {
        Self {
            body_bytes_max: 4 * 1024 * 1024,
            bodies_bytes_max: 64 * 1024 * 1024,
            params_values_max: 32 * 1024,
            params_depth_max: 64,
        }
    }
}

/// The memory that bodies take.
#[derive(Debug)]
pub(crate) struct BodyBudget {
    limits: BodyLimits,
    budget: Budget,
}

/// The memory of one body, as long as this lives.
#[derive(Debug)]
pub(crate) struct BodyPermit {
    budget: Arc<BodyBudget>,
    caller: Caller,
    bytes: usize,
}

impl BodyBudget {
    pub(crate) fn new(limits: BodyLimits) -> Self {
        Self { limits, budget: Budget::default() }
    }

    pub(super) fn params_limits(&self) -> ParamsLimits {
        let BodyLimits { params_values_max, params_depth_max, .. } = self.limits;
        ParamsLimits { values_max: params_values_max, depth_max: params_depth_max.into() }
    }

    /// The permit of a body of which nothing is read yet.
    pub(super) fn permit(self: &Arc<Self>, caller: Caller) -> BodyPermit {
        BodyPermit { budget: Arc::clone(self), caller, bytes: 0 }
    }

    /// Reads the body of a caller who is authenticated, as memory allows.
    pub(super) async fn read(
        self: &Arc<Self>,
        caller: Caller,
        mut body: Body,
    ) -> Result<(Bytes, BodyPermit), Refusal> {
        let bytes_max = self.limits.body_bytes_max;
        let mut permit = self.permit(caller);
        // What is said to come is charged at once: of bodies that wait for one another's memory none would get it.
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
            // Most bodies come whole.
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

    fn try_take(&self, caller: Caller, held: usize, more: usize) -> bool {
        let total = self.limits.bodies_bytes_max;
        let room = if held + more > COPIES * LARGE_BYTES { total / 4 * 3 } else { total };
        self.budget.take(caller, more, |all, own| all <= room && own <= total / 4)
    }
}

impl BodyPermit {
    /// Takes more memory where there is some now.
    pub(super) fn try_grow(&mut self, more: usize) -> bool {
        let taken = self.budget.try_take(self.caller, self.bytes, more);
        if taken {
            self.bytes += more;
        }
        taken
    }

    /// The same, and waits for it.
    async fn grow(&mut self, more: usize) -> Result<(), Refusal> {
        if self.try_grow(more) {
            return Ok(());
        }
        let _waiting = Waits::new();
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
            counter!("edge_bodies_refused_total").increment(1);
            Refusal::Overloaded
        })
    }
}

/// Counts a body that waits for memory, as long as this lives.
struct Waits;

impl Waits {
    fn new() -> Self {
        gauge!("edge_bodies_waiting").increment(1);
        Self
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        gauge!("edge_bodies_waiting").decrement(1);
    }
}

impl Drop for BodyPermit {
    fn drop(&mut self) {
        self.budget.budget.give_back(self.caller, self.bytes);
    }
}

/// Reads what is left of a body, up to a bound, and keeps nothing of it. Says whether that was all.
pub(super) async fn discard(mut body: Body) -> bool {
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
            return Refusal::Slow;
        }
        source = error.source();
    }
    Refusal::Body
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

    fn callers<const N: usize>() -> [Caller; N] {
        let hasher = RandomState::new();
        std::array::from_fn(|number| Caller::new(hasher.hash_one(number)))
    }

    async fn read(
        budget: &Arc<BodyBudget>,
        caller: Caller,
        bytes: usize,
    ) -> Result<BodyPermit, Refusal> {
        budget.read(caller, Body::from(vec![b'x'; bytes])).await.map(|(_, permit)| permit)
    }

    #[tokio::test]
    async fn one_caller_has_a_quarter_and_large_bodies_leave_memory_for_small_ones() {
        let (budget, [alice, bob, carol, dave]) = (budget(), callers());
        let mut held = vec![read(&budget, alice, 2 * MIB).await.unwrap()];
        assert!(matches!(read(&budget, alice, 1).await, Err(Refusal::Overloaded)));
        for caller in [bob, carol] {
            held.push(read(&budget, caller, 2 * MIB).await.unwrap());
        }
        assert!(matches!(read(&budget, dave, 2 * MIB).await, Err(Refusal::Overloaded)));
        assert!(read(&budget, dave, 1000).await.is_ok());
        held.clear();
        assert!(read(&budget, alice, 2 * MIB).await.is_ok());
        assert_eq!(budget.budget.taken(), (0, 0));
    }

    #[tokio::test]
    async fn a_body_waits_for_memory_until_another_is_done() {
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
    async fn of_bodies_that_are_sent_at_once_each_gets_its_memory_in_its_turn() {
        let (budget, [alice]) = (budget(), callers());
        let reading = (0..4).map(|_| async { read(&budget, alice, MIB + MIB / 2).await.is_ok() });
        assert_eq!(futures::future::join_all(reading).await, [true; 4]);
    }

    #[tokio::test]
    async fn a_body_beyond_its_bound_is_refused_however_it_comes() {
        let (budget, [alice]) = (Arc::new(BodyBudget::new(BodyLimits::default())), callers());
        let bytes_max = budget.limits.body_bytes_max;
        let parts = (0..5).map(|_| Ok::<_, std::io::Error>(Bytes::from(vec![b'x'; MIB])));
        let body = Body::from_stream(futures::stream::iter(parts));
        assert!(
            matches!(budget.read(alice, body).await, Err(Refusal::TooLarge { bytes_max: max }) if max == bytes_max)
        );
        assert_eq!(budget.budget.taken(), (0, 0));
    }
}
