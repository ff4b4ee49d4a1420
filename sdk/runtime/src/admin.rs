use std::{net::IpAddr, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{RawQuery, Request, State},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::get,
};
use http::{HeaderMap, StatusCode, Uri, header::HOST, uri::Authority};
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::{
    listen::Listen,
    readiness::Readiness,
    telemetry::{OtlpMetrics, Telemetry, process},
};

mod scheduler;

/// How often histograms are compacted, so that they do not grow between two scrapes.
const METRICS_UPKEEP: Duration = Duration::from_secs(5);

/// The admin port: health, readiness and metrics, for operators only.
///
/// It accepts requests whose host is an IP address, `localhost` or a name from
/// `--admin-allowed-host`. DNS rebinding needs a name that the attacker controls, so a page in an
/// operator's browser cannot read the port.
#[derive(Debug)]
pub struct Admin {
    listen: Listen,
    metrics: PrometheusHandle,
    otlp_metrics: Option<OtlpMetrics>,
    hosts: Vec<String>,
    operator: Router,
    extra: Router,
}

impl Admin {
    /// An admin port that serves this telemetry's metrics.
    #[must_use]
    pub fn new(listen: &Listen, telemetry: &Telemetry) -> Self {
        Self {
            listen: listen.clone(),
            metrics: telemetry.metrics(),
            otlp_metrics: telemetry.otlp_metrics(),
            hosts: telemetry.admin_allowed_hosts().to_vec(),
            operator: Router::new(),
            extra: Router::new(),
        }
    }

    /// Adds routes for operators, which are subject to the host check.
    #[must_use]
    pub fn with_operator_routes(mut self, routes: Router) -> Self {
        self.operator = self.operator.merge(routes);
        self
    }

    /// Adds the service's own routes. They are not subject to the host check.
    #[must_use]
    pub fn with_routes(mut self, routes: Router) -> Self {
        self.extra = self.extra.merge(routes);
        self
    }

    /// The address of the admin port, and what it serves.
    pub(crate) fn into_router(self, readiness: Readiness) -> (Listen, Router) {
        let Self { listen, metrics, hosts, operator, extra, .. } = self;
        let router = Router::new()
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/readyz", get(move |query| async move { readyz(&readiness, &query) }))
            .route("/metrics", get(move || async move { scrape(&metrics) }))
            .merge(operator)
            .layer(from_fn_with_state(Arc::new(hosts), check_host))
            .merge(extra);
        (listen, router)
    }

    /// Folds histograms until `stopping`, so that they do not grow between two scrapes.
    pub(crate) fn upkeep(
        &self,
        stopping: CancellationToken,
    ) -> impl Future<Output = ()> + Send + use<> {
        let metrics = self.metrics.clone();
        async move {
            let mut interval = tokio::time::interval(METRICS_UPKEEP);
            while stopping.run_until_cancelled(interval.tick()).await.is_some() {
                metrics.run_upkeep();
            }
        }
    }

    /// Exports the metrics to a collector until `stopping`, if one is configured.
    pub(crate) fn export(
        &self,
        stopping: CancellationToken,
    ) -> Option<impl Future<Output = ()> + Send + use<>> {
        let metrics = self.metrics.clone();
        let exporter = self.otlp_metrics.clone()?;
        Some(exporter.run(move || scrape(&metrics), stopping))
    }
}

/// The metrics in Prometheus's text format, with the current figures of the process and of its
/// runtime.
fn scrape(metrics: &PrometheusHandle) -> String {
    process::record();
    scheduler::record();
    metrics.render()
}

async fn check_host(
    State(hosts): State<Arc<Vec<String>>>,
    request: Request,
    next: Next,
) -> Response {
    if !is_host_allowed(request.uri(), request.headers(), &hosts) {
        let message =
            "the Host header names another server; allow the name with --admin-allowed-host\n";
        return (StatusCode::FORBIDDEN, message).into_response();
    }
    next.run(request).await
}

/// Whether the host of a request is allowed. HTTP/2 and the absolute form of HTTP/1.1 put the host
/// into the URI and may repeat it in one `Host` header (RFC 9112 section 3.2.2). HTTP/1.0 may omit
/// it; no browser uses HTTP/1.0.
fn is_host_allowed(uri: &Uri, headers: &HeaderMap, hosts: &[String]) -> bool {
    let mut named = headers.get_all(HOST).iter().map(|host| host.to_str().unwrap_or_default());
    let (header, second_header) = (named.next(), named.next());
    let host = match (uri.authority().map(Authority::as_str), header) {
        (Some(authority), Some(header)) if !authority.eq_ignore_ascii_case(header) => return false,
        (authority, header) => authority.or(header),
    };
    second_header.is_none() && host.is_none_or(|host| is_host_name_allowed(host, hosts))
}

/// Whether the admin port accepts this host name or address, with any port.
fn is_host_name_allowed(host: &str, hosts: &[String]) -> bool {
    let Some(authority) = host.parse::<Authority>().ok().filter(|_| !host.contains('@')) else {
        return false;
    };
    let name = authority.host();
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    address.parse::<IpAddr>().is_ok()
        || name.eq_ignore_ascii_case("localhost")
        || hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(name))
}

/// Whether the service is ready, and with `?verbose` the state of every condition.
fn readyz(readiness: &Readiness, query: &RawQuery) -> impl IntoResponse + use<> {
    let (status, mut body) = match readiness.reason() {
        None => (StatusCode::OK, json!({ "ready": true })),
        Some(reason) => {
            (StatusCode::SERVICE_UNAVAILABLE, json!({ "ready": false, "reason": reason }))
        }
    };
    let notes = readiness.notes();
    if !notes.is_empty() {
        body["notes"] = json!(notes);
    }
    if query.0.as_ref().is_some_and(|query| query.starts_with("verbose")) {
        body["conditions"] = json!(readiness.statuses());
    }
    (status, Json(body))
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

    /// A request in absolute form names its host twice; it was once rejected.
    #[test]
    fn a_request_may_name_the_same_host_in_the_uri_and_in_the_header() {
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
    fn the_admin_port_accepts_ip_addresses_and_configured_host_names() {
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
            assert!(is_host_name_allowed(host, &hosts), "{host}");
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
            assert!(!is_host_name_allowed(host, &hosts), "{host}");
        }
    }
}
