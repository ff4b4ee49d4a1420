use std::{io, path::PathBuf, sync::Arc, time::Duration};

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use tracing::Dispatch;
use tracing_opentelemetry::OpenTelemetryLayer;
use tracing_subscriber::{Layer, Registry, filter::filter_fn, layer::SubscriberExt as _};
use url::Url;

pub use self::{
    export::OtlpProtocol,
    json::JsonList,
    log_limit::LogLimit,
    logs::{LogFormat, LogSink},
    observer::Observer,
    pseudonym::{Pseudonyms, log_pseudonym, span_pseudonym},
    sampling::TracesSampler,
};
use self::{
    export::{ExportState, tracer_provider},
    logs::{CountedSink, LogFilters, log_layer, observed_layer, read_filter},
    pseudonym::PrincipalNames,
};
use crate::metrics::LOG_LINES_LOST;

mod export;
mod json;
mod log_limit;
mod logs;
mod observer;
pub(crate) mod process;
mod pseudonym;
mod sampling;
pub mod trace;

/// The default log filter.
const DEFAULT_LOG_FILTER: &str = "info";
/// Upper bounds of latency histograms, in seconds.
const SECONDS: [f64; 15] =
    [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0];
/// How long flushing the last spans may take.
const FLUSH_DEADLINE: Duration = Duration::from_secs(2);

/// The logs, traces and metrics of a service.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Telemetry")]
pub struct TelemetryConfig {
    /// The format of log lines; `auto` is pretty on a terminal and JSON elsewhere.
    #[arg(long, env = "DRAWBRIDGE_LOG_FORMAT", value_enum, default_value_t = LogFormat::Auto)]
    pub log_format: LogFormat,

    /// The log filter, for example `info,drawbridge_edge=debug`.
    #[arg(long, env = "DRAWBRIDGE_LOG", default_value = DEFAULT_LOG_FILTER)]
    pub log: String,

    /// A file with the log filter, instead of `--log`. A change takes effect at once; an invalid
    /// one changes nothing.
    #[arg(long, env = "DRAWBRIDGE_LOG_FILTER_FILE", value_name = "FILE")]
    pub log_filter_file: Option<PathBuf>,

    /// Name principals in log lines (issuer and subject), besides their pseudonyms.
    #[arg(long, env = "DRAWBRIDGE_LOG_PRINCIPALS")]
    pub log_principals: bool,

    /// A file with the key of the principals' pseudonyms in spans and log lines: at least 32 bytes,
    /// the same for all services. Absent: spans have no pseudonyms, and those in log lines are
    /// comparable within one process only.
    #[arg(long, env = "DRAWBRIDGE_PSEUDONYM_KEY_FILE", value_name = "FILE")]
    pub pseudonym_key_file: Option<PathBuf>,

    /// The OTLP collector of traces, for example `http://localhost:4317`. Absent: traces are not
    /// exported.
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT")]
    pub otlp_endpoint: Option<Url>,

    /// The protocol of the collector.
    #[arg(
        long,
        env = "OTEL_EXPORTER_OTLP_PROTOCOL",
        value_enum,
        default_value_t = OtlpProtocol::Grpc
    )]
    pub otlp_protocol: OtlpProtocol,

    /// Which traces are exported. Of the others, what failed is exported too, unless it is
    /// `always_off` or `parentbased_always_off`.
    #[arg(
        long,
        env = "OTEL_TRACES_SAMPLER",
        value_enum,
        default_value_t = TracesSampler::ParentBasedAlwaysOn
    )]
    pub traces_sampler: TracesSampler,

    /// The ratio of `traceidratio` and `parentbased_traceidratio`, from 0 to 1.
    #[arg(
        long,
        env = "OTEL_TRACES_SAMPLER_ARG",
        value_name = "RATIO",
        default_value_t = 1.0,
        value_parser = parse_ratio
    )]
    pub traces_sampler_arg: f64,

    /// A host name that the admin port (health, readiness, metrics) accepts, besides `localhost`
    /// and every IP address. Repeat, or separate by commas.
    #[arg(
        long = "admin-allowed-host",
        env = "DRAWBRIDGE_ADMIN_ALLOWED_HOST",
        value_name = "HOST",
        value_delimiter = ','
    )]
    pub admin_allowed_hosts: Vec<String>,

    /// The sink of log lines.
    #[arg(skip)]
    pub log_sink: LogSink,

    /// Sees spans and log lines too.
    #[arg(skip)]
    pub observer: Option<Arc<dyn Observer>>,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        crate::parse_defaults(&[])
    }
}

fn parse_ratio(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(ratio) if (0.0..=1.0).contains(&ratio) => Ok(ratio),
        _ => Err("must be a number from 0 to 1".to_owned()),
    }
}

/// Telemetry could not start.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The log filter is invalid.
    #[error("invalid log filter {filter:?}")]
    Filter {
        /// The text.
        filter: String,
        /// What is wrong with it.
        source: tracing_subscriber::filter::ParseError,
    },
    /// A file cannot be used.
    #[error("cannot read {what} in {file}")]
    File {
        /// What the file has.
        what: &'static str,
        /// The file.
        file: PathBuf,
        /// Why it cannot be used.
        source: io::Error,
    },
    /// The exporter could not be built.
    #[error("cannot export traces")]
    Exporter(#[source] opentelemetry_otlp::ExporterBuildError),
    /// The process already has telemetry.
    #[error("telemetry is already installed")]
    Installed,
    /// The operating system could not create threads.
    #[error("cannot start the service's threads")]
    Runtime(#[source] io::Error),
}

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
    names: Arc<PrincipalNames>,
    admin_allowed_hosts: Vec<String>,
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
        let (state, lost) = metrics::with_local_recorder(&*recorder, || {
            (Arc::new(ExportState::new()), LOG_LINES_LOST.get())
        });
        let tracer_provider =
            tracer_provider(service, config, &state).map_err(TelemetryError::Exporter)?;
        let filter = filter_text(config)?;
        let mut filters = LogFilters::default();
        let writer = CountedSink { sink: config.log_sink.clone(), lost };
        let subscriber = tracing_subscriber::registry().with(span_layer(tracer_provider.as_ref()));
        let subscriber =
            subscriber.with(log_layer(config, &filter, &mut filters, thread_names, writer)?);
        let observed = config.observer.clone();
        let observed = observed
            .map(|observer| observed_layer(service, observer, &filter, &mut filters))
            .transpose()?;
        let dispatch = Dispatch::new(subscriber.with(observed));
        state.log_to(&dispatch);
        if let Some(file) = &config.log_filter_file {
            use tracing::instrument::WithSubscriber as _;
            tokio::spawn(filters.follow(file.clone()).with_subscriber(dispatch.clone()));
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
            names: Arc::new(names),
            admin_allowed_hosts: config.admin_allowed_hosts.clone(),
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

    /// Flushes the remaining spans. Those that cannot be sent within two seconds are dropped.
    pub async fn flush(&self) {
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
