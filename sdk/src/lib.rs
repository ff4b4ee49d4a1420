//! What every Drawbridge service needs to run, and nothing that only one service needs.
//!
//! A service is a library with a `Config` and `start(Config, &Telemetry) -> RunningService`. Its
//! `main.rs` has five steps: parse the arguments, install telemetry, start, wait, stop. See
//! `ARCHITECTURE.md`.

mod admin;
mod args;
mod blocking;
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
pub mod jwks;
mod listen;
mod mtls;
pub mod private_files;
#[cfg(feature = "redis")]
mod redis;
pub mod reflection;
mod running;
mod security_headers;
mod serve;
mod socket;
mod status;
mod telemetry;
mod tls;
pub mod transaction_token;
mod urls;

#[cfg(feature = "redis")]
pub use self::redis::{Redis, RedisBreaker, RedisUnavailable};
pub use admin::{Admin, Readiness};
pub use args::{
    EnvironmentError, ServiceArgs, apply_environment, argument_with_env, env_name, exit_code,
    parse_args, print_error, service_command, with_env,
};
pub use blocking::{BlockingError, BlockingJob, BlockingJobs, Cancellation, run_main};
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
pub use security_headers::security_headers;
pub use serve::{BodyTimeout, HttpLimits, HttpOptions, HttpService, ServerCertificate};
pub use socket::{SocketPath, SocketPathError};
pub use status::status_text;
pub use telemetry::{
    LogFormat, LogSink, Telemetry, TelemetryConfig, TelemetryError, error_chain, trace,
};
pub use tls::CertificateError;
pub use urls::{GrpcUrl, ParseUrlError, parse_url, parse_url_string};
