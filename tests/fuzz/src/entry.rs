//! The edge's front door: an HTTP request in, an HTTP response out, with an auth that allows everybody and a tool
//! service whose answer is part of the input.
//!
//! An input is `METHOD path`, header lines, an empty line, the body, and after a NUL the service's answer.

#![no_main]
#![expect(clippy::expect_used, reason = "a fuzz target that cannot start says so")]

use std::{
    convert::Infallible,
    sync::{Arc, LazyLock, Mutex, PoisonError},
    time::Duration,
};

use axum::{Router, body::Body, response::Response};
use bytes::{BufMut as _, Bytes, BytesMut};
use drawbridge_proto::auth::v1::{
    self as pb,
    auth_service_server::{AuthService, AuthServiceServer},
    authorize_response, exchange_response, filter_catalog_response,
};
use drawbridge_sdk::{Telemetry, TelemetryConfig};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full};
use libfuzzer_sys::{Corpus, fuzz_target};
use tokio::{
    net::TcpListener,
    runtime::{Builder, Runtime},
    time::timeout,
};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::Status;
use tower::ServiceExt as _;

mod contracts;

/// What is waited for a response, and for each part of its body: a stream may have nothing to say.
const PATIENCE: Duration = Duration::from_millis(20);

static EDGE: LazyLock<Edge> = LazyLock::new(Edge::start);

struct Edge {
    runtime: Runtime,
    router: Router,
    answer: Arc<Mutex<Bytes>>,
}

impl Edge {
    fn start() -> Self {
        // Spans are made, so that what goes into them is fuzzed too; nothing is logged.
        let telemetry = TelemetryConfig { log: "off".to_owned(), ..TelemetryConfig::default() };
        std::mem::forget(Telemetry::install("fuzz", &telemetry).expect("telemetry"));
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let answer = Arc::default();
        let router = runtime.block_on(async {
            let auth = listen().await;
            let auth_url =
                format!("http://{}", auth.local_addr().expect("an address")).parse().expect("a URL");
            let serving = tonic::transport::Server::builder().add_service(AuthServiceServer::new(Everybody));
            tokio::spawn(serving.serve_with_incoming(TcpListenerStream::new(auth)));

            let tools = listen().await;
            let url = format!("http://{}", tools.local_addr().expect("an address")).parse().expect("a URL");
            let answers = Arc::clone(&answer);
            let service = Router::new().fallback(move || std::future::ready(tool_answer(&answers)));
            tokio::spawn(async move { axum::serve(tools, service).await });

            let public = "http://edge.test/mcp".parse().expect("a URL");
            let config = drawbridge_edge::Config::new(public, "http://idp.test".to_owned(), auth_url);
            drawbridge_edge::fuzzing::front_door(&config, &contracts::contracts(), &url).expect("an edge")
        });
        Self { runtime, router, answer }
    }

    async fn ask(&self, request: Request<Body>) {
        let Ok(response) = timeout(PATIENCE, self.router.clone().oneshot(request)).await else { return };
        let response = response.expect("a router that answers");
        assert_ne!(response.status(), StatusCode::INTERNAL_SERVER_ERROR, "{response:?}");
        assert!(response.headers().contains_key("x-request-id"), "{response:?}");
        let mut body = response.into_body();
        while let Ok(Some(frame)) = timeout(PATIENCE, body.frame()).await {
            frame.expect("a body that ends");
        }
    }
}

async fn listen() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.expect("a port")
}

/// One gRPC message, and that all went well.
fn tool_answer(answer: &Mutex<Bytes>) -> Response {
    let message = answer.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let mut framed = BytesMut::with_capacity(message.len() + 5);
    framed.put_u8(0);
    framed.put_u32(message.len().try_into().unwrap_or_default());
    framed.put(message);
    let trailers =
        HeaderMap::from_iter([(HeaderName::from_static("grpc-status"), HeaderValue::from_static("0"))]);
    let body =
        Full::new(framed.freeze()).with_trailers(std::future::ready(Some(Ok::<_, Infallible>(trailers))));
    Response::builder().header("content-type", "application/grpc").body(Body::new(body)).expect("a response")
}

fn request(input: &[u8]) -> Option<(Request<Body>, &[u8])> {
    let end = input.windows(2).position(|pair| pair == b"\n\n")?;
    let mut lines = str::from_utf8(&input[..end]).ok()?.lines();
    let (method, path) = lines.next()?.split_once(' ')?;
    let mut parts = input[end + 2..].splitn(2, |byte| *byte == 0);
    let body = Bytes::copy_from_slice(parts.next()?);
    let mut request = Request::new(Body::from(body));
    *request.method_mut() = Method::from_bytes(method.as_bytes()).ok()?;
    *request.uri_mut() = path.parse::<Uri>().ok()?;
    for line in lines {
        let (name, value) = line.split_once(": ")?;
        let name: HeaderName = name.parse().ok()?;
        request.headers_mut().append(name, HeaderValue::from_str(value).ok()?);
    }
    Some((request, parts.next().unwrap_or_default()))
}

fuzz_target!(|input: &[u8]| -> Corpus {
    let Some((request, answer)) = request(input) else { return Corpus::Reject };
    *EDGE.answer.lock().unwrap_or_else(PoisonError::into_inner) = Bytes::copy_from_slice(answer);
    EDGE.runtime.block_on(EDGE.ask(request));
    Corpus::Keep
});

/// An auth that allows everybody everything.
struct Everybody;

fn allowed() -> pb::Allowed {
    pb::Allowed {
        principal: Some(pb::Principal { subject: "alice".to_owned(), ..Default::default() }),
        transaction_token: Some(pb::TransactionToken { token: "token".to_owned(), expires_at: None }),
        ..Default::default()
    }
}

#[tonic::async_trait]
impl AuthService for Everybody {
    async fn authorize(
        &self,
        _: tonic::Request<pb::AuthorizeRequest>,
    ) -> Result<tonic::Response<pb::AuthorizeResponse>, Status> {
        let outcome = Some(authorize_response::Outcome::Allowed(allowed()));
        Ok(tonic::Response::new(pb::AuthorizeResponse { outcome }))
    }

    async fn filter_catalog(
        &self,
        request: tonic::Request<pb::FilterCatalogRequest>,
    ) -> Result<tonic::Response<pb::FilterCatalogResponse>, Status> {
        let visible = pb::Visible {
            names: request.into_inner().items.into_iter().map(|item| item.name).collect(),
            principal: allowed().principal,
            policy_revision: String::new(),
        };
        let outcome = Some(filter_catalog_response::Outcome::Visible(visible));
        Ok(tonic::Response::new(pb::FilterCatalogResponse { outcome }))
    }

    async fn exchange(
        &self,
        _: tonic::Request<pb::ExchangeRequest>,
    ) -> Result<tonic::Response<pb::ExchangeResponse>, Status> {
        let outcome = Some(exchange_response::Outcome::Allowed(allowed()));
        Ok(tonic::Response::new(pb::ExchangeResponse { outcome }))
    }

    type WatchStream = tokio_stream::Pending<Result<pb::WatchResponse, Status>>;

    async fn watch(
        &self,
        _: tonic::Request<pb::WatchRequest>,
    ) -> Result<tonic::Response<Self::WatchStream>, Status> {
        Ok(tonic::Response::new(tokio_stream::pending()))
    }

    async fn introspect(
        &self,
        request: tonic::Request<pb::IntrospectRequest>,
    ) -> Result<tonic::Response<pb::IntrospectResponse>, Status> {
        let active = request.into_inner().transaction_tokens.iter().map(|_| true).collect();
        Ok(tonic::Response::new(pb::IntrospectResponse { active }))
    }

    async fn revoke(
        &self,
        _: tonic::Request<pb::RevokeRequest>,
    ) -> Result<tonic::Response<pb::RevokeResponse>, Status> {
        Err(Status::unimplemented("nothing is revoked here"))
    }
}
