//! Searches and reads one source tree, and never leaves it.

use std::{io, path::PathBuf};

use drawbridge_proto::code::v1::code_service_server::CodeServiceServer;
use drawbridge_sdk::{
    Admin, BindError, GrpcServer, Listen, MtlsError, MtlsServerConfig, Running, SpiffeId, Starting,
    Telemetry,
    identity::{Verifier, VerifierError},
};
use url::Url;

use self::{api::CodeApi, tree::Tree};

mod api;
mod cancellation;
mod error;
mod lines;
mod list;
mod query;
mod resource;
#[cfg(test)]
mod sample;
mod search;
mod tree;
mod walk;

/// The largest request, in bytes. A query, a glob and a path are short.
const REQUEST_BYTES_MAX: usize = 64 * 1024;

/// How the service is set up.
#[derive(Clone, Debug, clap::Args)]
pub struct Config {
    /// Where gRPC is served.
    #[arg(long, default_value = "127.0.0.1:7210")]
    pub listen: Listen,

    /// Where health, readiness and metrics are served.
    #[arg(long, default_value = "127.0.0.1:7211")]
    pub admin_listen: Listen,

    /// The folder that is the source tree's root.
    #[arg(long, default_value = ".")]
    pub root: PathBuf,

    /// The largest file that is searched or read, in bytes. gRPC clients commonly take messages of up to
    /// 4 MiB.
    #[arg(long, default_value_t = 1_048_576)]
    pub file_bytes_max: u64,

    /// Where auth serves the keys of its transaction tokens.
    #[arg(long, default_value = "http://127.0.0.1:7111/.well-known/jwks.json")]
    pub auth_jwks_url: Url,

    /// The `iss` of transaction tokens.
    #[arg(long, default_value = "drawbridge-auth")]
    pub auth_issuer: String,

    /// The SPIFFE id of auth. Absent: the own one with `auth` as its last segment.
    #[arg(long, value_name = "SPIFFE_ID")]
    pub auth_spiffe_id: Option<SpiffeId>,

    /// Who may call, and what they are shown.
    #[command(flatten)]
    pub mtls: MtlsServerConfig,
}

/// The service could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The root is missing, no folder, or not readable.
    #[error("cannot open the source tree {}", root.display())]
    Root {
        /// The configured root.
        root: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// What the service shows to others cannot be used.
    #[error("cannot set up mTLS")]
    Mtls(#[from] MtlsError),
    /// Transaction tokens could not be verified.
    #[error("cannot prepare to verify callers")]
    Verifier(#[from] VerifierError),
    /// An address could not be bound.
    #[error("cannot serve")]
    Bind(#[from] BindError),
}

/// Starts the service.
///
/// # Errors
/// When the root is not a folder that can be opened, or an address cannot be bound.
pub async fn start(config: Config, telemetry: &Telemetry) -> Result<Running, StartError> {
    let tree = Tree::open(&config.root, config.file_bytes_max)
        .map_err(|source| StartError::Root { root: config.root, source })?;
    let starting = Starting::new();
    let peers = starting.peers(&config.mtls.own)?;
    let auth_id = config.auth_spiffe_id.as_ref();
    let verifier = Verifier::by(&peers, auth_id, "code", &config.auth_issuer, config.auth_jwks_url)?;
    let service = CodeServiceServer::new(CodeApi::new(tree)).max_decoding_message_size(REQUEST_BYTES_MAX);
    let server = GrpcServer::tool_service(service, verifier)
        .request_bytes_max(REQUEST_BYTES_MAX)
        .accept(&peers, &config.mtls)?;
    let address = starting.grpc(&config.listen, server)?;
    starting.readiness().ready();
    Ok(starting.running(address, Admin::new(&config.admin_listen, telemetry))?)
}
