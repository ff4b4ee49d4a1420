use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use arc_swap::ArcSwap;

/// Whether a service can do its work, and if not, why.
#[derive(Clone, Debug)]
pub struct Readiness {
    reason: Arc<ArcSwap<Option<String>>>,
    notes: Arc<Mutex<BTreeMap<&'static str, String>>>,
    changed: tokio::sync::watch::Sender<bool>,
}

impl Default for Readiness {
    fn default() -> Self {
        Self {
            reason: Arc::new(ArcSwap::from_pointee(Some("starting".to_owned()))),
            notes: Arc::default(),
            changed: tokio::sync::watch::Sender::new(false),
        }
    }
}

impl Readiness {
    /// The service can do its work.
    pub fn set_ready(&self) {
        self.reason.store(Arc::new(None));
        self.changed.send_replace(true);
    }

    /// The service cannot do its work.
    pub fn set_not_ready(&self, reason: impl Into<String>) {
        self.reason.store(Arc::new(Some(reason.into())));
        self.changed.send_replace(false);
    }

    /// Sets or clears a note for the operator. A note does not affect readiness.
    pub fn set_note(&self, topic: &'static str, note: Option<String>) {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        match note {
            Some(note) => notes.insert(topic, note),
            None => notes.remove(topic),
        };
    }

    /// The notes for the operator.
    #[must_use]
    pub fn notes(&self) -> BTreeMap<&'static str, String> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Why the service is not ready; `None` when it is ready.
    #[must_use]
    pub fn reason(&self) -> Option<String> {
        self.reason.load().as_ref().clone()
    }

    /// Waits until the service is ready.
    pub async fn wait_ready(&self) {
        let mut changed = self.changed.subscribe();
        // The sender lives as long as `self`, so this cannot fail.
        let _ = changed.wait_for(|ready| *ready).await;
    }

    /// Subscribes to changes of readiness.
    #[must_use]
    pub fn subscribe(&self) -> tokio::sync::watch::Receiver<bool> {
        self.changed.subscribe()
    }
}
