use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use axum::{
    Json, Router,
    extract::{Request, State},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::get,
};
use http::{HeaderMap, StatusCode, Uri, header::HOST, uri::Authority};
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::json;

use crate::{listen::Listen, running::ServiceBuilder, telemetry::Telemetry};

/// How often histograms are folded, so that they do not grow between two scrapes.
const METRICS_UPKEEP: Duration = Duration::from_secs(5);

/// The admin port: health, readiness and metrics, for operators alone.
///
/// It answers to IP addresses, `localhost` and the names of `--admin-allowed-host`. A page in an operator's browser
/// cannot read it by DNS rebinding, which needs a name of the attacker's own.
#[derive(Debug)]
pub struct Admin {
    listen: Listen,
    metrics: PrometheusHandle,
    hosts: Vec<String>,
    extra: Router,
}

impl Admin {
    /// An admin port that shows this telemetry's metrics.
    #[must_use]
    pub fn new(listen: &Listen, telemetry: &Telemetry) -> Self {
        Self {
            listen: listen.clone(),
            metrics: telemetry.metrics(),
            hosts: telemetry.admin_allowed_hosts().to_vec(),
            extra: Router::new(),
        }
    }

    /// Adds the service's own routes, which anybody may read under any name.
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

pub(crate) fn router(
    admin: Admin,
    readiness: Readiness,
    starting: &ServiceBuilder,
) -> (Listen, Router) {
    let Admin { listen, metrics, hosts, extra } = admin;
    starting.spawn(upkeep(metrics.clone(), starting.stopping()));
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(move || async move { readyz(&readiness) }))
        .route("/metrics", get(move || async move { metrics.render() }))
        .layer(from_fn_with_state(Arc::new(hosts), check_host))
        .merge(extra);
    (listen, router)
}

async fn check_host(
    State(hosts): State<Arc<Vec<String>>>,
    request: Request,
    next: Next,
) -> Response {
    if !is_host_allowed(request.uri(), request.headers(), &hosts) {
        let told = "the Host header names another server; --admin-allowed-host allows a name\n";
        return (StatusCode::FORBIDDEN, told).into_response();
    }
    next.run(request).await
}

/// Whether the admin port answers to a request under the host that it names. HTTP/2 and the absolute form of HTTP/1.1
/// have it in the URI, and may repeat it in one header (RFC 9112 section 3.2.2). HTTP/1.0 may have none, and no
/// browser speaks it.
fn is_host_allowed(uri: &Uri, headers: &HeaderMap, hosts: &[String]) -> bool {
    let mut named = headers.get_all(HOST).iter().map(|host| host.to_str().unwrap_or_default());
    let (header, further) = (named.next(), named.next());
    let host = match (uri.authority().map(Authority::as_str), header) {
        (Some(authority), Some(header)) if !authority.eq_ignore_ascii_case(header) => return false,
        (authority, header) => authority.or(header),
    };
    further.is_none() && host.is_none_or(|host| is_allowed(host, hosts))
}

/// Whether the admin port answers under this host, whatever its port.
fn is_allowed(host: &str, hosts: &[String]) -> bool {
    let Some(authority) = host.parse::<Authority>().ok().filter(|_| !host.contains('@')) else {
        return false;
    };
    let name = authority.host();
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    address.parse::<IpAddr>().is_ok()
        || name.eq_ignore_ascii_case("localhost")
        || hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(name))
}

fn readyz(readiness: &Readiness) -> impl IntoResponse + use<> {
    let (status, mut answer) = match readiness.reason() {
        None => (StatusCode::OK, json!({ "ready": true })),
        Some(reason) => {
            (StatusCode::SERVICE_UNAVAILABLE, json!({ "ready": false, "reason": reason }))
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn check(uri: &str, headers: &[&str], expected: bool) {
        let mut named = HeaderMap::new();
        for host in headers {
            named.append(HOST, host.parse().unwrap());
        }
        assert_eq!(
            is_host_allowed(&uri.parse().unwrap(), &named, &[]),
            expected,
            "{uri} {headers:?}"
        );
    }

    /// A request of the absolute form names its host twice, and was refused.
    #[test]
    fn a_request_may_name_its_host_in_the_uri_and_the_same_in_the_header() {
        check("/readyz", &["127.0.0.1:7111"], true);
        check("/readyz", &[], true);
        check("http://127.0.0.1:7111/readyz", &["127.0.0.1:7111"], true);
        check("http://LOCALHOST:7111/readyz", &["localhost:7111"], true);
        check("http://127.0.0.1:7111/readyz", &[], true);
        check("/readyz", &["evil.example"], false);
        check("http://127.0.0.1:7111/readyz", &["evil.example"], false);
        check("http://evil.example/readyz", &["127.0.0.1"], false);
        check("http://evil.example/readyz", &["evil.example"], false);
        check("/readyz", &["127.0.0.1", "127.0.0.1"], false);
        check("/readyz", &["127.0.0.1", "evil.example"], false);
    }

    #[test]
    fn the_admin_port_answers_to_addresses_and_configured_names() {
        let hosts = ["metrics.acme.internal".to_owned()];
        for host in [
            "127.0.0.1",
            "10.1.2.3:7111",
            "[::1]:7111",
            "[fd00::1]",
            "localhost",
            "LocalHost:7111",
            "metrics.acme.internal",
            "Metrics.Acme.Internal:7111",
        ] {
            assert!(is_allowed(host, &hosts), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "evil.example:7111",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "127.0.0.1@evil.example",
            "evil.example@127.0.0.1",
            "metrics.acme.internal.evil.example",
            "a b",
            "0x7f000001",
            "127.1",
        ] {
            assert!(!is_allowed(host, &hosts), "{host}");
        }
    }
}
