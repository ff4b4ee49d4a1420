//! How many requests are in progress at once, and how many may be. Others queue, where it costs nothing: each principal in
//! a queue of its own, once auth has accepted the token. Until then it queues with all others of its address.
//!
//! What tells that this replica no longer keeps up is that its threads have something to do all of the time: how long a
//! service takes to answer says nothing of the edge. The number of requests then falls by a quarter, again and again,
//! so that what is too much waits here, each caller's own, and not in every queue inside; it rises by an eighth when the
//! threads find nothing to do.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use drawbridge_proto::auth::v1::Principal;
use metrics::{counter, gauge, histogram};
use moka::sync::Cache;
use secrecy::{ExposeSecret as _, SecretString};
use tokio_util::sync::CancellationToken;

use super::{
    Busy, Rules, Turn,
    load::Load,
    turns::{Caller, Measured, Room, Turns},
};
use crate::traffic::limits::network;

/// Busier than this, the replica does not keep up.
const BUSY: f64 = 0.95;
/// Less busy than this, it could do more.
const IDLE: f64 = 0.9;
/// How often that is looked at.
const WINDOW: Duration = Duration::from_millis(50);
/// So many requests of one principal may be in progress, where the replica takes as many.
const REQUESTS_OF_PRINCIPAL_MIN: usize = 16;
/// There is one door.
const DOOR: &str = "";
/// How many tokens are known to be good, and for how long after they were last shown.
const KNOWN_MAX: u64 = 100_000;
const KNOWN_FOR: Duration = Duration::from_secs(300);

/// The requests that are in progress on this replica, and those at its door.
#[derive(Debug)]
pub(crate) struct Requests {
    door: Arc<Turns>,
    bound: Mutex<Bound>,
    /// The tokens that auth has accepted, and whose they are.
    known: Cache<Caller, Caller>,
}

/// Who sends a request, as far as this replica knows without asking auth.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sender {
    token: Caller,
    /// Absent: auth has not accepted the token yet, or not for a while.
    principal: Option<Caller>,
}

impl Sender {
    /// Whose token it is, once auth has accepted it.
    pub(crate) fn principal(self) -> Option<Caller> {
        self.principal
    }

    /// The same sender, now that auth has accepted its token.
    pub(crate) fn authenticated(self, principal: Caller) -> Self {
        Self { principal: Some(principal), ..self }
    }
}

/// A request in progress, as long as this lives.
#[derive(Debug)]
pub(crate) struct InProgress {
    _turn: Turn,
}

#[derive(Clone, Debug)]
struct Bound {
    rules: Rules,
    /// How many requests may be in progress now.
    now: usize,
}

impl Default for Requests {
    fn default() -> Self {
        let bound = Bound::new(&Rules::default());
        Self {
            door: Arc::new(Turns::new(bound.room(), measured)),
            bound: Mutex::new(bound),
            known: Cache::builder().max_capacity(KNOWN_MAX).time_to_idle(KNOWN_FOR).build(),
        }
    }
}

impl Requests {
    /// These rules hold from now on.
    pub(crate) fn set(&self, rules: &Rules) {
        let mut bound = self.bound.lock().unwrap_or_else(PoisonError::into_inner);
        if bound.rules != *rules {
            *bound = Bound::new(rules);
            self.door.set(bound.room());
        }
    }

    /// Who sends a request with this token.
    pub(crate) fn sender(&self, token: &SecretString) -> Sender {
        let token = self.door.caller(token.expose_secret());
        Sender { token, principal: self.known.get(&token) }
    }

    /// Auth has accepted the token: it is this principal's.
    pub(crate) fn mark_authenticated(&self, sender: &Sender, principal: &Principal) -> Caller {
        let Principal { issuer, subject, tenant, .. } = principal;
        let principal = self.door.caller((issuer, subject, tenant));
        self.known.insert(sender.token, principal);
        principal
    }

    /// Auth does not accept the token any more.
    pub(crate) fn forget(&self, sender: &Sender) {
        self.known.invalidate(&sender.token);
    }

    /// Waits until a request of this sender, from this address, may begin. Senders who are not authenticated queue
    /// with all others of their address, so that nobody makes queues by making tokens up.
    ///
    /// # Errors
    /// When that would take too long.
    pub(crate) async fn acquire(
        &self,
        sender: &Sender,
        address: IpAddr,
    ) -> Result<InProgress, Busy> {
        let caller = sender.principal.unwrap_or_else(|| self.door.caller(network(address)));
        Ok(InProgress { _turn: self.door.take(DOOR, caller).await? })
    }

    /// Lets fewer or more be in progress, after a time in which the replica was so busy.
    fn adjust(&self, busy: f64) {
        let peak = self.door.peak();
        let mut bound = self.bound.lock().unwrap_or_else(PoisonError::into_inner);
        let before = bound.now;
        bound.now = bound.next(peak, busy);
        let (now, max) = (bound.now, bound.rules.requests_max);
        if now == before {
            return;
        }
        self.door.set(bound.room());
        gauge!("edge_requests_limit").set(f64::from(u32::try_from(now).unwrap_or(u32::MAX)));
        if before == max {
            tracing::warn!(
                limit = now,
                busy,
                "the edge does not keep up; it takes fewer requests at once"
            );
        } else if now == max {
            tracing::info!(limit = now, "the edge keeps up again");
        }
    }
}

impl Bound {
    fn new(rules: &Rules) -> Self {
        Self { rules: rules.clone(), now: rules.requests_max }
    }

    fn room(&self) -> Room {
        Room {
            // Requests may take long, such as those that wait for a person: nobody has them all.
            per_caller: (self.now / 4).max(self.now.min(REQUESTS_OF_PRINCIPAL_MIN)),
            per_line: self.now,
            lines: [].into(),
            waiting_per_caller: usize::MAX,
            waiting_per_line: self.rules.requests_waiting,
            wait: self.rules.wait,
            // Whoever is refused comes again, and that costs more than to let it wait.
            wait_standing: self.rules.wait,
        }
    }

    /// How many requests may be in progress after a time in which `peak` were, and the replica was so busy.
    fn next(&self, peak: usize, busy: f64) -> usize {
        let (min, max) = (self.rules.requests_min, self.rules.requests_max);
        // With few there is nothing to hold back, however slow the machine.
        let next = if busy > BUSY && peak > min {
            let held = self.now.min(peak);
            held - held / 4
        } else if busy < IDLE {
            self.now + self.now / 8 + 1
        } else {
            self.now
        };
        next.clamp(min, max)
    }
}

fn measured(_: &str) -> Measured {
    let refused = counter!("edge_requests_refused_total");
    Measured {
        running: gauge!("edge_requests_running"),
        waiting: gauge!("edge_requests_waiting"),
        waited: histogram!("edge_request_wait_seconds"),
        refused: [refused.clone(), refused],
    }
}

/// Looks whether the replica keeps up, until it stops.
pub(crate) async fn watch(requests: Arc<Requests>, stopping: CancellationToken) {
    let watching = async {
        let mut load = Load::of_this_runtime();
        loop {
            tokio::time::sleep(WINDOW).await;
            requests.adjust(load.share());
        }
    };
    stopping.run_until_cancelled(watching).await;
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use futures::FutureExt as _;

    use super::*;

    const KEEPS_UP: f64 = 0.5;
    const DOES_NOT: f64 = 0.99;

    fn rules() -> Rules {
        Rules {
            requests_min: 16,
            requests_max: 1000,
            wait: Duration::from_secs(600),
            ..Rules::default()
        }
    }

    #[test]
    fn what_does_not_keep_up_takes_fewer_at_once_until_it_does_and_never_too_few() {
        let mut bound = Bound::new(&rules());
        // It falls from what was in progress, not from what might have been.
        bound.now = bound.next(200, DOES_NOT);
        assert_eq!(bound.now, 150);
        for _ in 0..100 {
            bound.now = bound.next(bound.now, DOES_NOT);
        }
        assert_eq!(bound.now, 16);
        bound.now = bound.next(16, (BUSY + IDLE) / 2.0);
        assert_eq!(bound.now, 16);
        bound.now = bound.next(16, KEEPS_UP);
        assert_eq!(bound.now, 19);
        for _ in 0..100 {
            bound.now = bound.next(0, KEEPS_UP);
        }
        assert_eq!(bound.now, 1000);
        // Few requests are not what keeps it busy.
        assert_eq!(bound.next(16, DOES_NOT), 1000);
    }

    const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    /// Requests of which `tokens` are known to be good, each of a principal of its own.
    fn requests(rules: Rules, tokens: &[&SecretString]) -> Requests {
        let requests = Requests::default();
        requests.set(&rules);
        for token in tokens {
            let principal =
                Principal { subject: token.expose_secret().into(), ..Principal::default() };
            requests.mark_authenticated(&requests.sender(token), &principal);
        }
        requests
    }

    async fn begin(requests: &Requests, token: &SecretString) -> Result<InProgress, Busy> {
        requests.acquire(&requests.sender(token), ADDRESS).await
    }

    #[tokio::test]
    async fn who_has_sent_much_waits_at_the_door_and_lets_others_pass() {
        let (alice, bob) = (SecretString::from("alice's"), SecretString::from("bob's"));
        let rules = Rules { requests_min: 1, requests_max: 2, requests_waiting: 3, ..rules() };
        let requests = requests(rules, &[&alice, &bob]);
        let first = begin(&requests, &alice).await.unwrap();
        let second = begin(&requests, &alice).await.unwrap();
        let mut waiting: Vec<_> = (0..3).map(|_| Box::pin(begin(&requests, &alice))).collect();
        for one in &mut waiting {
            assert!(one.as_mut().now_or_never().is_none());
        }
        assert!(begin(&requests, &alice).await.is_err(), "the line is full");
        let mut other = Box::pin(begin(&requests, &bob));
        assert!(other.as_mut().now_or_never().is_none());
        let displaced = waiting.pop().unwrap().as_mut().now_or_never();
        assert!(displaced.is_some_and(|outcome| outcome.is_err()), "whoever waits most gives way");
        drop(first);
        let next = waiting.remove(0).as_mut().now_or_never();
        assert!(next.as_ref().is_some_and(|outcome| outcome.is_ok()));
        drop(second);
        let other = other.as_mut().now_or_never();
        assert!(other.is_some_and(|outcome| outcome.is_ok()), "and not the third of alice's");
    }

    #[tokio::test]
    async fn who_makes_tokens_up_makes_no_lines() {
        let alice = SecretString::from("alice's");
        let rules = Rules { requests_min: 1, requests_max: 1, requests_waiting: 2, ..rules() };
        let requests = requests(rules, &[&alice]);
        let _running = begin(&requests, &alice).await.unwrap();
        let made_up: Vec<_> =
            (0..3).map(|number| SecretString::from(format!("made up {number}"))).collect();
        let mut waiting: Vec<_> =
            made_up.iter().map(|token| Box::pin(begin(&requests, token))).collect();
        assert!(waiting[0].as_mut().now_or_never().is_none());
        assert!(waiting[1].as_mut().now_or_never().is_none());
        assert!(waiting[2].as_mut().now_or_never().is_some_and(|outcome| outcome.is_err()));
        assert!(
            Box::pin(begin(&requests, &alice)).now_or_never().is_none(),
            "one of theirs has given way"
        );
        assert!(waiting[1].as_mut().now_or_never().is_some_and(|outcome| outcome.is_err()));
    }

    #[tokio::test]
    async fn fewer_begin_once_the_replica_does_not_keep_up() {
        let requests = requests(Rules { requests_min: 1, ..rules() }, &[]);
        let token = SecretString::from("a token");
        let mut running = Vec::new();
        for _ in 0..8 {
            running.push(begin(&requests, &token).await.unwrap());
        }
        requests.adjust(DOES_NOT);
        running.truncate(6);
        assert!(Box::pin(begin(&requests, &token)).now_or_never().is_none(), "six may run, and do");
        running.pop();
        assert!(Box::pin(begin(&requests, &token)).now_or_never().is_some());
    }
}
