//! Options of what the audit log is sent to.

use std::path::PathBuf;

use drawbridge_runtime::otlp::OtlpProtocol;
use url::Url;

/// Options of what the audit log is sent to, beside its files.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Audit")]
pub struct SinkConfig {
    /// Send the audit log to this URL too: `POST` of JSON lines. A batch is repeated until it is
    /// answered with a status of success. `--audit-log` must be a folder.
    #[arg(long, value_name = "URL", requires = "audit_log", hide_env_values = true)]
    pub audit_http_url: Option<Url>,

    /// A file with the bearer token for --audit-http-url. It is read for each batch.
    #[arg(long, value_name = "FILE", requires = "audit_http_url")]
    pub audit_http_token_file: Option<PathBuf>,

    /// A PEM file with the authorities for --audit-http-url, instead of the system's.
    #[arg(long, value_name = "FILE", requires = "audit_http_url")]
    pub audit_http_ca_file: Option<PathBuf>,

    /// Send the audit log to an OTLP collector of logs too, by the variables
    /// `OTEL_EXPORTER_OTLP_LOGS_…` or else `OTEL_EXPORTER_OTLP_…`. `--audit-log` must be a folder.
    #[arg(long, requires = "audit_log")]
    pub audit_otlp: bool,

    /// The collector of --audit-otlp, for example `http://localhost:4317`. Default: by the
    /// variables.
    #[arg(long, value_name = "URL", requires = "audit_otlp")]
    pub audit_otlp_endpoint: Option<Url>,

    /// The protocol of the collector of --audit-otlp. Default: by the variables.
    #[arg(long, value_enum, value_name = "PROTOCOL", requires = "audit_otlp")]
    pub audit_otlp_protocol: Option<OtlpProtocol>,

    /// Send the audit log to other hosts in plaintext too: to URLs that begin with `http:`.
    #[arg(long, requires = "audit_log")]
    pub audit_sink_plaintext: bool,
}
