use std::sync::Arc;

use super::Duties;
use crate::{
    traffic::cache::Cache,
    traffic::guard::Guards,
    traffic::limits::Limits,
    traffic::queue::{Calls, Requests},
};

/// What follows the config file besides the services.
#[derive(Clone, Debug)]
pub(crate) struct Live {
    pub(crate) limits: Arc<Limits>,
    pub(crate) cache: Arc<Cache>,
    pub(crate) calls: Arc<Calls>,
    pub(crate) requests: Arc<Requests>,
    pub(crate) guards: Arc<Guards>,
}

impl Live {
    /// This is in effect from now on.
    pub(crate) async fn set(&self, duties: Duties) {
        self.calls.set(&duties.concurrency);
        self.requests.set(&duties.concurrency);
        self.cache.set(duties.cache);
        self.guards.set(duties.guards);
        self.limits.set(duties.limits).await;
    }
}
