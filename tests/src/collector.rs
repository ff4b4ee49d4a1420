use std::sync::{Arc, Mutex, PoisonError};

use axum::serve::Listener as _;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::{
    collector::{
        logs::v1::{ExportLogsServiceRequest, logs_service_server::LogsServiceServer},
        metrics::v1::{ExportMetricsServiceRequest, metrics_service_server::MetricsServiceServer},
        trace::v1::{
            ExportTraceServiceRequest, ExportTraceServiceResponse,
            trace_service_server::{TraceService, TraceServiceServer},
        },
    },
    common::v1::{AnyValue, ArrayValue, KeyValue, any_value::Value},
    trace::v1::{span::SpanKind, status::StatusCode},
};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};
use url::Url;

pub use self::signals::{DataPoint, LogRecord};
use crate::TlsListener;

mod signals;

/// An OTLP collector that records the spans, data points and log records that it receives.
#[derive(Clone, Debug, Default)]
pub struct Collector {
    spans: Arc<Mutex<Vec<Span>>>,
    points: Arc<Mutex<Vec<DataPoint>>>,
    records: Arc<Mutex<Vec<LogRecord>>>,
    /// The header `authorization` of each request.
    authorizations: Arc<Mutex<Vec<Option<String>>>>,
    is_discarding: bool,
}

/// A received span.
#[derive(Clone, Debug)]
pub struct Span {
    /// The service that exported it.
    pub service: String,
    /// Its name.
    pub name: String,
    /// `server`, `client` or `internal`.
    pub kind: &'static str,
    /// Its trace, in hexadecimal.
    pub trace_id: String,
    /// Its own id, in hexadecimal.
    pub span_id: String,
    /// Its parent span, in hexadecimal. Empty: it is the root of a trace.
    pub parent_id: String,
    /// When it began, in nanoseconds since 1970.
    pub started: u64,
    /// Whether its status is an error.
    pub is_error: bool,
    /// The ids of the spans that it links to, in hexadecimal.
    pub links: Vec<String>,
    /// Its attributes, as text.
    pub attributes: Vec<(String, String)>,
    /// The attributes of its resource, as text.
    pub resource: Vec<(String, String)>,
}

impl Span {
    /// An attribute as text.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

impl Collector {
    /// Starts a collector of OTLP over gRPC, and returns its URL.
    pub async fn start() -> (Self, Url) {
        let collector = Self::default();
        let url = collector.clone().serve().await;
        (collector, url)
    }

    /// Starts a collector of OTLP over gRPC that keeps nothing, and returns its URL.
    pub async fn start_discarding() -> Url {
        Self { is_discarding: true, ..Self::default() }.serve().await
    }

    async fn serve(self) -> Url {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let server = tonic::transport::Server::builder()
            .add_service(TraceServiceServer::new(self.clone()))
            .add_service(MetricsServiceServer::new(self.clone()))
            .add_service(LogsServiceServer::new(self))
            .serve_with_incoming(TcpListenerStream::new(listener));
        tokio::spawn(server);
        url.parse().expect("a URL")
    }

    /// Starts a collector of OTLP over HTTP, and returns its URL.
    pub async fn start_http() -> (Self, Url) {
        let collector = Self::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let serving = collector.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let collector = serving.clone();
                let service =
                    hyper::service::service_fn(move |request: http::Request<Incoming>| {
                        let collector = collector.clone();
                        async move { Ok::<_, hyper::Error>(collector.receive_http(request).await) }
                    });
                let connection = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service);
                tokio::spawn(connection);
            }
        });
        (collector, url.parse().expect("a URL"))
    }

    /// Starts a collector of OTLP over HTTP with TLS, and returns its URL.
    pub async fn start_https(listener: TlsListener) -> (Self, Url) {
        let collector = Self::default();
        let address = listener.local_addr().expect("an address");
        let serving = collector.clone();
        let router = axum::Router::new().fallback(move |request: axum::extract::Request| {
            let collector = serving.clone();
            async move { collector.receive_http(request).await }
        });
        tokio::spawn(async move { axum::serve(listener, router).await });
        (collector, format!("https://{address}").parse().expect("a URL"))
    }

    async fn receive_http<B>(&self, request: http::Request<B>) -> http::Response<Full<bytes::Bytes>>
    where
        B: hyper::body::Body,
    {
        let (head, body) = request.into_parts();
        self.note_authorization(head.headers.get("authorization"));
        let body = body.collect().await.map(http_body_util::Collected::to_bytes);
        let received = body.is_ok_and(|body| match head.uri.path() {
            "/v1/traces" => decoded::<ExportTraceServiceRequest>(&body, |it| self.receive(it)),
            "/v1/metrics" => {
                decoded::<ExportMetricsServiceRequest>(&body, |it| self.receive_metrics(it))
            }
            "/v1/logs" => decoded::<ExportLogsServiceRequest>(&body, |it| self.receive_logs(it)),
            _ => false,
        });
        let status = if received { http::StatusCode::OK } else { http::StatusCode::BAD_REQUEST };
        let mut response = http::Response::new(Full::default());
        *response.status_mut() = status;
        response
    }

    /// All spans received so far.
    pub fn spans(&self) -> Vec<Span> {
        self.spans.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The spans of one trace, received so far.
    pub fn trace(&self, trace_id: &str) -> Vec<Span> {
        self.spans().into_iter().filter(|span| span.trace_id == trace_id).collect()
    }

    /// The header `authorization` of each request so far.
    pub fn authorizations(&self) -> Vec<Option<String>> {
        self.authorizations.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note_authorization(&self, header: Option<&http::HeaderValue>) {
        let header = header.and_then(|header| header.to_str().ok()).map(str::to_owned);
        self.authorizations.lock().unwrap_or_else(PoisonError::into_inner).push(header);
    }

    fn receive(&self, request: ExportTraceServiceRequest) {
        if self.is_discarding {
            return;
        }
        let mut spans = self.spans.lock().unwrap_or_else(PoisonError::into_inner);
        for resource in request.resource_spans {
            let attributes = texts(resource.resource.unwrap_or_default().attributes);
            let service = attributes.iter().find(|(key, _)| key == "service.name");
            let service = service.map(|(_, value)| value.clone()).unwrap_or_default();
            for span in resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                spans.push(Span {
                    service: service.clone(),
                    kind: match span.kind() {
                        SpanKind::Server => "server",
                        SpanKind::Client => "client",
                        _ => "internal",
                    },
                    name: span.name,
                    trace_id: hex(&span.trace_id),
                    span_id: hex(&span.span_id),
                    parent_id: hex(&span.parent_span_id),
                    started: span.start_time_unix_nano,
                    is_error: span.status.is_some_and(|it| it.code() == StatusCode::Error),
                    links: span.links.iter().map(|link| hex(&link.span_id)).collect(),
                    attributes: texts(span.attributes),
                    resource: attributes.clone(),
                });
            }
        }
    }
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.note_authorization(request.metadata().as_ref().get("authorization"));
        self.receive(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

/// Whether `body` is a message of this type, which is then received.
fn decoded<M: prost::Message + Default>(body: &[u8], receive: impl FnOnce(M)) -> bool {
    M::decode(body).map(receive).is_ok()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn texts(attributes: Vec<KeyValue>) -> Vec<(String, String)> {
    attributes.into_iter().map(|attribute| (attribute.key, text(attribute.value))).collect()
}

fn text(value: Option<AnyValue>) -> String {
    match value.and_then(|any| any.value) {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::BoolValue(is)) => is.to_string(),
        Some(Value::DoubleValue(number)) => number.to_string(),
        Some(Value::ArrayValue(ArrayValue { values })) => {
            let values: Vec<_> = values.into_iter().map(|value| text(Some(value))).collect();
            format!("[{}]", values.join(", "))
        }
        other => format!("{other:?}"),
    }
}
