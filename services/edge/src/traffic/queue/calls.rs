//! How many calls run at once, of one principal and on one tool service, and how long others wait.

use std::sync::Arc;

use drawbridge_proto::auth::v1 as auth;
use metrics::{counter, gauge, histogram};

use super::{
    Busy, Rules, Turn,
    turns::{Measured, Room, Turns},
};

/// How much shorter the wait is on a service that does not keep up.
const STANDING_SHARE: u32 = 8;

/// The calls that run and wait on this replica.
#[derive(Debug)]
pub(crate) struct Calls(Arc<Turns>);

impl Default for Calls {
    fn default() -> Self {
        Self(Arc::new(Turns::new(room(&Rules::default()), measured)))
    }
}

impl Calls {
    /// These rules hold from now on. What runs and waits goes on.
    pub(crate) fn set(&self, rules: &Rules) {
        self.0.set(room(rules));
    }

    /// Waits until a call of this principal may run on this service.
    ///
    /// # Errors
    /// When that would take too long.
    pub(crate) fn begin(
        &self,
        service: &str,
        principal: &auth::Principal,
    ) -> impl Future<Output = Result<Turn, Busy>> + Send + use<> {
        let (turns, service) = (Arc::clone(&self.0), service.to_owned());
        let caller = turns.caller((&principal.issuer, &principal.subject));
        async move { turns.take(&service, caller).await }
    }
}

impl Busy {
    /// What has too many calls under way: a word for logs, metrics and clients.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Caller => "principal_busy",
            Self::Line => "service_busy",
        }
    }
}

fn room(rules: &Rules) -> Room {
    Room {
        per_caller: rules.calls_per_principal,
        per_line: rules.calls_per_service,
        lines: rules.services.clone(),
        waiting_per_caller: rules.waiting_per_principal,
        waiting_per_line: rules.waiting_per_service,
        wait: rules.wait,
        wait_standing: rules.wait / STANDING_SHARE,
    }
}

fn measured(service: &str) -> Measured {
    let service = service.to_owned();
    let refused = |reason: &'static str| counter!("edge_calls_refused_total", "service" => service.clone(), "reason" => reason);
    Measured {
        running: gauge!("edge_calls_running", "service" => service.clone()),
        waiting: gauge!("edge_calls_waiting", "service" => service.clone()),
        waited: histogram!("edge_call_wait_seconds", "service" => service.clone()),
        refused: [refused("principal"), refused("service")],
    }
}
