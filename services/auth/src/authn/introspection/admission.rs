//! Which unknown token its issuer is asked about next.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    runtime::Handle,
    sync::oneshot,
    time::{Instant, sleep_until, timeout},
};

use super::{ClientNetwork, IntrospectionLimits};

/// Admits questions about unknown tokens: no more often than the rate, and the networks that they come from in turns.
/// A flood from one network waits for itself. Questions of which nobody can say where they come from take turns as one
/// network does, but have no bounds of their own.
#[derive(Debug)]
pub(super) struct Admission {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    limits: IntrospectionLimits,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Networks that have questions in the queue, the next one first.
    turns: VecDeque<Option<ClientNetwork>>,
    queues: HashMap<Option<ClientNetwork>, VecDeque<oneshot::Sender<Permit>>>,
    queued: usize,
    in_flight: HashMap<Option<ClientNetwork>, u32>,
    in_flight_total: u32,
    /// When the rate allows the next question.
    next_at: Instant,
    /// Whether a task waits for that time.
    is_timed: bool,
}

/// The queue is full, or the question has waited too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Busy;

/// One question that is on its way, until it is dropped.
#[derive(Debug)]
pub(super) struct Permit {
    /// Absent: it was never granted.
    inner: Option<Arc<Inner>>,
    network: Option<ClientNetwork>,
}

impl Admission {
    pub(super) fn new(limits: IntrospectionLimits) -> Self {
        let state = State {
            turns: VecDeque::new(),
            queues: HashMap::new(),
            queued: 0,
            in_flight: HashMap::new(),
            in_flight_total: 0,
            next_at: Instant::now(),
            is_timed: false,
        };
        Self { inner: Arc::new(Inner { limits, state: Mutex::new(state) }) }
    }

    /// Waits for a permit. A full queue refuses at once.
    pub(super) async fn enter(&self, network: Option<ClientNetwork>) -> Result<Permit, Busy> {
        let granted = {
            let mut state = self.inner.lock();
            let granted = state.enqueue(network, &self.inner.limits)?;
            self.inner.pump(&mut state);
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

    /// Grants permits while the rate and the limits allow.
    fn pump(self: &Arc<Self>, state: &mut State) {
        while state.in_flight_total < self.limits.unknown_in_flight_max.get() {
            let now = Instant::now();
            if now < state.next_at {
                self.pump_later(state);
                return;
            }
            let Some((network, waiting)) = state.next(&self.limits) else { return };
            let permit = Permit { inner: Some(Arc::clone(self)), network };
            if let Err(mut permit) = waiting.send(permit) {
                // Its drop would lock the state again.
                permit.inner = None;
                continue;
            }
            *state.in_flight.entry(network).or_default() += 1;
            state.in_flight_total += 1;
            state.next_at = now + Duration::from_secs(1) / self.limits.unknown_per_second.get();
        }
    }

    fn pump_later(self: &Arc<Self>, state: &mut State) {
        // A permit may be dropped when the runtime is gone already.
        let (false, false, Ok(runtime)) =
            (state.is_timed, state.queued == 0, Handle::try_current())
        else {
            return;
        };
        state.is_timed = true;
        let (inner, at) = (Arc::clone(self), state.next_at);
        runtime.spawn(async move {
            sleep_until(at).await;
            let mut state = inner.lock();
            state.is_timed = false;
            inner.pump(&mut state);
        });
    }
}

impl State {
    fn enqueue(
        &mut self,
        network: Option<ClientNetwork>,
        limits: &IntrospectionLimits,
    ) -> Result<oneshot::Receiver<Permit>, Busy> {
        if !self.has_room(network, limits) {
            self.forget_abandoned();
            self.make_room(network, limits)?;
        }
        let (grant, granted) = oneshot::channel();
        let queue = self.queues.entry(network).or_default();
        if queue.is_empty() {
            self.turns.push_back(network);
        }
        queue.push_back(grant);
        self.queued += 1;
        Ok(granted)
    }

    fn has_room(&self, network: Option<ClientNetwork>, limits: &IntrospectionLimits) -> bool {
        self.queued < limits.unknown_queue_max.get() as usize && self.may_queue(network, limits)
    }

    /// Whether a network has not its whole share of the queue.
    fn may_queue(&self, network: Option<ClientNetwork>, limits: &IntrospectionLimits) -> bool {
        network.is_none()
            || self.queued_of(network) < limits.unknown_queue_per_address_max.get() as usize
    }

    fn queued_of(&self, network: Option<ClientNetwork>) -> usize {
        self.queues.get(&network).map_or(0, VecDeque::len)
    }

    /// Makes room for a question. When the queue is full, the network with the most questions in it loses its newest
    /// one, so that a few networks that flood shut nobody else out.
    fn make_room(
        &mut self,
        network: Option<ClientNetwork>,
        limits: &IntrospectionLimits,
    ) -> Result<(), Busy> {
        if self.has_room(network, limits) {
            return Ok(());
        }
        if !self.may_queue(network, limits) {
            return Err(Busy);
        }
        let own = self.queued_of(network);
        let longest = self.queues.iter_mut().max_by_key(|(_, queue)| queue.len());
        let (_, longest) = longest.filter(|(_, queue)| queue.len() > own + 1).ok_or(Busy)?;
        // Whoever waits for it is told that the issuer is busy. The queue is not empty after that.
        longest.pop_back();
        self.queued -= 1;
        Ok(())
    }

    /// Questions for whose answer nobody waits any more.
    fn forget_abandoned(&mut self) {
        for queue in self.queues.values_mut() {
            queue.retain(|grant| !grant.is_closed());
        }
        self.queues.retain(|_, queue| !queue.is_empty());
        self.turns.retain(|network| self.queues.contains_key(network));
        self.queued = self.queues.values().map(VecDeque::len).sum();
    }

    /// Takes the next question whose network has not its whole share on the way.
    fn next(
        &mut self,
        limits: &IntrospectionLimits,
    ) -> Option<(Option<ClientNetwork>, oneshot::Sender<Permit>)> {
        for _ in 0..self.turns.len() {
            let network = self.turns.pop_front()?;
            let in_flight = self.in_flight.get(&network).copied().unwrap_or_default();
            let has_share =
                network.is_some() && in_flight >= limits.unknown_in_flight_per_address_max.get();
            if has_share {
                self.turns.push_back(network);
                continue;
            }
            let queue = self.queues.get_mut(&network)?;
            let next = queue.pop_front();
            if queue.is_empty() {
                self.queues.remove(&network);
            } else {
                self.turns.push_back(network);
            }
            self.queued -= 1;
            return Some((network, next?));
        }
        None
    }
}

impl Drop for Permit {
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
        inner.pump(&mut state);
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use futures::future::join_all;
    use tokio::task::yield_now;

    use super::*;

    const fn of(number: u32) -> NonZeroU32 {
        NonZeroU32::new(number).unwrap()
    }

    fn limits() -> IntrospectionLimits {
        IntrospectionLimits { unknown_per_second: of(1_000_000), ..IntrospectionLimits::default() }
    }

    fn network(address: &str) -> Option<ClientNetwork> {
        ClientNetwork::of(address)
    }

    #[tokio::test(start_paused = true)]
    async fn unknown_tokens_are_asked_about_no_more_often_than_the_rate() {
        let limits = IntrospectionLimits {
            unknown_per_second: of(10),
            unknown_in_flight_per_address_max: of(100),
            unknown_queue_per_address_max: of(100),
            unknown_queue_timeout_ms: of(60_000),
            ..IntrospectionLimits::default()
        };
        let admission = Admission::new(limits);
        let begun = Instant::now();
        let asked = join_all((0..31).map(|_| async {
            let permit = admission.enter(network("192.0.2.1")).await;
            assert!(permit.is_ok());
            begun.elapsed()
        }));
        let asked = asked.await;
        for pair in asked.windows(2) {
            assert!(pair[1] - pair[0] >= Duration::from_millis(100), "{asked:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_network_has_a_share_of_what_is_on_the_way_and_of_the_queue() {
        let admission = Admission::new(limits());
        let flood = network("192.0.2.1");
        let share = limits().unknown_in_flight_per_address_max.get();
        let mut permits = Vec::new();
        for _ in 0..share {
            permits.push(admission.enter(flood).await.unwrap());
        }
        let queued = limits().unknown_queue_per_address_max.get();
        let mut waiting: Vec<_> = (0..queued).map(|_| Box::pin(admission.enter(flood))).collect();
        for waiting in &mut waiting {
            assert!(futures::poll!(waiting).is_pending());
        }
        let refused = futures::poll!(Box::pin(admission.enter(flood)));
        assert!(
            matches!(refused, std::task::Poll::Ready(Err(Busy))),
            "it is refused without waiting"
        );
        // Others are admitted though, before all of those.
        assert!(admission.enter(network("192.0.2.2")).await.is_ok());
        // Whoever does not wait any more holds no place.
        waiting.clear();
        let mut next = Box::pin(admission.enter(flood));
        assert!(futures::poll!(&mut next).is_pending());
        drop(permits.pop());
        assert!(next.await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_question_waits_no_longer_than_the_limit_and_leaves_nothing_behind() {
        let admission =
            Admission::new(IntrospectionLimits { unknown_in_flight_max: of(1), ..limits() });
        let permit = admission.enter(network("192.0.2.1")).await.unwrap();
        assert_eq!(admission.enter(network("192.0.2.2")).await.unwrap_err(), Busy);
        drop(permit);
        assert!(admission.enter(network("192.0.2.3")).await.is_ok());
        yield_now().await;
        let state = admission.inner.lock();
        assert!(
            state.in_flight.is_empty() && state.in_flight_total == 0 && state.queued == 0,
            "{state:?}"
        );
    }

    /// Eight networks with sixteen questions each filled the queue, and everybody else was refused at once.
    #[tokio::test(start_paused = true)]
    async fn a_newcomer_is_queued_though_a_few_networks_have_filled_the_queue() {
        let admission = Admission::new(IntrospectionLimits {
            unknown_in_flight_max: of(1),
            unknown_queue_max: of(128),
            unknown_queue_per_address_max: of(16),
            ..limits()
        });
        let on_its_way = admission.enter(network("192.0.2.100")).await.unwrap();
        let floods: Vec<_> = (1..=8).map(|last| network(&format!("192.0.2.{last}"))).collect();
        let mut waiting: Vec<_> = floods
            .iter()
            .flat_map(|flood| (0..16).map(|_| Box::pin(admission.enter(*flood))))
            .collect();
        for waiting in &mut waiting {
            assert!(futures::poll!(waiting).is_pending());
        }
        let mut newcomer = Box::pin(admission.enter(network("198.51.100.1")));
        assert!(futures::poll!(&mut newcomer).is_pending(), "it is queued");
        let mut refused = 0;
        for waiting in &mut waiting {
            refused += usize::from(futures::poll!(waiting).is_ready());
        }
        assert_eq!(refused, 1, "the newest question of a flood gave way");
        // A flood does not push out another.
        let flooding = futures::poll!(Box::pin(admission.enter(floods[0])));
        assert!(matches!(flooding, std::task::Poll::Ready(Err(Busy))));
        drop(on_its_way);
        drop(waiting);
        assert!(newcomer.await.is_ok());
    }

    /// An edge of an older version does not say where its clients are: all of them had the share of one address.
    #[tokio::test(start_paused = true)]
    async fn callers_without_an_address_have_no_share_of_one_address() {
        let admission = Admission::new(IntrospectionLimits {
            unknown_in_flight_per_address_max: of(1),
            unknown_queue_per_address_max: of(1),
            ..limits()
        });
        let in_flight = limits().unknown_in_flight_max.get();
        let mut permits = Vec::new();
        for _ in 0..in_flight {
            permits.push(admission.enter(None).await.unwrap());
        }
        let queued = limits().unknown_queue_max.get();
        let mut waiting: Vec<_> = (0..queued).map(|_| Box::pin(admission.enter(None))).collect();
        for waiting in &mut waiting {
            assert!(futures::poll!(waiting).is_pending());
        }
        let refused = futures::poll!(Box::pin(admission.enter(None)));
        assert!(matches!(refused, std::task::Poll::Ready(Err(Busy))), "the overall bounds hold");
    }

    #[test]
    fn addresses_of_one_ipv6_network_share() {
        assert_eq!(network("2001:db8:1:2::1"), network("2001:db8:1:2:ffff::9"));
        assert_ne!(network("2001:db8:1:2::1"), network("2001:db8:1:3::1"));
        assert_eq!(network("::ffff:192.0.2.1"), network("192.0.2.1"));
        assert_ne!(network("192.0.2.1"), network("192.0.2.2"));
        assert_eq!((network(""), network("what is no address")), (None, None));
    }
}
