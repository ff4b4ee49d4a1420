//! A control endpoint by which a client's program triggers faults.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use axum::{Json, Router, extract::State, routing::post};
use drawbridge_tests::{Client, Proxy, conformance::Conformance};
use http::{HeaderName, Method, StatusCode};
use tokio::net::TcpListener;
use url::Url;

const SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");
/// The number of events that a client receives before its stream is cut.
const EVENTS: usize = 3;
/// The time limit for a service to notice a cancellation.
const NOTICE_TIMEOUT: Duration = Duration::from_secs(5);

/// Serves a client's program.
#[derive(Clone, Debug)]
pub(super) struct Control {
    pub(super) url: Url,
    proxy: Proxy,
    client: Client,
    service: Conformance,
    cancelled: Arc<AtomicU32>,
}

impl Control {
    /// `client` ends the sessions that were opened through `proxy`.
    pub(super) async fn start(proxy: &Proxy, client: &Client, service: &Conformance) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/", listener.local_addr().expect("an address"));
        let control = Self {
            url: url.parse().expect("a URL"),
            proxy: proxy.clone(),
            client: client.clone(),
            service: service.clone(),
            cancelled: Arc::default(),
        };
        let routes = Router::new()
            .route("/cut", post(async |State(control): State<Self>| Json(control.cut())))
            .route(
                "/end-session",
                post(async |State(control): State<Self>| Json(control.end_session().await)),
            )
            .route(
                "/stopped",
                post(async |State(control): State<Self>| Json(control.stopped().await)),
            )
            .with_state(control.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        control
    }

    /// Cuts the next stream of a call.
    pub(super) fn cut(&self) -> bool {
        self.proxy.cut_next_stream(EVENTS);
        true
    }

    /// Ends the client's session at the server. Returns whether there was one.
    pub(super) async fn end_session(&self) -> bool {
        let Some(session) = self.proxy.session() else { return false };
        let request = self.client.post().header(SESSION_ID, session).build().map(|mut request| {
            *request.method_mut() = Method::DELETE;
            request
        });
        self.client.send_built(request).await.status == StatusCode::NO_CONTENT
    }

    /// Waits until the service has stopped one more call since the last request.
    pub(super) async fn stopped(&self) -> bool {
        let count = self.cancelled.fetch_add(1, Ordering::Relaxed) + 1;
        let stopped = async {
            while self.service.cancelled.load(Ordering::Relaxed) < count {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(NOTICE_TIMEOUT, stopped).await.is_ok()
    }
}
