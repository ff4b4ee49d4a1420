//! Searches and reads one source tree, and nothing outside it.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use drawbridge_proto::code::v1::code_service_server::CodeServiceServer;
use drawbridge_sdk::{
    Admin, BindError, GrpcServer, Listen, MtlsError, MtlsServerConfig, Peers, RunningService,
    ServiceBuilder, SpiffeId, Telemetry,
    transaction_token::{Verifier, VerifierError},
};
use url::Url;

use self::{api::CodeApi, query::SearchLimits, secrets::Secrets, tree::Tree};

mod api;
mod error;
mod lines;
mod links;
mod list;
mod query;
mod read;
mod resource;
#[cfg(test)]
mod sample;
mod search;
mod secrets;
mod tree;
mod walk;

const AUTH_ISSUER: &str = "drawbridge-auth";
/// The largest request, in bytes. A query, a glob and a path are short.
const REQUEST_BYTES_MAX: usize = 64 * 1024;
const FILE_BYTES_MAX: u64 = 1024 * 1024;
const QUERY_BYTES_MAX: usize = 4096;
const GLOB_BYTES_MAX: usize = 1024;
const LINE_BYTES_MAX: usize = 16 * 1024;
const JOBS_MAX: usize = 64;

/// The service's configuration.
#[derive(Clone, Debug, clap::Args)]
pub struct Config {
    /// Where to serve gRPC: an address and a port, or `unix:/path` for this host only.
    #[arg(long, default_value = "127.0.0.1:7210")]
    pub listen: Listen,

    /// Where to serve health, readiness and metrics.
    #[arg(long, default_value = "127.0.0.1:7211")]
    pub admin_listen: Listen,

    /// The root folder of the source tree.
    #[arg(long, default_value = ".")]
    pub root: PathBuf,

    /// The largest file that is searched or read, in bytes. gRPC clients commonly accept messages
    /// of up to 4 MiB.
    #[arg(long, default_value_t = FILE_BYTES_MAX)]
    pub file_bytes_max: u64,

    /// More files that may hold keys, in addition to the built-in list: globs in `.gitignore`
    /// syntax, comma-separated, for example `*.secret,!ca.pem`. The last match decides; a glob that
    /// starts with `!` exempts a file. Such files are not found, listed or read.
    #[arg(long, value_delimiter = ',', value_name = "GLOB")]
    pub secret_glob: Vec<String>,

    /// The longest query of a search, in bytes.
    #[arg(long, default_value_t = QUERY_BYTES_MAX)]
    pub query_bytes_max: usize,

    /// The longest glob of a search or a listing, in bytes.
    #[arg(long, default_value_t = GLOB_BYTES_MAX)]
    pub glob_bytes_max: usize,

    /// How much of a line is searched, in bytes. A search cannot be cancelled within a line.
    #[arg(long, default_value_t = LINE_BYTES_MAX)]
    pub line_bytes_max: usize,

    /// The maximum number of concurrent calls. Further calls queue until their deadlines.
    #[arg(long, default_value_t = JOBS_MAX)]
    pub jobs_max: usize,

    /// The JWKS URL of auth's transaction tokens.
    #[arg(long, default_value = "http://127.0.0.1:7111/.well-known/jwks.json")]
    pub auth_jwks_url: Url,

    /// The `iss` of transaction tokens.
    #[arg(long, default_value = AUTH_ISSUER)]
    pub auth_issuer: String,

    /// The SPIFFE id of auth. Absent: the service's own with `auth` as its last segment.
    #[arg(long, value_name = "SPIFFE_ID")]
    pub auth_spiffe_id: Option<SpiffeId>,

    /// The callers to accept, and the service's certificate.
    #[command(flatten)]
    pub mtls: MtlsServerConfig,
}

impl Config {
    /// A config for this source tree and JWKS URL, with defaults otherwise, on free ports.
    #[must_use]
    pub fn new(root: PathBuf, auth_jwks_url: Url) -> Self {
        let free = Listen::Address(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        Self {
            listen: free.clone(),
            admin_listen: free,
            root,
            file_bytes_max: FILE_BYTES_MAX,
            secret_glob: Vec::new(),
            query_bytes_max: QUERY_BYTES_MAX,
            glob_bytes_max: GLOB_BYTES_MAX,
            line_bytes_max: LINE_BYTES_MAX,
            jobs_max: JOBS_MAX,
            auth_jwks_url,
            auth_issuer: AUTH_ISSUER.to_owned(),
            auth_spiffe_id: None,
            mtls: MtlsServerConfig::default(),
        }
    }
}

/// The service could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The root is missing, not a folder, or not readable.
    #[error("cannot open the source tree {}", root.display())]
    Root {
        /// The configured root.
        root: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A configured glob is invalid.
    #[error("invalid glob `{glob}` in --secret-glob")]
    SecretGlob {
        /// The glob.
        glob: String,
        /// The cause.
        source: ignore::Error,
    },
    /// The certificate or trust bundle is unusable.
    #[error("cannot set up mTLS")]
    Mtls(#[from] MtlsError),
    /// The verifier of transaction tokens could not be created.
    #[error("cannot create the verifier of transaction tokens")]
    Verifier(#[from] VerifierError),
    /// An address could not be bound.
    #[error("cannot serve")]
    Bind(#[from] BindError),
}

/// Starts the service.
///
/// # Errors
/// When the root is not a folder that can be opened, or an address cannot be bound.
pub async fn start(config: Config, telemetry: &Telemetry) -> Result<RunningService, StartError> {
    let secrets = Secrets::new(&config.secret_glob)
        .map_err(|(glob, source)| StartError::SecretGlob { glob, source })?;
    let tree = Tree::open(&config.root, config.file_bytes_max, secrets)
        .map_err(|source| StartError::Root { root: config.root, source })?;
    let builder = ServiceBuilder::new();
    let peers = Peers::start(&builder, &config.mtls.identity)?;
    let auth_id = config.auth_spiffe_id.as_ref();
    let verifier =
        Verifier::with_peers(&peers, auth_id, "code", &config.auth_issuer, config.auth_jwks_url)?;
    let limits = SearchLimits {
        query_bytes_max: config.query_bytes_max,
        glob_bytes_max: config.glob_bytes_max,
        line_bytes_max: config.line_bytes_max,
    };
    let api = CodeApi::new(tree, limits, config.jobs_max);
    let service = CodeServiceServer::new(api).max_decoding_message_size(REQUEST_BYTES_MAX);
    let server = GrpcServer::tool_service(service, verifier)
        .request_bytes_max(REQUEST_BYTES_MAX)
        .accept(&peers, &config.mtls)?;
    let address = server.start(&builder, &config.listen)?;
    builder.readiness().set_ready();
    Ok(builder.finish(address, Admin::new(&config.admin_listen, telemetry))?)
}
