//! The export of spans to a collector, which never delays a call: spans that it does not take in
//! time are dropped and counted.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use opentelemetry::{Context, KeyValue, trace::Span as _};
use opentelemetry_proto::{
    tonic::collector::trace::v1::ExportTraceServiceRequest,
    transform::{
        common::tonic::ResourceAttributesWithSchema,
        trace::tonic::group_spans_by_resource_and_scope,
    },
};
use opentelemetry_sdk::{
    Resource,
    error::{OTelSdkError, OTelSdkResult},
    trace::{
        BatchConfigBuilder, BatchSpanProcessor, SdkTracerProvider, Span, SpanData, SpanExporter,
        SpanProcessor,
    },
};
use tokio::runtime::Handle;
use tracing::{instrument::WithSubscriber as _, subscriber::NoSubscriber};

use super::{
    TelemetryConfig, TelemetryError,
    export_state::ExportState,
    observer::ObservedSpans,
    sampling::{PendingTraces, RecordingSampler, TracesSampler},
};
use crate::{
    metrics::SPANS_LOST,
    otlp::{OtlpClient, Signal},
};

/// How many spans may wait for the collector, unless `OTEL_BSP_MAX_QUEUE_SIZE` is set.
const QUEUE_SPANS_MAX: usize = 8192;
/// How many spans a request has at most, unless `OTEL_BSP_MAX_EXPORT_BATCH_SIZE` is set.
const BATCH_SPANS_MAX: usize = 512;
/// How long spans wait for others before they are sent, in milliseconds, unless
/// `OTEL_BSP_SCHEDULE_DELAY` is set.
const EXPORT_INTERVAL_MS: usize = 1000;

/// The export of spans, with what became of them.
pub(super) fn span_export_state() -> ExportState {
    ExportState::new("traces", &SPANS_LOST)
}

/// The provider of a service's tracer. `None`: its spans are neither exported nor observed.
pub(super) fn tracer_provider(
    service: &'static str,
    config: &TelemetryConfig,
    resource: &Resource,
    state: &Arc<ExportState>,
) -> Result<Option<SdkTracerProvider>, TelemetryError> {
    let client = config.otlp_client(Signal::Traces)?;
    if client.is_none() && config.observer.is_none() {
        return Ok(None);
    }
    let sampler = match &client {
        Some(_) => config.traces_sampler,
        None => TracesSampler::ParentBasedAlwaysOn,
    };
    let sampler = RecordingSampler::new(sampler, config.traces_sampler_arg);
    let mut builder =
        SdkTracerProvider::builder().with_resource(resource.clone()).with_sampler(sampler);
    if let Some(observer) = config.observer.clone() {
        builder = builder.with_span_processor(ObservedSpans { service, observer });
    }
    if let Some(client) = client {
        let exporter = OtlpSpans {
            client,
            runtime: Handle::current(),
            resource: ResourceAttributesWithSchema::from(resource),
            pending: Arc::default(),
            state: Arc::clone(state),
        };
        let pending = Arc::clone(&exporter.pending);
        let number = |name, default| config.otlp_variables.number(name, default);
        let queue_spans_max = number("OTEL_BSP_MAX_QUEUE_SIZE", QUEUE_SPANS_MAX);
        let interval_ms = number("OTEL_BSP_SCHEDULE_DELAY", EXPORT_INTERVAL_MS);
        let batches = BatchConfigBuilder::default()
            .with_max_queue_size(queue_spans_max)
            .with_max_export_batch_size(number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", BATCH_SPANS_MAX))
            .with_scheduled_delay(Duration::from_millis(interval_ms as u64))
            .build();
        builder = builder.with_span_processor(BoundedExport {
            batches: BatchSpanProcessor::builder(exporter).with_batch_config(batches).build(),
            queue_spans_max,
            pending,
            state: Arc::clone(state),
            unsampled: PendingTraces::default(),
        });
    }
    Ok(Some(builder.build()))
}

/// What the telemetry of a service has in common, with `OTEL_RESOURCE_ATTRIBUTES`.
pub(super) fn resource(service: &'static str) -> Resource {
    let instance = uuid::Uuid::new_v4().to_string();
    Resource::builder()
        .with_attribute(KeyValue::new("service.instance.id", instance))
        .with_attribute(KeyValue::new("service.namespace", "drawbridge"))
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .with_service_name(service)
        .build()
}

/// Bounds what waits for the collector, and chooses what is sent to it.
#[derive(Debug)]
struct BoundedExport {
    batches: BatchSpanProcessor,
    queue_spans_max: usize,
    /// Spans that wait for the collector, or are being sent to it.
    pending: Arc<AtomicUsize>,
    state: Arc<ExportState>,
    unsampled: PendingTraces,
}

impl BoundedExport {
    fn send(&self, span: SpanData) {
        if self.pending.fetch_add(1, Ordering::Relaxed) < self.queue_spans_max {
            self.batches.on_end(span);
        } else {
            self.pending.fetch_sub(1, Ordering::Relaxed);
            self.state.queue_was_full();
        }
    }
}

impl SpanProcessor for BoundedExport {
    fn on_start(&self, span: &mut Span, _: &Context) {
        if !span.span_context().is_sampled() {
            self.unsampled.begin(span.span_context());
        }
    }

    fn on_end(&self, span: SpanData) {
        if span.span_context.is_sampled() {
            self.send(span);
        } else {
            self.unsampled.end(span).into_iter().for_each(|span| self.send(span));
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.batches.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.batches.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.batches.set_resource(resource);
    }
}

/// Sends spans to a collector.
#[derive(Debug)]
struct OtlpSpans {
    client: OtlpClient,
    /// The processor's thread has none of its own.
    runtime: Handle,
    resource: ResourceAttributesWithSchema,
    pending: Arc<AtomicUsize>,
    state: Arc<ExportState>,
}

impl SpanExporter for OtlpSpans {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let count = batch.len();
        let resource_spans = group_spans_by_resource_and_scope(batch, &self.resource);
        let client = self.client.clone();
        let sending = async move {
            let request = ExportTraceServiceRequest { resource_spans };
            client.export(request).await.map_err(|error| crate::error_chain(&error))
        };
        // Exporting what the client logs would make it log more.
        let sent = self.runtime.spawn(sending.with_subscriber(NoSubscriber::new())).await;
        let result = sent.unwrap_or_else(|error| Err(error.to_string()));
        self.pending.fetch_sub(count, Ordering::Relaxed);
        self.state.ended(count as u64, &result);
        result.map(drop).map_err(OTelSdkError::InternalFailure)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.resource = ResourceAttributesWithSchema::from(resource);
    }
}
