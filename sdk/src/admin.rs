use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use axum::{Json, Router, http::StatusCode, response::IntoResponse, routing::get};
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::json;

use crate::{listen::Listen, running::Starting, telemetry::Telemetry};

/// How often histograms are folded, so that they do not grow between two scrapes.
const METRICS_UPKEEP: Duration = Duration::from_secs(5);

/// The admin port: health, readiness and metrics, for operators alone.
#[derive(Debug)]
pub struct Admin {
    listen: Listen,
    metrics: PrometheusHandle,
    extra: Router,
}

impl Admin {
    /// An admin port that shows this telemetry's metrics.
    #[must_use]
    pub fn new(listen: &Listen, telemetry: &Telemetry) -> Self {
        Self { listen: listen.clone(), metrics: telemetry.metrics(), extra: Router::new() }
    }

    /// Adds the service's own routes.
    #[must_use]
    pub fn with(mut self, routes: Router) -> Self {
        self.extra = self.extra.merge(routes);
        self
    }
}

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
    pub fn ready(&self) {
        self.reason.store(Arc::new(None));
        self.changed.send_replace(true);
    }

    /// The service cannot do its work.
    pub fn not_ready(&self, reason: impl Into<String>) {
        self.reason.store(Arc::new(Some(reason.into())));
        self.changed.send_replace(false);
    }

    /// Notes, or no longer notes, what an operator should look at though the service can do its work.
    pub fn note(&self, about: &'static str, note: Option<String>) {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        match note {
            Some(note) => notes.insert(about, note),
            None => notes.remove(about),
        };
    }

    /// What an operator should look at.
    #[must_use]
    pub fn notes(&self) -> BTreeMap<&'static str, String> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Why the service is not ready; nothing when it is.
    #[must_use]
    pub fn reason(&self) -> Option<String> {
        self.reason.load().as_ref().clone()
    }

    /// Waits until the service is ready.
    pub async fn wait(&self) {
        let mut changed = self.changed.subscribe();
        // The sender lives as long as `self`, so this cannot fail.
        let _ = changed.wait_for(|ready| *ready).await;
    }

    /// Tells of every change from now on.
    pub(crate) fn watch(&self) -> tokio::sync::watch::Receiver<bool> {
        self.changed.subscribe()
    }
}

pub(crate) fn router(admin: Admin, readiness: Readiness, starting: &Starting) -> (Listen, Router) {
    let Admin { listen, metrics, extra } = admin;
    starting.spawn(upkeep(metrics.clone(), starting.stopping()));
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(move || async move { readyz(&readiness) }))
        .route("/metrics", get(move || async move { metrics.render() }))
        .merge(extra);
    (listen, router)
}

fn readyz(readiness: &Readiness) -> impl IntoResponse + use<> {
    let (status, mut answer) = match readiness.reason() {
        None => (StatusCode::OK, json!({ "ready": true })),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, json!({ "ready": false, "reason": reason })),
    };
    let notes = readiness.notes();
    if !notes.is_empty() {
        answer["notes"] = json!(notes);
    }
    (status, Json(answer))
}

async fn upkeep(metrics: PrometheusHandle, stopping: tokio_util::sync::CancellationToken) {
    let mut interval = tokio::time::interval(METRICS_UPKEEP);
    while stopping.run_until_cancelled(interval.tick()).await.is_some() {
        metrics.run_upkeep();
    }
}
