//! The export of spans to a collector, which never delays a call: spans that it does not take in
//! time are dropped and counted.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use opentelemetry::{Context, KeyValue, trace::Span as _};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter as OtlpExporter, WithExportConfig as _};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{
        BatchConfigBuilder, BatchSpanProcessor, SdkTracerProvider, Span, SpanData, SpanExporter,
        SpanProcessor,
    },
};
use tracing::dispatcher::{Dispatch, WeakDispatch};
use url::Url;

use super::{
    TelemetryConfig,
    observer::ObservedSpans,
    sampling::{PendingTraces, RecordingSampler, TracesSampler},
};
use crate::{metric::Counter, metrics::SPANS_LOST};

/// The path of traces at an HTTP collector.
const HTTP_PATH: &str = "v1/traces";
/// How many spans may wait for the collector, unless `OTEL_BSP_MAX_QUEUE_SIZE` is set.
const QUEUE_SPANS_MAX: usize = 8192;
/// How long spans wait for others before they are sent, in milliseconds, unless
/// `OTEL_BSP_SCHEDULE_DELAY` is set.
const EXPORT_INTERVAL_MS: usize = 1000;

/// The protocol of the collector, as `OTEL_EXPORTER_OTLP_PROTOCOL` names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum OtlpProtocol {
    /// OTLP over gRPC, by default at port 4317.
    #[value(name = "grpc")]
    Grpc,
    /// OTLP over HTTP with protobuf, by default at port 4318.
    #[value(name = "http/protobuf")]
    Http,
}

/// What became of the spans.
#[derive(Debug)]
pub(super) struct ExportState {
    /// Spans that wait for the collector, or are being sent to it.
    pending: AtomicUsize,
    is_failing: AtomicBool,
    queue_full: Counter,
    export_failed: Counter,
    /// Where the exporter's own thread logs.
    dispatch: OnceLock<WeakDispatch>,
}

impl ExportState {
    /// Counts with the current recorder.
    pub(super) fn new() -> Self {
        Self {
            pending: AtomicUsize::new(0),
            is_failing: AtomicBool::new(false),
            queue_full: SPANS_LOST.with(["queue_full".into()]),
            export_failed: SPANS_LOST.with(["export_failed".into()]),
            dispatch: OnceLock::new(),
        }
    }

    /// Logs to this subscriber from now on.
    pub(super) fn log_to(&self, dispatch: &Dispatch) {
        let _ = self.dispatch.set(dispatch.downgrade());
    }

    fn ended(&self, count: usize, result: &OTelSdkResult) {
        self.pending.fetch_sub(count, Ordering::Relaxed);
        if result.is_err() {
            self.export_failed.increment(count as u64);
        }
        let was_failing = self.is_failing.swap(result.is_err(), Ordering::Relaxed);
        let Some(dispatch) = self.dispatch.get().and_then(WeakDispatch::upgrade) else { return };
        tracing::dispatcher::with_default(&dispatch, || match result {
            Err(error) if !was_failing => {
                tracing::warn!(%error, "spans cannot be exported; they are dropped and counted");
            }
            Ok(()) if was_failing => tracing::info!("spans are exported again"),
            _ => {}
        });
    }
}

/// The provider of a service's tracer. `None`: its spans are neither exported nor observed.
pub(super) fn tracer_provider(
    service: &'static str,
    config: &TelemetryConfig,
    state: &Arc<ExportState>,
) -> Result<Option<SdkTracerProvider>, ExporterBuildError> {
    if config.otlp_endpoint.is_none() && config.observer.is_none() {
        return Ok(None);
    }
    let sampler = match &config.otlp_endpoint {
        Some(_) => config.traces_sampler,
        None => TracesSampler::ParentBasedAlwaysOn,
    };
    let sampler = RecordingSampler::new(sampler, config.traces_sampler_arg);
    let mut builder =
        SdkTracerProvider::builder().with_resource(resource(service)).with_sampler(sampler);
    if let Some(observer) = config.observer.clone() {
        builder = builder.with_span_processor(ObservedSpans { service, observer });
    }
    if let Some(endpoint) = &config.otlp_endpoint {
        let exporter = CountedExporter {
            exporter: exporter(endpoint, config.otlp_protocol)?,
            state: Arc::clone(state),
        };
        let queue_spans_max = number_from_env("OTEL_BSP_MAX_QUEUE_SIZE", QUEUE_SPANS_MAX);
        let interval_ms = number_from_env("OTEL_BSP_SCHEDULE_DELAY", EXPORT_INTERVAL_MS);
        let batches = BatchConfigBuilder::default()
            .with_max_queue_size(queue_spans_max)
            .with_scheduled_delay(Duration::from_millis(interval_ms as u64))
            .build();
        builder = builder.with_span_processor(BoundedExport {
            batches: BatchSpanProcessor::builder(exporter).with_batch_config(batches).build(),
            queue_spans_max,
            state: Arc::clone(state),
            unsampled: PendingTraces::default(),
        });
    }
    Ok(Some(builder.build()))
}

/// A positive number of OpenTelemetry's environment variables.
fn number_from_env(name: &str, default: usize) -> usize {
    let value = std::env::var(name).ok().and_then(|value| value.parse().ok());
    value.filter(|number| *number > 0).unwrap_or(default)
}

/// What the spans of a service have in common, with `OTEL_RESOURCE_ATTRIBUTES`.
fn resource(service: &'static str) -> Resource {
    let instance = uuid::Uuid::new_v4().to_string();
    Resource::builder()
        .with_attribute(KeyValue::new("service.instance.id", instance))
        .with_attribute(KeyValue::new("service.namespace", "drawbridge"))
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .with_service_name(service)
        .build()
}

/// The exporter. It reads the other variables of OpenTelemetry itself: headers, timeout,
/// compression.
///
/// gRPC's client has no TLS of its own here: with it, it would refuse the `https` addresses of
/// services, whose TLS is `mtls`.
fn exporter(endpoint: &Url, protocol: OtlpProtocol) -> Result<OtlpExporter, ExporterBuildError> {
    match protocol {
        OtlpProtocol::Grpc if endpoint.scheme() == "https" => {
            let why = "a collector at https needs OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf";
            Err(ExporterBuildError::InvalidConfiguration(why.to_owned()))
        }
        OtlpProtocol::Grpc => {
            OtlpExporter::builder().with_tonic().with_endpoint(endpoint.as_str()).build()
        }
        OtlpProtocol::Http => {
            let endpoint = format!("{}/{HTTP_PATH}", endpoint.as_str().trim_end_matches('/'));
            OtlpExporter::builder().with_http().with_endpoint(endpoint).build()
        }
    }
}

/// Bounds what waits for the collector, and chooses what is sent to it.
#[derive(Debug)]
struct BoundedExport {
    batches: BatchSpanProcessor,
    queue_spans_max: usize,
    state: Arc<ExportState>,
    unsampled: PendingTraces,
}

impl BoundedExport {
    fn send(&self, span: SpanData) {
        let state = &self.state;
        if state.pending.fetch_add(1, Ordering::Relaxed) < self.queue_spans_max {
            self.batches.on_end(span);
        } else {
            state.pending.fetch_sub(1, Ordering::Relaxed);
            state.queue_full.increment(1);
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

/// Counts what is lost.
#[derive(Debug)]
struct CountedExporter {
    exporter: OtlpExporter,
    state: Arc<ExportState>,
}

impl SpanExporter for CountedExporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let count = batch.len();
        let result = self.exporter.export(batch).await;
        self.state.ended(count, &result);
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}
