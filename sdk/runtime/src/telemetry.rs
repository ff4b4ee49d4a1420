use std::{
    fs::File,
    io::{self, IsTerminal as _},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use opentelemetry::{KeyValue, trace::TracerProvider as _};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::{
    Resource,
    trace::{SdkTracer, SdkTracerProvider},
};
use tracing::Dispatch;
use tracing_opentelemetry::OpenTelemetryLayer;
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    filter::{FilterExt as _, filter_fn},
    fmt::MakeWriter,
    layer::SubscriberExt as _,
};
use url::Url;

pub(crate) mod process;
pub mod trace;

/// The default log filter.
const DEFAULT_LOG_FILTER: &str = "info";
/// A noisy target: it logs every connection, warns of every client error, and writes whole requests
/// with their sensitive data. Only its errors are logged, whatever the filter.
const NOISY_TARGET: &str = "rmcp";
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

    /// The OTLP/gRPC collector of traces, for example `http://localhost:4317`. Absent: traces are
    /// not exported.
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT")]
    pub otlp_endpoint: Option<Url>,

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
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        crate::parse_defaults(&[])
    }
}

/// The format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// Pretty on a terminal, JSON elsewhere.
    Auto,
    /// One JSON object per line.
    Json,
    /// For people.
    Pretty,
}

/// The sink of log lines.
#[derive(Clone, Debug, Default)]
pub enum LogSink {
    /// The process's standard error.
    #[default]
    Stderr,
    /// An open file.
    File(Arc<File>),
    /// A buffer, for tests that read it.
    Memory(Arc<Mutex<Vec<u8>>>),
}

impl<'a> MakeWriter<'a> for LogSink {
    type Writer = Box<dyn io::Write + 'a>;

    fn make_writer(&'a self) -> Self::Writer {
        match self {
            Self::Stderr => Box::new(io::stderr()),
            Self::File(file) => Box::new(&**file),
            Self::Memory(buffer) => Box::new(MemoryWriter(buffer)),
        }
    }
}

struct MemoryWriter<'a>(&'a Mutex<Vec<u8>>);

impl io::Write for MemoryWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
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
    /// The exporter could not be built.
    #[error("cannot export traces to {endpoint}")]
    Exporter {
        /// The collector.
        endpoint: Url,
        /// What went wrong.
        source: opentelemetry_otlp::ExporterBuildError,
    },
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
    /// Absent: spans are not exported.
    tracer_provider: Option<SdkTracerProvider>,
    admin_allowed_hosts: Vec<String>,
}

impl Telemetry {
    /// Builds the telemetry of `service`. Must be called within a runtime, which runs the exporter.
    ///
    /// # Errors
    /// When the filter or the endpoint is invalid. An unreachable collector is not an error.
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
        let filter = EnvFilter::try_new(&config.log)
            .map_err(|source| TelemetryError::Filter { filter: config.log.clone(), source })?;
        let tracer_provider = config
            .otlp_endpoint
            .as_ref()
            .map(|endpoint| tracer_provider(service, endpoint))
            .transpose()?;
        // Spans are created for every call, whatever is logged: they carry the trace from hop to
        // hop.
        let spans: Box<dyn Layer<Registry> + Send + Sync> = match &tracer_provider {
            Some(provider) => Box::new(otel_layer(provider)),
            None => Box::new(trace::Propagation),
        };
        let spans = spans.with_filter(filter_fn(|metadata| {
            metadata.is_span() && metadata.target().starts_with("drawbridge")
        }));
        let subscriber = tracing_subscriber::registry().with(spans).with(log_layer(
            config,
            filter,
            thread_names,
        ));
        let recorder = PrometheusBuilder::new()
            .set_buckets(&SECONDS)
            .map(PrometheusBuilder::build_recorder)
            .unwrap_or_else(|_| PrometheusBuilder::new().build_recorder());
        Ok(Self {
            service,
            dispatch: Dispatch::new(subscriber),
            recorder: Arc::new(recorder),
            tracer_provider,
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
        let dispatch = self.dispatch.clone();
        let recorder = Arc::clone(&self.recorder);
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(worker_threads)
            .thread_name(self.service)
            .enable_all()
            .on_thread_start(move || enter_thread(&dispatch, &recorder))
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

/// An error and its causes in one line: a JSON log keeps only an error's own message.
#[must_use]
pub fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

fn enter_thread(dispatch: &Dispatch, recorder: &Arc<PrometheusRecorder>) {
    // The thread belongs to one service until it ends, so the guards are never dropped. The
    // recorder's guard borrows it, and a thread that outlives it would dangle: it is leaked once
    // per thread.
    std::mem::forget(tracing::dispatcher::set_default(dispatch));
    let recorder: &'static Arc<PrometheusRecorder> = Box::leak(Box::new(Arc::clone(recorder)));
    std::mem::forget(metrics::set_default_local_recorder(recorder));
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

fn tracer_provider(
    service: &'static str,
    endpoint: &Url,
) -> Result<SdkTracerProvider, TelemetryError> {
    let resource = Resource::builder()
        .with_service_name(service)
        .with_attribute(KeyValue::new("service.namespace", "drawbridge"))
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .build();
    let builder = SdkTracerProvider::builder().with_resource(resource);
    let exporter = SpanExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint.as_str())
        .with_timeout(FLUSH_DEADLINE)
        .build()
        .map_err(|source| TelemetryError::Exporter { endpoint: endpoint.clone(), source })?;
    Ok(builder.with_batch_exporter(exporter).build())
}

fn log_layer<S>(
    config: &TelemetryConfig,
    filter: EnvFilter,
    thread_names: bool,
) -> Box<dyn Layer<S> + Send + Sync>
where
    S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
{
    let terminal = matches!(config.log_sink, LogSink::Stderr) && io::stderr().is_terminal();
    let filter = filter.and(filter_fn(|metadata| {
        *metadata.level() == tracing::Level::ERROR || !metadata.target().starts_with(NOISY_TARGET)
    }));
    let pretty = tracing_subscriber::fmt::layer()
        .with_thread_names(thread_names)
        .with_writer(config.log_sink.clone());
    match config.log_format {
        LogFormat::Pretty => pretty.with_ansi(terminal).with_filter(filter).boxed(),
        LogFormat::Auto if terminal => pretty.with_ansi(true).with_filter(filter).boxed(),
        // It keeps the fields of spans as values; the JSON layer of `tracing_subscriber` formats
        // them for each span, and parses that text again for each line.
        LogFormat::Auto | LogFormat::Json => json_subscriber::fmt::layer()
            .flatten_event(true)
            .with_current_span(false)
            .with_thread_names(thread_names)
            .with_writer(config.log_sink.clone())
            .with_filter(filter)
            .boxed(),
    }
}
