//! What every incoming gRPC call needs: an id, a span that continues the caller's trace, a
//! deadline, and its duration to the end of its stream.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};

use http::{HeaderMap, Method, Request, Response};
use http_body_util::BodyExt as _;
use tonic::{Code, body::Body};
use tower::{Layer, Service};
use tracing::{Instrument as _, Span, field::Empty};

use super::Peer;
use crate::{call::CallContext, metrics::SERVER_CALL_DURATION, status_name};
use drawbridge_runtime::{REQUEST_ID, trace};

#[derive(Clone, Copy, Debug)]
pub(crate) struct CallLayer;

impl<S> Layer<S> for CallLayer {
    type Service = CallService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        CallService { inner }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct CallService<S> {
    inner: S,
}

impl<S, B> Service<Request<B>> for CallService<S>
where
    S: Service<Request<B>, Response = Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        if request.method() != Method::POST {
            // A document, not a call.
            return Box::pin(self.inner.call(request));
        }
        let context = CallContext::from_headers(request.headers());
        let rpc = request.uri().path().trim_start_matches('/').to_owned();
        let span = span(&rpc, &context);
        if let Some(peer) = request.extensions().get::<Peer>() {
            record_peer(&span, peer);
        }
        trace::continue_from(&span, &trace::Headers(request.headers()));
        let request_id = context.request_id.header();
        request.extensions_mut().insert(context);

        let recorder =
            CallRecorder { rpc, span: span.clone(), started: Instant::now(), ended: false };
        let response = self.inner.call(request).instrument(span);
        Box::pin(async move {
            let mut response = response.await?;
            // A service may have set another id.
            response.headers_mut().entry(REQUEST_ID).or_insert(request_id);
            Ok(recorder.record_at_end(response))
        })
    }
}

fn record_peer(span: &Span, peer: &Peer) {
    if span.is_disabled() {
        return;
    }
    if let Some(id) = &peer.id {
        span.record("peer", id.as_str());
    }
    span.record("network.peer.address", tracing::field::display(peer.address.ip()));
    span.record("network.peer.port", peer.address.port());
}

fn span(rpc: &str, context: &CallContext) -> Span {
    // Arbitrary names in a path must not become metric labels; `CallRecorder::end` replaces them.
    tracing::info_span!(
        "rpc",
        otel.name = rpc,
        otel.kind = "server",
        otel.status_code = Empty,
        rpc.system.name = "grpc",
        rpc.method = rpc,
        rpc.response.status_code = Empty,
        error.type = Empty,
        network.peer.address = Empty,
        network.peer.port = Empty,
        enduser.pseudo.id = Empty,
        request_id = %context.request_id,
        peer = Empty,
        trace_id = Empty,
    )
}

/// Records the outcome of a call: at its headers, at its trailers, or when it is cancelled.
struct CallRecorder {
    rpc: String,
    span: Span,
    started: Instant,
    ended: bool,
}

impl CallRecorder {
    fn record_at_end(mut self, response: Response<Body>) -> Response<Body> {
        if let Some(code) = grpc_status(response.headers()) {
            self.end(code);
            return response;
        }
        response.map(|body| {
            Body::new(body.map_frame(move |frame| {
                if let Some(code) = frame.trailers_ref().and_then(grpc_status) {
                    self.end(code);
                }
                frame
            }))
        })
    }

    fn end(&mut self, code: Code) {
        self.ended = true;
        // The name of an RPC that is not served is chosen by the caller.
        let rpc = if code == Code::Unimplemented { "unknown" } else { &self.rpc };
        let name = status_name(code);
        SERVER_CALL_DURATION
            .with([rpc.to_owned().into(), name.into()])
            .record(self.started.elapsed());
        self.span.record("rpc.response.status_code", name);
        if is_server_error(code) {
            self.span.record("error.type", name).record("otel.status_code", "ERROR");
        }
    }
}

impl Drop for CallRecorder {
    fn drop(&mut self) {
        if !self.ended {
            self.end(Code::Cancelled);
        }
    }
}

/// Whether a code is an error of the server, and not of its caller (OpenTelemetry's conventions for
/// gRPC).
fn is_server_error(code: Code) -> bool {
    matches!(
        code,
        Code::Unknown
            | Code::DeadlineExceeded
            | Code::Unimplemented
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss
    )
}

fn grpc_status(headers: &HeaderMap) -> Option<Code> {
    Some(Code::from_bytes(headers.get("grpc-status")?.as_bytes()))
}
