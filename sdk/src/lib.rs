//! What a tool service depends on: a thin face over `drawbridge-runtime`, `drawbridge-transport`,
//! `drawbridge-contract` and `drawbridge-credentials`.
//!
//! A tool service is a library with a `Config` and `start(Config, &Telemetry) -> RunningService`.
//! Its `main.rs` has five steps: parse the arguments, install telemetry, start, wait, stop. See
//! `docs/how-to/write-a-tool-service.md`.

pub use drawbridge_contract::{self as contract, dynamic};
#[cfg(feature = "credentials")]
pub use drawbridge_credentials as credentials;
pub use drawbridge_runtime::{
    Address, Admin, BindError, BlockingError, BlockingJob, BlockingJobs, Cancellation, ConfigText,
    ConfigTextError, GrpcUrl, HandshakeLimits, Listen, REQUEST_ID, Readiness, RequestId,
    RunningService, ServiceArgs, ServiceBuilder, SocketPath, Telemetry, TelemetryConfig,
    error_chain, is_loopback, length_prefixed, parse_args, private_files, run_main,
    shutdown_signal,
};
pub use drawbridge_transport::{
    BalancedChannel, CallContext, ChannelError, GrpcServer, MtlsConfig, MtlsError,
    MtlsServerConfig, Peer, Peers, SpiffeId, TXN_TOKEN, client_span, connect, end_client_span,
    fetch, jwks, status_text, transaction_token, with_transaction_token,
};
