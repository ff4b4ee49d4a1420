//! What every Drawbridge process needs to run: arguments, telemetry, a service's life, HTTP serving, TLS files.
//!
//! A service is a library with a `Config` and `start(Config, &Telemetry)`, which returns a [`RunningService`]; its
//! `main.rs` parses, installs telemetry, starts, waits and stops. See `ARCHITECTURE.md`.

mod admin;
mod args;
pub mod backoff;
mod blocking;
pub mod bounded;
mod circuit_breaker;
mod defaults;
mod digest;
mod drain;
mod error_chain;
mod exposition;
pub mod follow;
pub mod handshakes;
pub mod http_metrics;
mod invisible;
mod listen;
pub mod metric;
mod metrics;
mod operator_acts;
pub mod otlp;
pub mod private_files;
mod process;
mod readiness;
#[cfg(feature = "redis")]
mod redis;
mod request_id;
mod security_headers;
mod serve;
mod service;
mod signals;
pub mod socket;
mod telemetry;
pub mod tls;
mod urls;

#[cfg(feature = "redis")]
pub use self::redis::{Redis, RedisConnection, RedisUnavailable};
pub use self::{
    admin::Admin,
    args::{
        EnvironmentError, ServiceArgs, apply_environment, argument_with_env, env_name, exit_code,
        parse_args, print_error, service_command, with_env,
    },
    blocking::{BlockingError, BlockingJob, BlockingJobs, Cancellation, run_main},
    circuit_breaker::{CircuitBreaker, CircuitPermit, Transition},
    defaults::parse_defaults,
    digest::length_prefixed,
    drain::{DrainConfig, RELEASE_TIMEOUT},
    error_chain::error_chain,
    exposition::Sample,
    handshakes::HandshakeLimits,
    invisible::is_invisible,
    listen::{Accepted, Address, BindError, Listen, ListenError, Plaintext},
    metrics::METRICS,
    operator_acts::{OperatorAct, OperatorActKind, OperatorActs},
    otlp::OtlpProtocol,
    process::{run_service, serve_until_signal},
    readiness::{Condition, ConditionStatus, Effect, Readiness},
    request_id::{CallerRequestId, REQUEST_ID, RequestId, RequestIdError},
    security_headers::security_headers,
    serve::{BodyTimeout, HttpLimits, HttpOptions, HttpService, ServerCertificate},
    service::{CallInFlight, RunningService, ServiceBuilder, ServiceTasks},
    signals::ShutdownSignals,
    socket::{SocketPath, SocketPathError},
    telemetry::{
        JsonList, LogFormat, LogLimit, LogSink, LogsExporter, MetricsExporter, Observer,
        Pseudonyms, Telemetry, TelemetryConfig, TelemetryError, TracesExporter, TracesSampler,
        log_pseudonym, span_pseudonym, trace,
    },
    tls::CertificateError,
    urls::{GrpcUrl, ParseUrlError, is_loopback, parse_url, parse_url_string},
};
