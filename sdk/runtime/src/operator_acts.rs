//! What operators do to a running service, for those who record it.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Something that an operator did to a running service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperatorAct {
    /// What was done.
    pub kind: OperatorActKind,
    /// What is in effect now, such as the text of a filter. It has no secret.
    pub value: String,
    /// Why it has no effect. Absent: it has.
    pub problem: Option<String>,
}

/// What operators do to a running service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OperatorActKind {
    /// The log filter was changed.
    LogFilter,
    /// The certificate of the server for clients was changed.
    Certificate,
    /// The certificate for other services, or the authorities that it trusts, were changed.
    Mtls,
    /// The service was asked to stop: it drains.
    Drain,
}

type ActObserver = Box<dyn Fn(&OperatorAct) + Send + Sync>;

/// Passes what operators do to those who record it. Its clones are the same.
#[derive(Clone, Default)]
pub struct OperatorActs(Arc<Mutex<Vec<ActObserver>>>);

impl fmt::Debug for OperatorActs {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("OperatorActs").field(&self.observers().len()).finish()
    }
}

impl OperatorActs {
    /// Calls `observer` with each act from now on. It must not block.
    pub fn observe(&self, observer: impl Fn(&OperatorAct) + Send + Sync + 'static) {
        self.observers().push(Box::new(observer));
    }

    /// Passes an act to the observers.
    pub fn report(&self, act: &OperatorAct) {
        self.observers().iter().for_each(|observer| observer(act));
    }

    /// Passes on whether a change is in effect.
    pub fn report_change(
        &self,
        kind: OperatorActKind,
        value: impl Into<String>,
        applied: Result<(), String>,
    ) {
        self.report(&OperatorAct { kind, value: value.into(), problem: applied.err() });
    }

    fn observers(&self) -> MutexGuard<'_, Vec<ActObserver>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
