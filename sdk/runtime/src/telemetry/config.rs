//! The options of telemetry.

use std::{path::PathBuf, sync::Arc};

use url::Url;

use super::{LogFormat, LogSink, Observer, TelemetryError, TracesSampler};
use crate::otlp::{OtlpClient, OtlpConfigError, OtlpProtocol, OtlpSettings, OtlpVariables, Signal};

/// The default log filter.
const DEFAULT_LOG_FILTER: &str = "info";

/// The exporter of traces, as `OTEL_TRACES_EXPORTER` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum TracesExporter {
    /// To a collector, if an endpoint is set.
    Otlp,
    /// To none.
    None,
}

/// An exporter of metrics, as `OTEL_METRICS_EXPORTER` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum MetricsExporter {
    /// To a collector, every minute unless `OTEL_METRIC_EXPORT_INTERVAL` is set.
    Otlp,
    /// None but `/metrics`.
    Prometheus,
    /// As `prometheus`.
    None,
}

/// An exporter of logs, as `OTEL_LOGS_EXPORTER` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogsExporter {
    /// To a collector.
    Otlp,
    /// None but standard error.
    Console,
    /// As `console`.
    None,
}

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

    /// The OTLP collector, for example `http://localhost:4317`. Absent: traces are not exported.
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

    /// Where traces go: to the collector, or nowhere.
    #[arg(
        long,
        env = "OTEL_TRACES_EXPORTER",
        value_enum,
        default_value_t = TracesExporter::Otlp
    )]
    pub traces_exporter: TracesExporter,

    /// Where metrics go besides `/metrics` of the admin port, which Prometheus reads: to the
    /// collector with `otlp`.
    #[arg(
        long,
        env = "OTEL_METRICS_EXPORTER",
        value_enum,
        value_delimiter = ',',
        default_value = "prometheus"
    )]
    pub metrics_exporter: Vec<MetricsExporter>,

    /// Where log lines go besides standard error: to the collector with `otlp`.
    #[arg(
        long,
        env = "OTEL_LOGS_EXPORTER",
        value_enum,
        value_delimiter = ',',
        default_value = "console"
    )]
    pub logs_exporter: Vec<LogsExporter>,

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

    /// The variables of OpenTelemetry's specification that have no flags.
    #[arg(skip = OtlpVariables::of_process())]
    pub otlp_variables: OtlpVariables,

    /// The sink of log lines.
    #[arg(skip)]
    pub log_sink: LogSink,

    /// Sees spans and log lines too.
    #[arg(skip)]
    pub observer: Option<Arc<dyn Observer>>,
}

impl TelemetryConfig {
    /// The collector of traces, if they are exported and its settings are valid.
    #[must_use]
    pub fn traces_endpoint(&self) -> Option<Url> {
        self.otlp_settings(Signal::Traces).ok().flatten().map(OtlpSettings::into_endpoint)
    }

    /// The client of the collector of a signal, if it is exported.
    pub(super) fn otlp_client(&self, signal: Signal) -> Result<Option<OtlpClient>, TelemetryError> {
        let client = self.otlp_settings(signal).and_then(|it| it.map(OtlpClient::new).transpose());
        client.map_err(|source| TelemetryError::Exporter { signal: signal.name(), source })
    }

    fn otlp_settings(&self, signal: Signal) -> Result<Option<OtlpSettings>, OtlpConfigError> {
        let (variables, endpoint) = (&self.otlp_variables, self.otlp_endpoint.as_ref());
        let is_exported = match signal {
            Signal::Traces => {
                self.traces_exporter == TracesExporter::Otlp
                    && (endpoint.is_some() || variables.has_endpoint(signal))
            }
            Signal::Metrics => self.metrics_exporter.contains(&MetricsExporter::Otlp),
            Signal::Logs => self.logs_exporter.contains(&LogsExporter::Otlp),
        };
        if !is_exported || variables.is_disabled() {
            return Ok(None);
        }
        OtlpSettings::new(signal, endpoint, self.otlp_protocol, variables).map(Some)
    }
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
