//! How many calls run at once per principal and per tool service, and how long others wait.

use std::sync::Arc;

use drawbridge_proto::auth::v1 as auth;
use drawbridge_runtime::metric::SharedString;

use super::{
    Busy, Permit, QueueRules,
    fair_queue::{FairQueue, QueueLimits, QueueMetrics},
};
use crate::metrics::{CALL_WAIT, CALLS_REFUSED, CALLS_RUNNING, CALLS_WAITING};

/// By how much the wait is divided for a service that does not keep up.
const BACKLOGGED_WAIT_DIVISOR: u32 = 8;

/// Limits the calls that run and wait on this replica.
#[derive(Debug)]
pub(crate) struct CallLimiter(Arc<FairQueue>);

impl Default for CallLimiter {
    fn default() -> Self {
        Self(Arc::new(FairQueue::new(queue_limits(&QueueRules::default()), queue_metrics)))
    }
}

impl CallLimiter {
    /// Replaces the rules. Calls that run or wait are not interrupted.
    pub(crate) fn set(&self, rules: &QueueRules) {
        self.0.set_limits(queue_limits(rules));
    }

    /// Waits until this principal may call this service.
    ///
    /// # Errors
    /// When no permit becomes free in time.
    pub(crate) fn acquire(
        &self,
        service: &str,
        principal: &auth::Principal,
    ) -> impl Future<Output = Result<Permit, Busy>> + Send + use<> {
        let (queue, service) = (Arc::clone(&self.0), service.to_owned());
        let caller = queue.hash((&principal.issuer, &principal.subject));
        async move { queue.acquire(&service, caller).await }
    }
}

impl Busy {
    /// The limit that was reached: a code for logs, metrics and clients.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Caller => "principal_busy",
            Self::Queue => "service_busy",
        }
    }
}

fn queue_limits(rules: &QueueRules) -> QueueLimits {
    QueueLimits {
        per_caller: rules.calls_per_principal,
        per_queue: rules.calls_per_service,
        queues: rules.services.clone(),
        waiting_per_caller: rules.waiting_per_principal,
        waiting_per_queue: rules.waiting_per_service,
        wait: rules.wait,
        wait_backlogged: rules.wait / BACKLOGGED_WAIT_DIVISOR,
    }
}

fn queue_metrics(service: &str) -> QueueMetrics {
    let service = SharedString::from(service.to_owned());
    let rejected = |reason: &'static str| CALLS_REFUSED.with([service.clone(), reason.into()]);
    QueueMetrics {
        running: CALLS_RUNNING.with([service.clone()]),
        waiting: CALLS_WAITING.with([service.clone()]),
        waited: CALL_WAIT.with([service.clone()]),
        rejected: [rejected("principal"), rejected("service")],
    }
}
