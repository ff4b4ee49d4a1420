//! By which a client's program has something happen that it cannot do itself.

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
/// Events that a client gets of a stream before it is cut.
const EVENTS: usize = 3;
/// How long a service may take to notice that a call was cancelled.
const NOTICE_TIMEOUT: Duration = Duration::from_secs(5);

/// Answers a client's program.
#[derive(Clone, Debug)]
pub(super) struct Control {
    pub(super) url: Url,
    proxy: Proxy,
    client: Client,
    service: Conformance,
    cancelled: Arc<AtomicU32>,
}

impl Control {
    /// `client` ends the sessions that are opened through `proxy`.
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

    /// Ends the client's session at the server: whether there was one.
    pub(super) async fn end_session(&self) -> bool {
        let Some(session) = self.proxy.session() else { return false };
        let request = self.client.post().header(SESSION_ID, session).build().map(|mut request| {
            *request.method_mut() = Method::DELETE;
            request
        });
        self.client.send_built(request).await.status == StatusCode::NO_CONTENT
    }

    /// Waits until the service has stopped a call, one for each time that this is asked.
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
