//! What a tool service depends on: a thin face over `drawbridge-runtime`, `drawbridge-transport`,
//! `drawbridge-contract` and `drawbridge-credentials`.
//!
//! A tool service is its contract, its handlers and one line of `main`:
//!
//! ```ignore
//! fn main() -> ExitCode {
//!     run_service("notes", "Finds and writes notes", start)
//! }
//!
//! async fn start(
//!     config: ToolServiceConfig,
//!     telemetry: &Telemetry,
//! ) -> Result<RunningService, ToolServiceError> {
//!     let service = NoteServiceServer::new(Notes::default());
//!     config.prepare("notes", telemetry)?.descriptors(DESCRIPTORS).serve(service)
//! }
//! ```
//!
//! `drawbridge new service NAME --lang rust` writes such a crate. `drawbridge-build` compiles the
//! contract in its build script, and [`include_contract`] includes it. See
//! `docs/how-to/write-a-tool-service.md`.

mod confirmation;
pub mod testing;
mod tool_service;

pub use self::{
    confirmation::{Confirmation, ConfirmationError},
    tool_service::{ToolServiceBuilder, ToolServiceConfig, ToolServiceError},
};
pub use drawbridge_contract::{self as contract, dynamic};
#[cfg(feature = "credentials")]
pub use drawbridge_credentials as credentials;
/// The messages of the public contract: progress, results, questions to the client.
pub use drawbridge_proto::mcp::v1 as mcp;
pub use drawbridge_runtime::{
    Address, Admin, BindError, BlockingError, BlockingJob, BlockingJobs, CallInFlight,
    Cancellation, Condition, DrainConfig, Effect, GrpcUrl, HandshakeLimits, Listen, REQUEST_ID,
    Readiness, RequestId, RunningService, ServiceArgs, ServiceBuilder, ServiceTasks,
    ShutdownSignals, SocketPath, Telemetry, TelemetryConfig, backoff, error_chain, is_invisible,
    is_loopback, length_prefixed, metric, metric_table, parse_args, parse_defaults, private_files,
    run_main, run_service, serve_until_signal, trace,
};
pub use drawbridge_transport::{
    BalancedChannel, CallContext, ChannelError, GrpcServer, GrpcService, MtlsConfig, MtlsError,
    MtlsServerConfig, Peer, Peers, SpiffeId, TXN_TOKEN, client_span, connect, end_client_span,
    fetch, jwks, status_text, transaction_token, transaction_token::VerifiedCaller,
    with_transaction_token,
};
// What generated code and handlers use, so that a service needs no other crate.
pub use {clap, prost, prost_types, tokio_stream, tonic, tonic_prost};

/// Includes the contract that `drawbridge_build::compile` has generated: a module per package, and
/// `DESCRIPTORS` for [`ToolServiceBuilder::descriptors`].
#[macro_export]
macro_rules! include_contract {
    () => {
        include!(concat!(env!("OUT_DIR"), "/contract.rs"));
    };
}
