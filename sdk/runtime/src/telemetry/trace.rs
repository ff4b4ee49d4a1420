//! W3C trace context propagation.

use std::{pin::pin, task::Poll};

use http::{HeaderMap, HeaderValue};
pub use opentelemetry::trace::SpanContext;
use opentelemetry::{
    Array, Context, StringValue, Value,
    propagation::{Extractor, TextMapPropagator as _},
    trace::{SpanId, TraceContextExt as _, TraceFlags, TraceId},
};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::{Dispatch, Instrument as _, Span, field::Empty, span};
use tracing_opentelemetry::{OpenTelemetrySpanExt as _, get_otel_context};
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
#[must_use]
pub fn context_of(span: &Span) -> Option<SpanContext> {
    // Unless spans are exported, only those of requests have a context.
    let propagated = span.with_subscriber(|(id, dispatch)| {
        let span = dispatch.downcast_ref::<Registry>()?.span(id)?;
        span.scope().find_map(|span| span.extensions().get::<SpanContext>().cloned())
    });
    let context =
        propagated.flatten().unwrap_or_else(|| span.context().span().span_context().clone());
    context.is_valid().then_some(context)
}

/// The context of the span with this id, if it has one. `dispatch` is its subscriber; unlike
/// [`context_of`], it may be called while an event is recorded.
pub(super) fn context_of_id(id: &span::Id, dispatch: &Dispatch) -> Option<SpanContext> {
    let span = dispatch.downcast_ref::<Registry>()?.span(id)?;
    let propagated = span.scope().find_map(|span| span.extensions().get::<SpanContext>().cloned());
    let exported = || Some(get_otel_context(id, dispatch)?.span().span_context().clone());
    propagated.or_else(exported).filter(SpanContext::is_valid)
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

/// The ids of a span's context, for storage: 16 bytes of the trace, 8 of the span.
#[must_use]
pub fn to_bytes(context: &SpanContext) -> Vec<u8> {
    [&context.trace_id().to_bytes()[..], &context.span_id().to_bytes()[..]].concat()
}

/// The context of a span of another process, from what [`to_bytes`] returned.
#[must_use]
pub fn from_bytes(ids: &[u8]) -> Option<SpanContext> {
    let (trace, span) = ids.split_at_checked(16)?;
    let (trace, span) = (trace.try_into().ok()?, span.try_into().ok()?);
    let (trace, span) = (TraceId::from_bytes(trace), SpanId::from_bytes(span));
    let context = SpanContext::new(trace, span, TraceFlags::NOT_SAMPLED, true, Default::default());
    context.is_valid().then_some(context)
}

/// Adds a link to another span, which may be of another trace.
pub fn link(span: &Span, other: &SpanContext) {
    span.add_link(other.clone());
}

/// Sets an attribute of a span that is a list.
pub fn set_list(span: &Span, name: &'static str, values: &[String]) {
    if !span.is_disabled() {
        let values = values.iter().map(|value| StringValue::from(value.clone())).collect();
        span.set_attribute(name, Value::Array(Array::String(values)));
    }
}

/// The span of a command to Redis, by OpenTelemetry's conventions: without keys and values.
pub fn redis_span(operation: &'static str) -> Span {
    tracing::info_span!(
        "redis",
        otel.name = operation,
        otel.kind = "client",
        otel.status_code = Empty,
        db.system.name = "redis",
        db.operation.name = operation,
        error.type = Empty,
    )
}

/// Ends the span of an operation that may have failed, with a word for the failure.
pub fn end_with(span: &Span, failed: Option<&'static str>) {
    if let Some(word) = failed {
        span.record("error.type", word).record("otel.status_code", "ERROR");
    }
}

/// Waits for `work`. Unless that is ready at once, the wait has a span.
pub async fn waiting<T>(span: impl FnOnce() -> Span, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    match futures::poll!(work.as_mut()) {
        Poll::Ready(output) => output,
        Poll::Pending => work.instrument(span()).await,
    }
}

/// Writes the current span's trace context to the headers of an outgoing request.
pub fn inject(headers: &mut HeaderMap) {
    let Some(context) = context_of(&Span::current()) else { return };
    let (trace, span, flags) =
        (context.trace_id(), context.span_id(), context.trace_flags().to_u8());
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
