use std::{sync::Arc, time::Duration};

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_proto::{
    tonic::resource::v1::Resource, transform::common::tonic::ResourceAttributesWithSchema,
};
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use tracing::Dispatch;
use tracing_opentelemetry::OpenTelemetryLayer;
use tracing_subscriber::{Layer, Registry, filter::filter_fn, layer::SubscriberExt as _};

pub(crate) use self::otlp_metrics::OtlpMetrics;
pub use self::{
    config::{LogsExporter, MetricsExporter, TelemetryConfig, TracesExporter},
    error::TelemetryError,
    json::JsonList,
    log_limit::LogLimit,
    logs::{LogFormat, LogSink},
    observer::Observer,
    pseudonym::{Pseudonyms, log_pseudonym, span_pseudonym},
    sampling::TracesSampler,
};
use self::{
    export::{resource, span_export_state, tracer_provider},
    logs::{CountedSink, LogFilters, log_layer, observed_layer, otlp_layer, read_filter},
    otlp_logs::{LogFlusher, log_export_state, otlp_logs},
    otlp_metrics::metric_export_state,
    pseudonym::PrincipalNames,
};
use crate::{metrics::LOG_LINES_LOST, operator_acts::OperatorActs, otlp::Signal};

mod config;
mod error;
mod export;
mod export_state;
mod json;
mod log_limit;
mod logs;
mod observer;
mod otlp_logs;
mod otlp_metrics;
pub(crate) mod process;
mod pseudonym;
mod sampling;
pub mod trace;

/// Upper bounds of latency histograms, in seconds.
const SECONDS: [f64; 15] =
    [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0];
/// How long flushing the last spans may take.
const FLUSH_DEADLINE: Duration = Duration::from_secs(2);

/// One service's logs, traces and metrics.
///
/// A process with one service installs it globally. A process with several services gives each its
/// own runtime, so that each keeps its own service name, log and metrics.
#[derive(Debug)]
pub struct Telemetry {
    service: &'static str,
    dispatch: Dispatch,
    recorder: Arc<PrometheusRecorder>,
    /// Absent: spans are neither exported nor observed.
    tracer_provider: Option<SdkTracerProvider>,
    log_flusher: Option<LogFlusher>,
    otlp_metrics: Option<OtlpMetrics>,
    names: Arc<PrincipalNames>,
    admin_allowed_hosts: Vec<String>,
    acts: OperatorActs,
}

impl Telemetry {
    /// Builds the telemetry of `service`. Must be called within a runtime, which runs the exporter.
    ///
    /// # Errors
    /// When the filter, a file or the endpoint is invalid. An unreachable collector is not an error.
    pub fn new(service: &'static str, config: &TelemetryConfig) -> Result<Self, TelemetryError> {
        // Several services write to one log, so lines carry the thread name, which is the
        // service's.
        Self::build(service, config, true)
    }

    fn build(
        service: &'static str,
        config: &TelemetryConfig,
        thread_names: bool,
    ) -> Result<Self, TelemetryError> {
        let recorder = PrometheusBuilder::new()
            .set_buckets(&SECONDS)
            .map(PrometheusBuilder::build_recorder)
            .unwrap_or_else(|_| PrometheusBuilder::new().build_recorder());
        let recorder = Arc::new(recorder);
        let (states, lost) = metrics::with_local_recorder(&*recorder, || {
            let states = [span_export_state(), log_export_state(), metric_export_state()];
            (states.map(Arc::new), LOG_LINES_LOST.get())
        });
        let [span_state, log_state, metric_state] = &states;
        let resource = resource(service);
        let tracer_provider = tracer_provider(service, config, &resource, span_state)?;
        let attributes = ResourceAttributesWithSchema::from(&resource).attributes.0;
        let resource = Resource { attributes, ..Resource::default() };
        let variables = &config.otlp_variables;
        let otlp_metrics = config
            .otlp_client(Signal::Metrics)?
            .map(|client| OtlpMetrics::new(client, resource.clone(), variables, metric_state));
        let otlp_logs = config
            .otlp_client(Signal::Logs)?
            .map(|client| otlp_logs(client, resource, variables, log_state));
        let filter = filter_text(config)?;
        let mut filters = LogFilters::default();
        let writer = CountedSink { sink: config.log_sink.clone(), lost };
        let subscriber = tracing_subscriber::registry().with(span_layer(tracer_provider.as_ref()));
        let subscriber = subscriber.with(log_layer(
            config.log_format,
            &filter,
            &mut filters,
            thread_names,
            writer,
        )?);
        let observed = config.observer.clone();
        let observed = observed
            .map(|observer| observed_layer(service, observer, &filter, &mut filters))
            .transpose()?;
        let (otlp_logs, log_flusher) = otlp_logs.unzip();
        let otlp_logs =
            otlp_logs.map(|logs| otlp_layer(logs, &filter, &mut filters)).transpose()?;
        let dispatch = Dispatch::new(subscriber.with(observed).with(otlp_logs));
        states.iter().for_each(|state| state.log_to(&dispatch));
        let acts = OperatorActs::default();
        if let Some(file) = &config.log_filter_file {
            use tracing::instrument::WithSubscriber as _;
            let following = filters.follow(file.clone(), filter.clone(), acts.clone());
            tokio::spawn(following.with_subscriber(dispatch.clone()));
        }
        let key_file = config.pseudonym_key_file.as_ref();
        let pseudonyms = key_file.map(|file| {
            let what = "the key of the pseudonyms";
            let failed = |source| TelemetryError::File { what, file: file.clone(), source };
            Pseudonyms::read(file).map_err(failed)
        });
        let names = PrincipalNames::new(pseudonyms.transpose()?, config.log_principals);
        Ok(Self {
            service,
            dispatch,
            recorder,
            tracer_provider,
            log_flusher,
            otlp_metrics,
            names: Arc::new(names),
            admin_allowed_hosts: config.admin_allowed_hosts.clone(),
            acts,
        })
    }

    /// Builds the telemetry of `service` and installs it globally.
    ///
    /// # Errors
    /// As [`Telemetry::new`], and when the process already has telemetry.
    pub fn install(
        service: &'static str,
        config: &TelemetryConfig,
    ) -> Result<Self, TelemetryError> {
        let telemetry = Self::build(service, config, false)?;
        tracing::dispatcher::set_global_default(telemetry.dispatch.clone())
            .map_err(|_| TelemetryError::Installed)?;
        metrics::set_global_recorder(Arc::clone(&telemetry.recorder))
            .map_err(|_| TelemetryError::Installed)?;
        telemetry.names.install();
        Ok(telemetry)
    }

    /// A runtime whose threads use this telemetry, for a process with several services.
    ///
    /// # Errors
    /// When the operating system cannot create threads.
    pub fn runtime(
        &self,
        worker_threads: usize,
    ) -> Result<tokio::runtime::Runtime, TelemetryError> {
        let (dispatch, names) = (self.dispatch.clone(), Arc::clone(&self.names));
        let recorder = Arc::clone(&self.recorder);
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(worker_threads)
            .thread_name(self.service)
            .enable_all()
            .on_thread_start(move || {
                enter_thread(&dispatch, &recorder);
                names.enter_thread();
            })
            .build()
            .map_err(TelemetryError::Runtime)
    }

    /// Host names that the admin port accepts.
    pub(crate) fn admin_allowed_hosts(&self) -> &[String] {
        &self.admin_allowed_hosts
    }

    /// What operators do to the logs of the service while it runs.
    #[must_use]
    pub fn acts(&self) -> OperatorActs {
        self.acts.clone()
    }

    /// The service's name.
    #[must_use]
    pub fn service(&self) -> &'static str {
        self.service
    }

    /// Renders the metrics for Prometheus.
    #[must_use]
    pub fn metrics(&self) -> PrometheusHandle {
        self.recorder.handle()
    }

    /// What exports the metrics to a collector, if anything does.
    pub(crate) fn otlp_metrics(&self) -> Option<OtlpMetrics> {
        self.otlp_metrics.clone()
    }

    /// Flushes the remaining spans and log records. Those that cannot be sent within two seconds are
    /// dropped.
    pub async fn flush(&self) {
        let logs = async {
            if let Some(flusher) = &self.log_flusher {
                // What was not sent then is dropped with the process.
                let _ = tokio::time::timeout(FLUSH_DEADLINE, flusher.flush()).await;
            }
        };
        tokio::join!(logs, self.flush_spans());
    }

    async fn flush_spans(&self) {
        let Some(provider) = self.tracer_provider.clone() else { return };
        let flushing = tokio::task::spawn_blocking(move || {
            provider.force_flush().and_then(|()| provider.shutdown_with_timeout(FLUSH_DEADLINE))
        });
        if let Ok(Ok(Err(error))) = tokio::time::timeout(FLUSH_DEADLINE, flushing).await {
            tracing::debug!(%error, "the last spans were dropped");
        }
    }
}

/// The log filter at start.
fn filter_text(config: &TelemetryConfig) -> Result<String, TelemetryError> {
    let Some(file) = &config.log_filter_file else { return Ok(config.log.clone()) };
    let what = "the log filter";
    read_filter(file).map_err(|source| TelemetryError::File { what, file: file.clone(), source })
}

fn enter_thread(dispatch: &Dispatch, recorder: &Arc<PrometheusRecorder>) {
    // The thread belongs to one service until it ends, so the guards are never dropped. The
    // recorder's guard borrows it, and a thread that outlives it would dangle: it is leaked once
    // per thread.
    std::mem::forget(tracing::dispatcher::set_default(dispatch));
    let recorder: &'static Arc<PrometheusRecorder> = Box::leak(Box::new(Arc::clone(recorder)));
    std::mem::forget(metrics::set_default_local_recorder(recorder));
}

/// The layer that gives spans their ids, and exports them if there is a provider. Spans are created
/// for every call, whatever is logged: they carry the trace from hop to hop. Without an exporter
/// those of requests do, and no others are created.
fn span_layer(provider: Option<&SdkTracerProvider>) -> Box<dyn Layer<Registry> + Send + Sync> {
    let is_exported = provider.is_some();
    let layer: Box<dyn Layer<Registry> + Send + Sync> = match provider {
        Some(provider) => Box::new(otel_layer(provider)),
        None => Box::new(trace::Propagation),
    };
    let filter = filter_fn(move |metadata| {
        metadata.is_span()
            && metadata.target().starts_with("drawbridge")
            && (is_exported || metadata.fields().field("request_id").is_some())
    });
    layer.with_filter(filter).boxed()
}

/// The layer that exports `tracing`'s spans to OpenTelemetry.
fn otel_layer(provider: &SdkTracerProvider) -> OpenTelemetryLayer<Registry, SdkTracer> {
    tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("drawbridge"))
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        // A span is entered at every poll; the times of that are not needed, and `tracing` knows
        // the current span.
        .with_tracked_inactivity(false)
        .with_context_activation(false)
}
