//! Whether a service can do its work, condition by condition.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use metrics::Gauge;
use serde::Serialize;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use self::damper::Damper;
use crate::{
    backoff::ReconnectDelays,
    metrics::{DEPENDENCY_UP, DRAINING, READY},
};

/// How often a dependency is checked.
const CHECK_INTERVAL: Duration = Duration::from_millis(500);
/// A check that takes longer has failed.
const CHECK_TIMEOUT: Duration = Duration::from_secs(1);
/// The first checks of a dependency follow one another faster, so that a service starts quickly.
const FIRST_INTERVAL: Duration = Duration::from_millis(20);

/// The condition that the service has started and does not stop.
const SERVING: &str = "serving";

mod damper;

type Name = Cow<'static, str>;

/// What a condition that is not met does to the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// The service is not ready: it would refuse every request.
    Required,
    /// The service is ready, and does a part of its work.
    Degrading,
}

impl Effect {
    fn label(self) -> &'static str {
        match self {
            Self::Required => "required",
            Self::Degrading => "degrading",
        }
    }
}

/// The state of a condition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConditionStatus {
    /// Its name, for example of a dependency.
    pub name: Name,
    /// What it does to the service while it is not met.
    pub effect: Effect,
    /// Whether it is met.
    pub is_up: bool,
    /// Why it is not met.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Since when, in seconds since 1970.
    pub since: u64,
}

/// The conditions under which a service can do its work. Its clones share them.
///
/// INVARIANT: a condition is about what this process sees itself, never about the readiness of
/// another service: two services that wait for one another would never become ready.
#[derive(Clone, Debug)]
pub struct Readiness(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    conditions: Mutex<BTreeMap<Name, Entry>>,
    changed: watch::Sender<bool>,
    started: watch::Sender<bool>,
    ready: Gauge,
}

#[derive(Debug)]
struct Entry {
    effect: Effect,
    reason: Option<String>,
    since: SystemTime,
    up: Gauge,
}

impl Default for Readiness {
    fn default() -> Self {
        let shared = Shared {
            conditions: Mutex::default(),
            changed: watch::Sender::new(false),
            started: watch::Sender::new(false),
            ready: READY.get(),
        };
        let readiness = Self(Arc::new(shared));
        DRAINING.get().set(0);
        readiness.set_not_ready("starting");
        readiness
    }
}

impl Readiness {
    /// The service has started. It is ready once each required condition is met.
    pub fn set_ready(&self) {
        self.set(SERVING.into(), Effect::Required, None);
        self.0.started.send_replace(true);
    }

    /// The service cannot serve, whatever its conditions are.
    pub fn set_not_ready(&self, reason: impl Into<String>) {
        self.set(SERVING.into(), Effect::Required, Some(reason.into()));
    }

    /// The service has been asked to stop.
    pub(crate) fn set_draining(&self) {
        DRAINING.get().set(1);
        self.set_not_ready("stopping");
    }

    /// Registers a condition: a required one is not met until it is set, a degrading one is met.
    #[must_use]
    pub fn condition(&self, name: impl Into<Name>, effect: Effect) -> Condition {
        let name = name.into();
        let reason = (effect == Effect::Required).then(|| "not checked yet".to_owned());
        self.set(name.clone(), effect, reason);
        Condition { readiness: self.clone(), name, effect }
    }

    /// Sets or clears a note for the operator: a degrading condition, which is met without a note.
    pub fn set_note(&self, topic: &'static str, note: Option<String>) {
        self.set(topic.into(), Effect::Degrading, note);
    }

    /// The reasons of the degrading conditions that are not met, by their names.
    #[must_use]
    pub fn notes(&self) -> BTreeMap<Name, String> {
        let down = |(name, entry): (&Name, &Entry)| {
            let reason = entry.reason.clone().filter(|_| entry.effect == Effect::Degrading)?;
            Some((name.clone(), reason))
        };
        self.conditions().iter().filter_map(down).collect()
    }

    /// Why the service is not ready; `None` when it is ready.
    #[must_use]
    pub fn reason(&self) -> Option<String> {
        reason(&self.conditions())
    }

    /// The state of every condition.
    #[must_use]
    pub fn statuses(&self) -> Vec<ConditionStatus> {
        let status = |(name, entry): (&Name, &Entry)| ConditionStatus {
            name: name.clone(),
            effect: entry.effect,
            is_up: entry.reason.is_none(),
            reason: entry.reason.clone(),
            since: entry
                .since
                .duration_since(SystemTime::UNIX_EPOCH)
                .map_or(0, |since| since.as_secs()),
        };
        self.conditions().iter().map(status).collect()
    }

    /// Waits until the service is ready.
    pub async fn wait_ready(&self) {
        let mut changed = self.subscribe();
        // The sender lives as long as `self`, so this cannot fail.
        let _ = changed.wait_for(|ready| *ready).await;
    }

    /// Waits until the service has started, whatever its conditions are.
    pub async fn wait_started(&self) {
        let mut started = self.0.started.subscribe();
        // The sender lives as long as `self`, so this cannot fail.
        let _ = started.wait_for(|started| *started).await;
    }

    /// Subscribes to changes of readiness.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<bool> {
        self.0.changed.subscribe()
    }

    /// Returns whether the condition was met before, if that changed.
    fn set(&self, name: Name, effect: Effect, reason: Option<String>) -> Option<bool> {
        let mut conditions = self.conditions();
        let is_up = reason.is_none();
        let mut before = None;
        let entry = conditions.entry(name).or_insert_with_key(|name| {
            before = Some(is_up);
            let up = DEPENDENCY_UP.with([name.clone().into(), effect.label().into()]);
            Entry { effect, reason: None, since: SystemTime::now(), up }
        });
        let before = before.unwrap_or(entry.reason.is_none());
        if before != is_up {
            entry.since = SystemTime::now();
        }
        entry.reason = reason;
        entry.up.set(if is_up { 1 } else { 0 });
        self.publish(&conditions);
        (before != is_up).then_some(before)
    }

    fn remove(&self, name: &Name) {
        let mut conditions = self.conditions();
        if let Some(entry) = conditions.remove(name) {
            // A metric cannot be removed, and what is not needed must not raise an alarm.
            entry.up.set(1);
        }
        self.publish(&conditions);
    }

    /// Publishes while `conditions` is locked, so that the last publication is of the last change.
    fn publish(&self, conditions: &BTreeMap<Name, Entry>) {
        let is_ready = reason(conditions).is_none();
        self.0.ready.set(if is_ready { 1 } else { 0 });
        self.0.changed.send_if_modified(|ready| std::mem::replace(ready, is_ready) != is_ready);
    }

    fn conditions(&self) -> MutexGuard<'_, BTreeMap<Name, Entry>> {
        self.0.conditions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The reasons of the required conditions that are not met.
fn reason(conditions: &BTreeMap<Name, Entry>) -> Option<String> {
    let down = |(name, entry): (&Name, &Entry)| {
        let reason = entry.reason.as_ref().filter(|_| entry.effect == Effect::Required)?;
        Some(if name == SERVING { reason.clone() } else { format!("{name}: {reason}") })
    };
    let reasons: Vec<_> = conditions.iter().filter_map(down).collect();
    (!reasons.is_empty()).then(|| reasons.join("; "))
}

/// A condition of a service. It is removed when it is dropped.
#[derive(Debug)]
pub struct Condition {
    readiness: Readiness,
    name: Name,
    effect: Effect,
}

impl Condition {
    /// Sets whether it is met, and if not, why. The reason is readable by anyone with access to the
    /// admin port, so it names no secret.
    pub fn set(&self, state: Result<(), String>) {
        let reason = state.err();
        match self.readiness.set(self.name.clone(), self.effect, reason.clone()) {
            Some(true) => {
                tracing::warn!(condition = %self.name, reason, "a condition is not met");
            }
            Some(false) => tracing::info!(condition = %self.name, "a condition is met"),
            None => {}
        }
    }

    /// Sets the condition by checks of a dependency, until `stopping`. The dependency is down after
    /// some failed checks in a row and up again after some successful ones, so that the service
    /// does not flap: within two seconds, or six if checks do not answer. At the start the first
    /// successful check counts.
    pub async fn monitor<F>(self, mut check: impl FnMut() -> F + Send, stopping: CancellationToken)
    where
        F: Future<Output = Result<(), String>> + Send,
    {
        let mut damper = Damper::default();
        let mut first_delays = ReconnectDelays::new(FIRST_INTERVAL, CHECK_INTERVAL);
        let monitoring = async {
            loop {
                let late = || Err("does not answer in time".to_owned());
                let checked = timeout(CHECK_TIMEOUT, check()).await.unwrap_or_else(|_| late());
                if let Some(state) = damper.record(checked) {
                    self.set(state);
                }
                if damper.has_succeeded() {
                    sleep(CHECK_INTERVAL).await;
                } else {
                    first_delays.wait().await;
                }
            }
        };
        stopping.run_until_cancelled(monitoring).await;
    }
}

impl Drop for Condition {
    fn drop(&mut self) {
        self.readiness.remove(&self.name);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    fn down(reason: &str) -> Result<(), String> {
        Err(reason.to_owned())
    }

    #[test]
    fn a_service_is_ready_while_each_required_condition_is_met() {
        let readiness = Readiness::default();
        let database = readiness.condition("database", Effect::Required);
        let vault = readiness.condition("vault", Effect::Degrading);
        assert_eq!(readiness.reason().as_deref(), Some("database: not checked yet; starting"));
        readiness.set_ready();
        database.set(Ok(()));
        vault.set(down("sealed"));
        assert_eq!((readiness.reason(), *readiness.subscribe().borrow()), (None, true));
        assert_eq!(readiness.notes(), [("vault".into(), "sealed".to_owned())].into());
        database.set(down("cannot be reached"));
        assert_eq!(readiness.reason().as_deref(), Some("database: cannot be reached"));
        assert!(!*readiness.subscribe().borrow());
        readiness.set_draining();
        database.set(Ok(()));
        assert_eq!(readiness.reason().as_deref(), Some("stopping"));
        drop((database, vault));
        let names: Vec<_> = readiness.statuses().into_iter().map(|status| status.name).collect();
        assert_eq!(names, ["serving"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_dependency_is_down_after_two_seconds_and_up_again_after_one() {
        let (readiness, is_up) = (Readiness::default(), Arc::new(AtomicBool::new(false)));
        readiness.set_ready();
        let (condition, checked) =
            (readiness.condition("redis", Effect::Required), Arc::clone(&is_up));
        let check = move || {
            let is_up = checked.load(Ordering::Relaxed);
            std::future::ready(if is_up { Ok(()) } else { down("cannot be reached") })
        };
        tokio::spawn(condition.monitor(check, CancellationToken::new()));
        let at = async |seconds: f64| {
            sleep(Duration::from_secs_f64(seconds)).await;
            readiness.reason()
        };
        let gone = Some("redis: cannot be reached".to_owned());
        assert_eq!(at(5.0).await, gone);
        is_up.store(true, Ordering::Relaxed);
        assert_eq!(at(0.6).await, None, "the first success counts");
        for _ in 0..10 {
            is_up.store(false, Ordering::Relaxed);
            assert_eq!(at(1.0).await, None, "a short failure does not count");
            is_up.store(true, Ordering::Relaxed);
            assert_eq!(at(1.0).await, None);
        }
        is_up.store(false, Ordering::Relaxed);
        assert_eq!(at(2.1).await, gone);
        is_up.store(true, Ordering::Relaxed);
        assert_eq!(at(0.4).await, gone, "one success is not enough");
        assert_eq!(at(0.7).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_check_that_does_not_answer_has_failed() {
        let readiness = Readiness::default();
        let condition = readiness.condition("redis", Effect::Degrading);
        tokio::spawn(condition.monitor(std::future::pending, CancellationToken::new()));
        sleep(Duration::from_secs(20)).await;
        let notes = readiness.notes();
        assert_eq!(notes.get("redis").map(String::as_str), Some("does not answer in time"));
    }
}
