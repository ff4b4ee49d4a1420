//! How many requests are in progress at once, and how many may be. Excess requests queue where that
//! costs little: each principal in a queue of its own once auth has accepted its token, and until
//! then together with all requests of the client's address.
//!
//! The replica is overloaded when its worker threads are busy all of the time. The latency of a
//! tool service is no indication: it does not depend on the edge. While the replica is overloaded
//! the limit falls by a quarter per window, so that excess requests wait here, in their caller's
//! queue, and not in every queue inside. It rises by an eighth per window once the threads are idle
//! at times.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use drawbridge_proto::auth::v1::Principal;
use moka::sync::Cache;
use secrecy::{ExposeSecret as _, SecretString};
use tokio_util::sync::CancellationToken;

use super::{
    Busy, CallerHash, Permit, QueueRules,
    busy_ratio::RuntimeBusyRatio,
    fair_queue::{FairQueue, QueueLimits, QueueMetrics},
};
use crate::{
    metrics::{REQUEST_WAIT, REQUESTS_LIMIT, REQUESTS_REFUSED, REQUESTS_RUNNING, REQUESTS_WAITING},
    traffic::limits::network_prefix,
};

/// Above this busy ratio the replica is overloaded.
const BUSY: f64 = 0.95;
/// Below this busy ratio the replica has capacity to spare.
const IDLE: f64 = 0.9;
/// How often the limit is adjusted.
const WINDOW: Duration = Duration::from_millis(50);
/// How many requests of one principal may be in progress, if the replica admits that many.
const REQUESTS_OF_PRINCIPAL_MIN: usize = 16;
/// The name of the only queue.
const QUEUE: &str = "requests";
/// How many accepted tokens are cached, and for how long after their last use.
const ACCEPTED_MAX: u64 = 100_000;
const ACCEPTED_FOR: Duration = Duration::from_secs(300);

/// Limits the requests that are in progress on this replica, and queues the others.
#[derive(Debug)]
pub(crate) struct AdmissionController {
    queue: Arc<FairQueue>,
    limit: Mutex<ConcurrencyLimit>,
    /// The principals of tokens that auth has accepted, by the hash of the token.
    accepted: Cache<CallerHash, (CallerHash, Arc<Principal>)>,
}

/// The sender of a request, as far as this replica knows it without asking auth.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TokenBearer {
    token: CallerHash,
    /// Absent: auth has not accepted the token yet, or the cache entry has expired.
    principal: Option<CallerHash>,
}

impl TokenBearer {
    /// The principal of the token, once auth has accepted it.
    pub(crate) fn principal(self) -> Option<CallerHash> {
        self.principal
    }

    /// The same bearer, after auth has accepted its token.
    pub(crate) fn authenticated(self, principal: CallerHash) -> Self {
        Self { principal: Some(principal), ..self }
    }
}

/// Permits one request to be in progress until it is dropped.
#[derive(Debug)]
pub(crate) struct RequestPermit {
    _permit: Permit,
}

/// An adaptive limit of the requests in progress.
#[derive(Clone, Debug)]
struct ConcurrencyLimit {
    rules: QueueRules,
    current: usize,
}

impl Default for AdmissionController {
    fn default() -> Self {
        let limit = ConcurrencyLimit::new(&QueueRules::default());
        Self {
            queue: Arc::new(FairQueue::new(limit.queue_limits(), queue_metrics)),
            limit: Mutex::new(limit),
            accepted: Cache::builder()
                .max_capacity(ACCEPTED_MAX)
                .time_to_idle(ACCEPTED_FOR)
                .build(),
        }
    }
}

impl AdmissionController {
    /// Replaces the rules.
    pub(crate) fn set(&self, rules: &QueueRules) {
        let mut limit = self.limit.lock().unwrap_or_else(PoisonError::into_inner);
        if limit.rules != *rules {
            *limit = ConcurrencyLimit::new(rules);
            self.queue.set_limits(limit.queue_limits());
        }
    }

    /// Looks up the bearer of this token.
    pub(crate) fn bearer(&self, token: &SecretString) -> TokenBearer {
        let token = self.queue.hash(token.expose_secret());
        TokenBearer { token, principal: self.accepted.get(&token).map(|(caller, _)| caller) }
    }

    /// The principal of this bearer's token, if auth has accepted it.
    pub(crate) fn principal(&self, bearer: &TokenBearer) -> Option<Arc<Principal>> {
        self.accepted.get(&bearer.token).map(|(_, principal)| principal)
    }

    /// Records that auth has accepted the token for this principal.
    pub(crate) fn mark_authenticated(
        &self,
        bearer: &TokenBearer,
        principal: &Arc<Principal>,
    ) -> CallerHash {
        let Principal { issuer, subject, tenant, .. } = &**principal;
        let caller = self.queue.hash((issuer, subject, tenant));
        self.accepted.insert(bearer.token, (caller, Arc::clone(principal)));
        caller
    }

    /// Records that auth no longer accepts the token.
    pub(crate) fn forget(&self, bearer: &TokenBearer) {
        self.accepted.invalidate(&bearer.token);
    }

    /// Waits until a request of this bearer, from this address, may begin. Bearers that are not
    /// authenticated share the queue of their address, so that invented tokens create no queues.
    ///
    /// # Errors
    /// When no permit becomes free in time.
    pub(crate) async fn acquire(
        &self,
        bearer: &TokenBearer,
        address: IpAddr,
    ) -> Result<RequestPermit, Busy> {
        let caller = bearer.principal.unwrap_or_else(|| self.queue.hash(network_prefix(address)));
        Ok(RequestPermit { _permit: self.queue.acquire(QUEUE, caller).await? })
    }

    /// Adjusts the limit after a window with this busy ratio.
    fn adjust(&self, busy: f64) {
        let peak = self.queue.take_peak();
        let mut limit = self.limit.lock().unwrap_or_else(PoisonError::into_inner);
        let before = limit.current;
        limit.current = limit.next(peak, busy);
        let (current, max) = (limit.current, limit.rules.requests_max);
        if current == before {
            return;
        }
        self.queue.set_limits(limit.queue_limits());
        REQUESTS_LIMIT.get().set(f64::from(u32::try_from(current).unwrap_or(u32::MAX)));
        if before == max {
            tracing::warn!(
                limit = current,
                busy,
                "the edge is overloaded; it admits fewer requests at once"
            );
        } else if current == max {
            tracing::info!(limit = current, "the edge is no longer overloaded");
        }
    }
}

impl ConcurrencyLimit {
    fn new(rules: &QueueRules) -> Self {
        Self { rules: rules.clone(), current: rules.requests_max }
    }

    fn queue_limits(&self) -> QueueLimits {
        QueueLimits {
            // Requests may be slow, for example while a person acts: no caller may take all
            // permits.
            per_caller: (self.current / 4).max(self.current.min(REQUESTS_OF_PRINCIPAL_MIN)),
            per_queue: self.current,
            queues: [].into(),
            waiting_per_caller: usize::MAX,
            waiting_per_queue: self.rules.requests_waiting,
            wait: self.rules.wait,
            // A rejected client retries, which costs more than a longer wait.
            wait_backlogged: self.rules.wait,
        }
    }

    /// The limit after a window in which up to `peak` requests were in progress.
    fn next(&self, peak: usize, busy: f64) -> usize {
        let (min, max) = (self.rules.requests_min, self.rules.requests_max);
        // With few requests a lower limit would not help, however slow the machine.
        let next = if busy > BUSY && peak > min {
            let in_progress = self.current.min(peak);
            in_progress - in_progress / 4
        } else if busy < IDLE {
            self.current + self.current / 8 + 1
        } else {
            self.current
        };
        next.clamp(min, max)
    }
}

fn queue_metrics(_: &str) -> QueueMetrics {
    let rejected = REQUESTS_REFUSED.get();
    QueueMetrics {
        running: REQUESTS_RUNNING.get(),
        waiting: REQUESTS_WAITING.get(),
        waited: REQUEST_WAIT.get(),
        rejected: [rejected.clone(), rejected],
    }
}

/// Adjusts the limit once per window until `stopping`.
pub(crate) async fn watch_busy_ratio(
    controller: Arc<AdmissionController>,
    stopping: CancellationToken,
) {
    let watching = async {
        let mut ratio = RuntimeBusyRatio::of_current_runtime();
        loop {
            tokio::time::sleep(WINDOW).await;
            controller.adjust(ratio.sample());
        }
    };
    stopping.run_until_cancelled(watching).await;
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use futures::FutureExt as _;

    use super::*;

    const NOT_OVERLOADED: f64 = 0.5;
    const OVERLOADED: f64 = 0.99;

    fn rules() -> QueueRules {
        QueueRules {
            requests_min: 16,
            requests_max: 1000,
            wait: Duration::from_secs(600),
            ..QueueRules::default()
        }
    }

    #[test]
    fn an_overloaded_replica_lowers_its_limit_to_the_minimum_and_raises_it_again() {
        let mut limit = ConcurrencyLimit::new(&rules());
        // It falls from the requests in progress, not from the limit.
        limit.current = limit.next(200, OVERLOADED);
        assert_eq!(limit.current, 150);
        for _ in 0..100 {
            limit.current = limit.next(limit.current, OVERLOADED);
        }
        assert_eq!(limit.current, 16);
        limit.current = limit.next(16, (BUSY + IDLE) / 2.0);
        assert_eq!(limit.current, 16);
        limit.current = limit.next(16, NOT_OVERLOADED);
        assert_eq!(limit.current, 19);
        for _ in 0..100 {
            limit.current = limit.next(0, NOT_OVERLOADED);
        }
        assert_eq!(limit.current, 1000);
        // Few requests are not the cause of the load.
        assert_eq!(limit.next(16, OVERLOADED), 1000);
    }

    const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    /// A controller that knows `tokens`, each of its own principal.
    fn controller(rules: QueueRules, tokens: &[&SecretString]) -> AdmissionController {
        let controller = AdmissionController::default();
        controller.set(&rules);
        for token in tokens {
            let principal =
                Principal { subject: token.expose_secret().into(), ..Principal::default() };
            controller.mark_authenticated(&controller.bearer(token), &principal.into());
        }
        controller
    }

    async fn acquire(
        controller: &AdmissionController,
        token: &SecretString,
    ) -> Result<RequestPermit, Busy> {
        controller.acquire(&controller.bearer(token), ADDRESS).await
    }

    #[tokio::test]
    async fn a_caller_with_many_requests_queues_and_does_not_delay_others() {
        let (alice, bob) = (SecretString::from("alice's"), SecretString::from("bob's"));
        let rules = QueueRules { requests_min: 1, requests_max: 2, requests_waiting: 3, ..rules() };
        let controller = controller(rules, &[&alice, &bob]);
        let first = acquire(&controller, &alice).await.unwrap();
        let second = acquire(&controller, &alice).await.unwrap();
        let mut waiting: Vec<_> = (0..3).map(|_| Box::pin(acquire(&controller, &alice))).collect();
        for one in &mut waiting {
            assert!(one.as_mut().now_or_never().is_none());
        }
        assert!(acquire(&controller, &alice).await.is_err(), "the queue is full");
        let mut other = Box::pin(acquire(&controller, &bob));
        assert!(other.as_mut().now_or_never().is_none());
        let evicted = waiting.pop().unwrap().as_mut().now_or_never();
        assert!(
            evicted.is_some_and(|outcome| outcome.is_err()),
            "the caller with the most waiters is evicted"
        );
        drop(first);
        let next = waiting.remove(0).as_mut().now_or_never();
        assert!(next.as_ref().is_some_and(|outcome| outcome.is_ok()));
        drop(second);
        let other = other.as_mut().now_or_never();
        assert!(other.is_some_and(|outcome| outcome.is_ok()), "not alice's third");
    }

    #[tokio::test]
    async fn invented_tokens_share_the_queue_of_their_address() {
        let alice = SecretString::from("alice's");
        let rules = QueueRules { requests_min: 1, requests_max: 1, requests_waiting: 2, ..rules() };
        let controller = controller(rules, &[&alice]);
        let _running = acquire(&controller, &alice).await.unwrap();
        let invented: Vec<_> =
            (0..3).map(|number| SecretString::from(format!("invented {number}"))).collect();
        let mut waiting: Vec<_> =
            invented.iter().map(|token| Box::pin(acquire(&controller, token))).collect();
        assert!(waiting[0].as_mut().now_or_never().is_none());
        assert!(waiting[1].as_mut().now_or_never().is_none());
        assert!(waiting[2].as_mut().now_or_never().is_some_and(|outcome| outcome.is_err()));
        assert!(
            Box::pin(acquire(&controller, &alice)).now_or_never().is_none(),
            "one of them was evicted"
        );
        assert!(waiting[1].as_mut().now_or_never().is_some_and(|outcome| outcome.is_err()));
    }

    #[tokio::test]
    async fn an_overloaded_replica_admits_fewer_requests() {
        let controller = controller(QueueRules { requests_min: 1, ..rules() }, &[]);
        let token = SecretString::from("a token");
        let mut running = Vec::new();
        for _ in 0..8 {
            running.push(acquire(&controller, &token).await.unwrap());
        }
        controller.adjust(OVERLOADED);
        running.truncate(6);
        assert!(
            Box::pin(acquire(&controller, &token)).now_or_never().is_none(),
            "six requests run, and six may"
        );
        running.pop();
        assert!(Box::pin(acquire(&controller, &token)).now_or_never().is_some());
    }
}
