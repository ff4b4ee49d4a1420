//! The queue of introspection requests for unknown tokens.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use drawbridge_config::issuers::IntrospectionLimits;
use tokio::{
    runtime::Handle,
    sync::oneshot,
    time::{Instant, sleep_until, timeout},
};

use super::ClientNetwork;

/// Admits introspection requests for unknown tokens: no faster than the rate, with round robin
/// between networks, so that a flood from one network delays only itself. Requests of unknown
/// origin count as one network in the round robin, but have no limits per network.
#[derive(Debug)]
pub(super) struct IntrospectionQueue {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    limits: IntrospectionLimits,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Networks with queued requests, the next one first.
    round_robin: VecDeque<Option<ClientNetwork>>,
    queues: HashMap<Option<ClientNetwork>, VecDeque<oneshot::Sender<IntrospectionPermit>>>,
    queued: usize,
    in_flight: HashMap<Option<ClientNetwork>, u32>,
    in_flight_total: u32,
    /// When the rate allows the next request.
    next_at: Instant,
    /// Whether a task is scheduled for that time.
    is_scheduled: bool,
}

/// The queue is full, or the request timed out in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Busy;

/// Permission for one request in flight, until it is dropped.
#[derive(Debug)]
pub(super) struct IntrospectionPermit {
    /// Absent: the permit was never granted.
    inner: Option<Arc<Inner>>,
    network: Option<ClientNetwork>,
}

impl IntrospectionQueue {
    pub(super) fn new(limits: IntrospectionLimits) -> Self {
        let state = State {
            round_robin: VecDeque::new(),
            queues: HashMap::new(),
            queued: 0,
            in_flight: HashMap::new(),
            in_flight_total: 0,
            next_at: Instant::now(),
            is_scheduled: false,
        };
        Self { inner: Arc::new(Inner { limits, state: Mutex::new(state) }) }
    }

    /// Waits for a permit. A full queue rejects the request at once.
    pub(super) async fn acquire(
        &self,
        network: Option<ClientNetwork>,
    ) -> Result<IntrospectionPermit, Busy> {
        let granted = {
            let mut state = self.inner.lock();
            let granted = state.enqueue(network, &self.inner.limits)?;
            self.inner.dispatch(&mut state);
            granted
        };
        let wait = Duration::from_millis(self.inner.limits.unknown_queue_timeout_ms.get().into());
        timeout(wait, granted).await.map_err(|_| Busy)?.map_err(|_| Busy)
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Grants permits as the rate and the limits allow.
    fn dispatch(self: &Arc<Self>, state: &mut State) {
        while state.in_flight_total < self.limits.unknown_in_flight_max.get() {
            let now = Instant::now();
            if now < state.next_at {
                self.dispatch_later(state);
                return;
            }
            let Some((network, waiting)) = state.next(&self.limits) else { return };
            let permit = IntrospectionPermit { inner: Some(Arc::clone(self)), network };
            if let Err(mut permit) = waiting.send(permit) {
                // Dropping it as granted would lock the state again.
                permit.inner = None;
                continue;
            }
            *state.in_flight.entry(network).or_default() += 1;
            state.in_flight_total += 1;
            state.next_at = now + Duration::from_secs(1) / self.limits.unknown_per_second.get();
        }
    }

    fn dispatch_later(self: &Arc<Self>, state: &mut State) {
        // A permit may be dropped after the runtime has shut down.
        let (false, false, Ok(runtime)) =
            (state.is_scheduled, state.queued == 0, Handle::try_current())
        else {
            return;
        };
        state.is_scheduled = true;
        let (inner, at) = (Arc::clone(self), state.next_at);
        runtime.spawn(async move {
            sleep_until(at).await;
            let mut state = inner.lock();
            state.is_scheduled = false;
            inner.dispatch(&mut state);
        });
    }
}

impl State {
    fn enqueue(
        &mut self,
        network: Option<ClientNetwork>,
        limits: &IntrospectionLimits,
    ) -> Result<oneshot::Receiver<IntrospectionPermit>, Busy> {
        if !self.has_capacity(network, limits) {
            self.remove_closed();
            self.evict_longest(network, limits)?;
        }
        let (grant, granted) = oneshot::channel();
        let queue = self.queues.entry(network).or_default();
        if queue.is_empty() {
            self.round_robin.push_back(network);
        }
        queue.push_back(grant);
        self.queued += 1;
        Ok(granted)
    }

    fn has_capacity(&self, network: Option<ClientNetwork>, limits: &IntrospectionLimits) -> bool {
        self.queued < limits.unknown_queue_max.get() as usize && self.may_queue(network, limits)
    }

    /// Whether a network is below its limit of queued requests.
    fn may_queue(&self, network: Option<ClientNetwork>, limits: &IntrospectionLimits) -> bool {
        network.is_none()
            || self.queued_of(network) < limits.unknown_queue_per_address_max.get() as usize
    }

    fn queued_of(&self, network: Option<ClientNetwork>) -> usize {
        self.queues.get(&network).map_or(0, VecDeque::len)
    }

    /// Frees capacity for a request. If the queue is full, the network with the most queued
    /// requests loses its newest one, so that a flood from a few networks cannot shut out others.
    fn evict_longest(
        &mut self,
        network: Option<ClientNetwork>,
        limits: &IntrospectionLimits,
    ) -> Result<(), Busy> {
        if self.has_capacity(network, limits) {
            return Ok(());
        }
        if !self.may_queue(network, limits) {
            return Err(Busy);
        }
        let own = self.queued_of(network);
        let longest = self.queues.iter_mut().max_by_key(|(_, queue)| queue.len());
        let (_, longest) = longest.filter(|(_, queue)| queue.len() > own + 1).ok_or(Busy)?;
        // Its waiter gets `Busy`. Its queue is not empty afterwards.
        longest.pop_back();
        self.queued -= 1;
        Ok(())
    }

    /// Removes requests whose waiters have gone away.
    fn remove_closed(&mut self) {
        for queue in self.queues.values_mut() {
            queue.retain(|grant| !grant.is_closed());
        }
        self.queues.retain(|_, queue| !queue.is_empty());
        self.round_robin.retain(|network| self.queues.contains_key(network));
        self.queued = self.queues.values().map(VecDeque::len).sum();
    }

    /// Removes the next request whose network is below its limit of requests in flight.
    fn next(
        &mut self,
        limits: &IntrospectionLimits,
    ) -> Option<(Option<ClientNetwork>, oneshot::Sender<IntrospectionPermit>)> {
        for _ in 0..self.round_robin.len() {
            let network = self.round_robin.pop_front()?;
            let in_flight = self.in_flight.get(&network).copied().unwrap_or_default();
            let is_at_limit =
                network.is_some() && in_flight >= limits.unknown_in_flight_per_address_max.get();
            if is_at_limit {
                self.round_robin.push_back(network);
                continue;
            }
            let queue = self.queues.get_mut(&network)?;
            let next = queue.pop_front();
            if queue.is_empty() {
                self.queues.remove(&network);
            } else {
                self.round_robin.push_back(network);
            }
            self.queued -= 1;
            return Some((network, next?));
        }
        None
    }
}

impl Drop for IntrospectionPermit {
    fn drop(&mut self) {
        let Some(inner) = self.inner.take() else { return };
        let mut state = inner.lock();
        if let Some(in_flight) = state.in_flight.get_mut(&self.network) {
            *in_flight -= 1;
            if *in_flight == 0 {
                state.in_flight.remove(&self.network);
            }
        }
        state.in_flight_total -= 1;
        inner.dispatch(&mut state);
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use futures::future::join_all;
    use tokio::task::yield_now;

    use super::*;

    const fn nonzero(number: u32) -> NonZeroU32 {
        NonZeroU32::new(number).unwrap()
    }

    fn limits() -> IntrospectionLimits {
        IntrospectionLimits {
            unknown_per_second: nonzero(1_000_000),
            ..IntrospectionLimits::default()
        }
    }

    fn network(address: &str) -> Option<ClientNetwork> {
        ClientNetwork::parse(address)
    }

    #[tokio::test(start_paused = true)]
    async fn introspections_of_unknown_tokens_do_not_exceed_the_rate() {
        let limits = IntrospectionLimits {
            unknown_per_second: nonzero(10),
            unknown_in_flight_per_address_max: nonzero(100),
            unknown_queue_per_address_max: nonzero(100),
            unknown_queue_timeout_ms: nonzero(60_000),
            ..IntrospectionLimits::default()
        };
        let queue = IntrospectionQueue::new(limits);
        let begun = Instant::now();
        let granted = join_all((0..31).map(|_| async {
            let permit = queue.acquire(network("192.0.2.1")).await;
            assert!(permit.is_ok());
            begun.elapsed()
        }));
        let granted = granted.await;
        for pair in granted.windows(2) {
            assert!(pair[1] - pair[0] >= Duration::from_millis(100), "{granted:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_network_has_limits_of_requests_in_flight_and_queued() {
        let queue = IntrospectionQueue::new(limits());
        let flood = network("192.0.2.1");
        let share = limits().unknown_in_flight_per_address_max.get();
        let mut permits = Vec::new();
        for _ in 0..share {
            permits.push(queue.acquire(flood).await.unwrap());
        }
        let queued = limits().unknown_queue_per_address_max.get();
        let mut waiting: Vec<_> = (0..queued).map(|_| Box::pin(queue.acquire(flood))).collect();
        for waiting in &mut waiting {
            assert!(futures::poll!(waiting).is_pending());
        }
        let refused = futures::poll!(Box::pin(queue.acquire(flood)));
        assert!(
            matches!(refused, std::task::Poll::Ready(Err(Busy))),
            "it is rejected without waiting"
        );
        // Other networks are admitted before all of those.
        assert!(queue.acquire(network("192.0.2.2")).await.is_ok());
        // An abandoned request frees its capacity.
        waiting.clear();
        let mut next = Box::pin(queue.acquire(flood));
        assert!(futures::poll!(&mut next).is_pending());
        drop(permits.pop());
        assert!(next.await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_queued_request_times_out_and_leaves_no_state_behind() {
        let queue = IntrospectionQueue::new(IntrospectionLimits {
            unknown_in_flight_max: nonzero(1),
            ..limits()
        });
        let permit = queue.acquire(network("192.0.2.1")).await.unwrap();
        assert_eq!(queue.acquire(network("192.0.2.2")).await.unwrap_err(), Busy);
        drop(permit);
        assert!(queue.acquire(network("192.0.2.3")).await.is_ok());
        yield_now().await;
        let state = queue.inner.lock();
        assert!(
            state.in_flight.is_empty() && state.in_flight_total == 0 && state.queued == 0,
            "{state:?}"
        );
    }

    /// Eight networks with sixteen requests each filled the queue, and all other networks were
    /// rejected.
    #[tokio::test(start_paused = true)]
    async fn a_new_network_is_queued_although_a_few_networks_fill_the_queue() {
        let queue = IntrospectionQueue::new(IntrospectionLimits {
            unknown_in_flight_max: nonzero(1),
            unknown_queue_max: nonzero(128),
            unknown_queue_per_address_max: nonzero(16),
            ..limits()
        });
        let in_flight = queue.acquire(network("192.0.2.100")).await.unwrap();
        let floods: Vec<_> = (1..=8).map(|last| network(&format!("192.0.2.{last}"))).collect();
        let mut waiting: Vec<_> = floods
            .iter()
            .flat_map(|flood| (0..16).map(|_| Box::pin(queue.acquire(*flood))))
            .collect();
        for waiting in &mut waiting {
            assert!(futures::poll!(waiting).is_pending());
        }
        let mut newcomer = Box::pin(queue.acquire(network("198.51.100.1")));
        assert!(futures::poll!(&mut newcomer).is_pending(), "it is queued");
        let mut refused = 0;
        for waiting in &mut waiting {
            refused += usize::from(futures::poll!(waiting).is_ready());
        }
        assert_eq!(refused, 1, "the newest request of a flood was evicted");
        // A flood does not evict another flood.
        let flooding = futures::poll!(Box::pin(queue.acquire(floods[0])));
        assert!(matches!(flooding, std::task::Poll::Ready(Err(Busy))));
        drop(in_flight);
        drop(waiting);
        assert!(newcomer.await.is_ok());
    }

    /// An edge of an older version does not send client addresses: all its clients shared the
    /// limits of one address.
    #[tokio::test(start_paused = true)]
    async fn requests_of_unknown_origin_have_no_limits_per_network() {
        let queue = IntrospectionQueue::new(IntrospectionLimits {
            unknown_in_flight_per_address_max: nonzero(1),
            unknown_queue_per_address_max: nonzero(1),
            ..limits()
        });
        let in_flight = limits().unknown_in_flight_max.get();
        let mut permits = Vec::new();
        for _ in 0..in_flight {
            permits.push(queue.acquire(None).await.unwrap());
        }
        let queued = limits().unknown_queue_max.get();
        let mut waiting: Vec<_> = (0..queued).map(|_| Box::pin(queue.acquire(None))).collect();
        for waiting in &mut waiting {
            assert!(futures::poll!(waiting).is_pending());
        }
        let refused = futures::poll!(Box::pin(queue.acquire(None)));
        assert!(matches!(refused, std::task::Poll::Ready(Err(Busy))), "the overall limits apply");
    }

    #[test]
    fn addresses_of_one_ipv6_network_share_limits() {
        assert_eq!(network("2001:db8:1:2::1"), network("2001:db8:1:2:ffff::9"));
        assert_ne!(network("2001:db8:1:2::1"), network("2001:db8:1:3::1"));
        assert_eq!(network("::ffff:192.0.2.1"), network("192.0.2.1"));
        assert_ne!(network("192.0.2.1"), network("192.0.2.2"));
        assert_eq!((network(""), network("not an address")), (None, None));
    }
}
