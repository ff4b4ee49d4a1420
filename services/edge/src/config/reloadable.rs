use std::sync::Arc;

use super::RuntimePolicy;
use crate::{
    traffic::cache::Cache,
    traffic::guard::Guards,
    traffic::limits::RateLimiter,
    traffic::queue::{AdmissionController, CallLimiter},
};

/// The components that a reload of the config file updates, besides the services.
#[derive(Clone, Debug)]
pub(crate) struct Reloadable {
    pub(crate) limits: Arc<RateLimiter>,
    pub(crate) cache: Arc<Cache>,
    pub(crate) calls: Arc<CallLimiter>,
    pub(crate) controller: Arc<AdmissionController>,
    pub(crate) guards: Arc<Guards>,
}

impl Reloadable {
    /// Applies a policy.
    pub(crate) async fn set(&self, policy: RuntimePolicy) {
        self.calls.set(&policy.concurrency);
        self.controller.set(&policy.concurrency);
        self.cache.set(policy.cache);
        self.guards.set(policy.guards);
        self.limits.set(policy.limits).await;
    }
}
