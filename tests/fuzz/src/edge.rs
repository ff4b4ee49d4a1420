//! The edge, with an auth that allows every caller and a tool service with a configurable response.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{Router, body::Body, response::Response, serve::ListenerExt as _};
use bytes::{BufMut as _, Bytes, BytesMut};
use drawbridge_proto::auth::v1::{
    self as pb,
    auth_service_server::{AuthService, AuthServiceServer},
    authorize_response, exchange_response, filter_catalog_response,
};
use drawbridge_runtime::{Telemetry, TelemetryConfig};
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, response};
use http_body_util::{BodyExt as _, Full};
use tokio::{
    net::TcpListener,
    runtime::{Builder, Runtime},
    time::timeout,
};
use tokio_stream::{
    Stream, StreamExt as _,
    wrappers::{IntervalStream, TcpListenerStream},
};
use tonic::Status;
use tower::ServiceExt as _;

use crate::contracts;

pub(crate) struct Edge {
    pub(crate) runtime: Runtime,
    router: Router,
    response_bytes: Arc<Mutex<Bytes>>,
}

impl Edge {
    pub(crate) fn start() -> Self {
        // Spans are created, so that their content is fuzzed too; nothing is logged.
        let telemetry = TelemetryConfig { log: "off".to_owned(), ..TelemetryConfig::default() };
        std::mem::forget(Telemetry::install("fuzz", &telemetry).expect("telemetry"));
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let response_bytes = Arc::default();
        let router = runtime.block_on(async {
            let auth = listen().await;
            let auth_url = format!("http://{}", auth.local_addr().expect("an address"))
                .parse()
                .expect("a URL");
            let serving =
                tonic::transport::Server::builder().add_service(AuthServiceServer::new(AllowAll));
            let incoming = TcpListenerStream::new(auth).map(|stream| {
                stream.inspect(|stream| {
                    stream.set_nodelay(true).expect("a socket that takes options");
                })
            });
            tokio::spawn(serving.serve_with_incoming(incoming));

            let tools = listen().await;
            let url = format!("http://{}", tools.local_addr().expect("an address"))
                .parse()
                .expect("a URL");
            let served = Arc::clone(&response_bytes);
            let service =
                Router::new().fallback(move || std::future::ready(tool_response(&served)));
            let tools = tools
                .tap_io(|stream| stream.set_nodelay(true).expect("a socket that takes options"));
            tokio::spawn(async move { axum::serve(tools, service).await });

            let public = "http://edge.test/mcp".parse().expect("a URL");
            let config =
                drawbridge_edge::Config::new(public, "http://idp.test".to_owned(), auth_url);
            drawbridge_edge::fuzzing::edge_router(&config, &contracts::contracts(), &url)
                .expect("an edge")
        });
        Self { runtime, router, response_bytes }
    }

    /// Sets the tool service's response to this encoded message.
    pub(crate) fn set_tool_response(&self, message: &[u8]) {
        *self.response_bytes.lock().unwrap_or_else(PoisonError::into_inner) =
            Bytes::copy_from_slice(message);
    }

    /// Sends a request. Returns its response, or None if its headers do not arrive within
    /// `time_limit`.
    pub(crate) async fn send(
        &self,
        request: Request<Body>,
        time_limit: Duration,
    ) -> Option<(response::Parts, Body)> {
        let response = timeout(time_limit, self.router.clone().oneshot(request)).await.ok()?;
        let response = response.expect("a response");
        assert_ne!(response.status(), StatusCode::INTERNAL_SERVER_ERROR, "{response:?}");
        assert!(response.headers().contains_key("x-request-id"), "{response:?}");
        Some(response.into_parts())
    }
}

/// Reads a body with this time limit for each part. Returns the received bytes and whether the body
/// is complete.
pub(crate) async fn read_rest(body: &mut Body, time_limit: Duration) -> (Bytes, bool) {
    let mut text = BytesMut::new();
    while let Ok(data) = timeout(time_limit, next_part(body)).await {
        match data {
            Some(data) => text.put(data),
            None => return (text.freeze(), true),
        }
    }
    (text.freeze(), false)
}

/// The next part of a body.
pub(crate) async fn next_part(body: &mut Body) -> Option<Bytes> {
    let frame = body.frame().await?.expect("a readable body");
    Some(frame.into_data().unwrap_or_default())
}

async fn listen() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.expect("a port")
}

/// A gRPC response of one message with the status OK.
fn tool_response(response_bytes: &Mutex<Bytes>) -> Response {
    let message = response_bytes.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let mut framed = BytesMut::with_capacity(message.len() + 5);
    framed.put_u8(0);
    framed.put_u32(message.len().try_into().unwrap_or_default());
    framed.put(message);
    let trailers = HeaderMap::from_iter([(
        HeaderName::from_static("grpc-status"),
        HeaderValue::from_static("0"),
    )]);
    let body = Full::new(framed.freeze())
        .with_trailers(std::future::ready(Some(Ok::<_, Infallible>(trailers))));
    Response::builder()
        .header("content-type", "application/grpc")
        .body(Body::new(body))
        .expect("a response")
}

/// An auth that allows every operation. The token is the caller's name.
struct AllowAll;

/// The only epoch.
const EPOCH: u64 = 1;

/// The edge may cache decisions on every caller except `bob`.
fn allowed(token: &str) -> pb::Allowed {
    let reusable_for = prost_types::Duration { seconds: 10, nanos: 0 };
    pb::Allowed {
        principal: Some(pb::Principal { subject: token.to_owned(), ..Default::default() }),
        transaction_token: Some(pb::TransactionToken {
            token: "token".to_owned(),
            expires_at: None,
        }),
        epoch: EPOCH,
        reusable_for: (token != "bob").then_some(reusable_for),
        ..Default::default()
    }
}

#[tonic::async_trait]
impl AuthService for AllowAll {
    async fn authorize(
        &self,
        request: tonic::Request<pb::AuthorizeRequest>,
    ) -> Result<tonic::Response<pb::AuthorizeResponse>, Status> {
        let allowed = allowed(&request.into_inner().access_token);
        let outcome = Some(authorize_response::Outcome::Allowed(allowed));
        Ok(tonic::Response::new(pb::AuthorizeResponse { outcome }))
    }

    async fn filter_catalog(
        &self,
        request: tonic::Request<pb::FilterCatalogRequest>,
    ) -> Result<tonic::Response<pb::FilterCatalogResponse>, Status> {
        let request = request.into_inner();
        let visible = pb::Visible {
            principal: allowed(&request.access_token).principal,
            names: request.items.into_iter().map(|item| item.name).collect(),
            ..Default::default()
        };
        let outcome = Some(filter_catalog_response::Outcome::Visible(visible));
        Ok(tonic::Response::new(pb::FilterCatalogResponse { outcome }))
    }

    async fn exchange(
        &self,
        _: tonic::Request<pb::ExchangeRequest>,
    ) -> Result<tonic::Response<pb::ExchangeResponse>, Status> {
        let outcome = Some(exchange_response::Outcome::Allowed(allowed("")));
        Ok(tonic::Response::new(pb::ExchangeResponse { outcome }))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<pb::WatchResponse, Status>> + Send>>;

    async fn watch(
        &self,
        _: tonic::Request<pb::WatchRequest>,
    ) -> Result<tonic::Response<Self::WatchStream>, Status> {
        let ticks = IntervalStream::new(tokio::time::interval(Duration::from_secs(1)));
        let epoch =
            pb::WatchResponse { epoch: EPOCH, revocations: EPOCH, ..pb::WatchResponse::default() };
        let epochs = ticks.map(move |_| Ok(epoch));
        Ok(tonic::Response::new(Box::pin(epochs)))
    }

    async fn introspect(
        &self,
        request: tonic::Request<pb::IntrospectRequest>,
    ) -> Result<tonic::Response<pb::IntrospectResponse>, Status> {
        let active = request.into_inner().transaction_tokens.iter().map(|_| true).collect();
        let statuses = Vec::new();
        Ok(tonic::Response::new(pb::IntrospectResponse { active, statuses }))
    }

    async fn revoke(
        &self,
        _: tonic::Request<pb::RevokeRequest>,
    ) -> Result<tonic::Response<pb::RevokeResponse>, Status> {
        Err(Status::unimplemented("nothing is revoked here"))
    }
}
