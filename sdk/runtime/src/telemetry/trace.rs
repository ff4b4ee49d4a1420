//! W3C trace context propagation.

use http::{HeaderMap, HeaderValue};
use opentelemetry::{
    Context,
    propagation::{Extractor, TextMapPropagator as _},
    trace::{SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId},
};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tonic::metadata::MetadataMap;
use tracing::{Span, span};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::{Layer, Registry, layer, registry::LookupSpan as _};

const TRACE_PARENT: &str = "traceparent";
const TRACE_STATE: &str = "tracestate";

/// Assigns ids and parents to spans when they are not exported: other hops, log lines and records
/// need nothing else.
pub(super) struct Propagation;

impl Layer<Registry> for Propagation {
    fn on_new_span(
        &self,
        _: &span::Attributes<'_>,
        id: &span::Id,
        context: layer::Context<'_, Registry>,
    ) {
        let Some(span) = context.span(id) else { return };
        let parent =
            span.parent().and_then(|parent| parent.extensions().get::<SpanContext>().cloned());
        let context = match parent {
            Some(parent) => child_of(&parent),
            None => SpanContext::new(
                TraceId::from_bytes(rand::random()),
                SpanId::from_bytes(rand::random()),
                TraceFlags::SAMPLED,
                false,
                Default::default(),
            ),
        };
        span.extensions_mut().insert(context);
    }
}

/// A new span context in the trace of `parent`.
fn child_of(parent: &SpanContext) -> SpanContext {
    let (trace, state) = (parent.trace_id(), parent.trace_state().clone());
    SpanContext::new(trace, SpanId::from_bytes(rand::random()), parent.trace_flags(), false, state)
}

/// Runs `then` on the context that [`Propagation`] stores for a span. `None` when spans are
/// exported.
fn with_propagated<T>(span: &Span, then: impl FnOnce(&mut SpanContext) -> T) -> Option<T> {
    let found = span.with_subscriber(|(id, dispatch)| {
        let span = dispatch.downcast_ref::<Registry>()?.span(id)?;
        let mut extensions = span.extensions_mut();
        extensions.get_mut::<SpanContext>().map(then)
    });
    found.flatten()
}

/// The context of a span, if it has one.
fn context_of(span: &Span) -> Option<SpanContext> {
    let context = with_propagated(span, |context| context.clone())
        .unwrap_or_else(|| span.context().span().span_context().clone());
    context.is_valid().then_some(context)
}

/// Makes `span` continue the trace of `carrier`, and records the trace id in it.
pub fn continue_from(span: &Span, carrier: &dyn Extractor) {
    if carrier.get(TRACE_PARENT).is_some() {
        let parent = TraceContextPropagator::new().extract_with_context(&Context::new(), carrier);
        let remote = parent.span().span_context().clone();
        if remote.is_valid()
            && with_propagated(span, |context| *context = child_of(&remote)).is_none()
        {
            // It fails only for a span without a tracer, which has nothing to continue.
            let _ = span.set_parent(parent);
        }
    }
    if let Some(context) = context_of(span) {
        span.record("trace_id", tracing::field::display(context.trace_id()));
    }
}

/// Writes the current span's trace context to the metadata of an outgoing call.
pub fn inject(metadata: &mut MetadataMap) {
    let Some(context) = context_of(&Span::current()) else { return };
    let (trace, span, flags) =
        (context.trace_id(), context.span_id(), context.trace_flags().to_u8());
    let headers = metadata.as_mut();
    if let Ok(mut parent) = HeaderValue::try_from(format!("00-{trace}-{span}-{flags:02x}")) {
        // The value differs for each call, so it must not enter HTTP/2's header table.
        parent.set_sensitive(true);
        headers.insert(TRACE_PARENT, parent);
    }
    let state = context.trace_state().header();
    if let Some(state) = HeaderValue::try_from(state).ok().filter(|state| !state.is_empty()) {
        headers.insert(TRACE_STATE, state);
    }
}

/// The id of the current span's trace, in hexadecimal, if it has one.
#[must_use]
pub fn current_id() -> Option<String> {
    Some(context_of(&Span::current())?.trace_id().to_string())
}

/// Trace context in the headers of a request.
#[derive(Debug)]
pub struct Headers<'a>(pub &'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(http::HeaderName::as_str).collect()
    }
}
