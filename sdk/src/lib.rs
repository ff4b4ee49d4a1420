//! What every Drawbridge service needs to run, and nothing that only one of them needs.
//!
//! A service is a library with a `Config` and `start(Config, &Telemetry) -> RunningService`; its `main.rs` parses,
//! installs telemetry, starts, waits and stops. See `ARCHITECTURE.md`.

mod admin;
mod args;
mod blocking;
mod browser;
mod call;
mod channel;
mod config_text;
pub mod contract;
#[cfg(feature = "credentials")]
pub mod credentials;
pub mod dynamic;
pub mod fetch;
mod grpc;
mod handshakes;
pub mod identity;
pub mod jwks;
mod listen;
mod mtls;
pub mod own;
#[cfg(feature = "redis")]
mod redis;
pub mod reflection;
mod running;
mod serve;
mod socket;
mod status;
mod telemetry;
mod tls;
mod url_text;

#[cfg(feature = "redis")]
pub use self::redis::{Redis, RedisAway, RedisBreaker};
pub use admin::{Admin, Readiness};
pub use args::{
    EnvironmentError, ServiceArgs, apply_environment, argument_with_env, env_name, exit_code,
    parse_args, print_error, service_command, with_env,
};
pub use blocking::{BlockingError, BlockingJob, BlockingJobs, Cancellation, run_main};
pub use browser::security_headers;
pub use call::{
    CallContext, CallerRequestId, REQUEST_ID, RequestId, TXN_TOKEN, client_span, end_client_span,
    with_transaction_token,
};
pub use channel::{BalancedChannel, ChannelError, connect};
pub use config_text::{ConfigText, ConfigTextError};
pub use grpc::{GrpcServer, Peer};
pub use handshakes::HandshakeLimits;
pub use listen::{Address, BindError, Listen, ListenError};
pub use mtls::{
    MtlsConfig, MtlsError, MtlsServerConfig, Peers, SpiffeId, SpiffeIdError, SvidError,
};
pub use running::{RunningService, ServiceBuilder, shutdown_signal};
pub use serve::{BodyTimeout, Certificate, HttpLimits, HttpOptions, HttpService};
pub use socket::{SocketPath, SocketPathError};
pub use status::status_text;
pub use telemetry::{
    LogFormat, LogSink, Telemetry, TelemetryConfig, TelemetryError, error_chain, trace,
};
pub use tls::CertificateError;
pub use url_text::{GrpcUrl, UrlTextError, parse_url, url_text};
