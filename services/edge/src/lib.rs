//! MCP over HTTP in, typed gRPC out.
//!
//! Only the edge implements MCP and the public HTTP server. Admission authenticates and authorizes
//! every request; the MCP server handles admitted ones, and calls tool services by their
//! descriptors.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use axum::Router;
use drawbridge_runtime::{
    Admin, BindError, CertificateError, ConfigTextError, GrpcUrl, HttpLimits, HttpOptions,
    HttpService, Listen, RunningService, ServerCertificate, ServiceBuilder, Telemetry,
    parse_url_string,
};
use drawbridge_transport::{ChannelError, MtlsConfig, MtlsError, Peers, SpiffeId};
use secrecy::SecretString;
use tokio_util::sync::CancellationToken;
use tower::service_fn;
use url::Url;

use crate::{
    admission::AdmissionState,
    authorizer::Authorizer,
    budget::{BodyBudget, ResponseBudget},
    catalog::Catalogs,
    config::{ConfigFile, Reloadable},
    discovery::{Discovery, PollIntervals},
    ingress::{Ingress, IngressPolicy, router},
    mcp::{McpServer, MethodHandler, Seal, SessionLimits},
    metadata::{Endpoint, ProtectedResource},
    traffic::cache::Cache,
    traffic::guard::Guards,
    traffic::limits::RateLimiter,
    traffic::queue::{AdmissionController, CallLimiter},
};

pub use crate::{
    budget::BodyLimits,
    catalog::{CatalogLock, ItemKind, LOCK_BYTES_MAX, LockDifference},
    catalog_preview::{CatalogPreview, LockProposal, PreviewError, preview_catalog},
    config::{NamedServices, ServiceAddress, ServiceAddressError, named_services},
    discovery::ContractError,
    ingress::ForwardedBy,
    mcp::{SealError, StreamsConfig},
    namespace::{Namespace, NamespaceError},
    traffic::cache::CacheError,
    traffic::transform::{Direction, ProgramPrincipal},
    transform_trial::{Trial, TrialError},
};

mod admission;
mod admitted;
mod authorizer;
mod budget;
mod catalog;
mod catalog_preview;
mod config;
mod discovery;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod grpc;
mod ingress;
mod mcp;
mod metadata;
mod namespace;
mod refusal;
mod sealer;
mod traffic;
mod transform_trial;

/// The configuration of the edge.
#[derive(Clone, Debug, clap::Args)]
pub struct Config {
    /// The address of the MCP server.
    #[arg(long, default_value = "127.0.0.1:7180")]
    pub listen: Listen,

    /// The address of the health and metrics server.
    #[arg(long, default_value = "127.0.0.1:7181")]
    pub admin_listen: Listen,

    /// The URL of the MCP endpoint as clients reach it, with its path. It is the OAuth resource,
    /// and the only source of the URLs that the edge publishes.
    #[arg(long, default_value = "http://127.0.0.1:7180/mcp")]
    pub public_url: Url,

    /// The issuer of an authorization server where clients get tokens; auth must accept it.
    /// Preferred one first. Repeat, or separate by commas.
    #[arg(
        long = "authorization-server",
        value_name = "ISSUER",
        required = true,
        value_delimiter = ',',
        value_parser = parse_url_string
    )]
    pub authorization_servers: Vec<String>,

    /// Scopes that clients should request. Repeat, or separate by commas.
    #[arg(long, default_value = "mcp", value_delimiter = ',')]
    pub scopes: Vec<String>,

    /// The gRPC address of auth; on this host also `unix:/path`.
    #[arg(long, default_value = "http://127.0.0.1:7110")]
    pub auth_url: GrpcUrl,

    /// The SPIFFE id of auth. Absent: the edge's own, with `auth` as its last segment.
    #[arg(long, value_name = "SPIFFE_ID")]
    pub auth_spiffe_id: Option<SpiffeId>,

    /// A tool service, as `namespace=URL`. Repeat, or separate by commas; a repeated namespace has
    /// several replicas. A host name resolves to all of its addresses.
    #[arg(long = "service", value_name = "NAMESPACE=URL", value_delimiter = ',')]
    pub services: Vec<ServiceAddress>,

    /// A TOML file with tool services and settings for their calls. Changes take effect without a
    /// restart.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// How often the contract of a tool service is checked for changes, besides after a reconnect,
    /// in milliseconds.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub contract_poll_ms: u64,

    /// An origin whose pages may call the edge, in addition to that of the public URL. Repeat, or
    /// separate by commas.
    #[arg(long = "allowed-origin", value_name = "ORIGIN", value_delimiter = ',')]
    pub allowed_origins: Vec<String>,

    /// A `Host` that the edge accepts, in addition to that of the public URL. Repeat, or separate
    /// by commas.
    #[arg(long = "allowed-host", value_name = "HOST[:PORT]", value_delimiter = ',')]
    pub allowed_hosts: Vec<String>,

    /// How long a call may take without progress, in milliseconds.
    #[arg(long, default_value_t = 30_000)]
    pub call_timeout_ms: u64,

    /// The secret that seals session ids, request states and the results cached in Redis. It must
    /// be long, and equal on every replica. Absent: a random one, for a single replica.
    #[arg(long, hide_env_values = true)]
    pub secret: Option<SecretString>,

    /// The URL of Redis (`redis://`, `redis-sentinel://` or `redis-cluster://`), through which
    /// replicas share sessions, rate limits and cached results. Absent: this replica shares none of
    /// them.
    #[arg(long, hide_env_values = true)]
    pub redis_url: Option<SecretString>,

    /// After how long an idle session is closed, in seconds.
    #[arg(long, default_value_t = 1800, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub session_idle_seconds: u64,

    /// How many sessions one principal may have open on this replica.
    #[arg(long, default_value_t = 32)]
    pub sessions_per_principal_max: usize,

    /// How many sessions all principals may have open on this replica.
    #[arg(long, default_value_t = 10_000)]
    pub sessions_max: usize,

    /// How many proxies in front of the edge are trusted to report the client's address. 0: the
    /// address of the connection is the client's.
    #[arg(long, default_value_t = 0)]
    pub trusted_hops: usize,

    /// The header in which the proxies report it. Other headers are ignored, because clients may
    /// set them.
    #[arg(long, value_enum, default_value_t = ForwardedBy::XForwardedFor)]
    pub forwarded_by: ForwardedBy,

    /// A PEM file with the TLS server certificate, followed by the intermediate certificates.
    /// Absent: plain HTTP. Changes take effect without a restart.
    #[arg(long, value_name = "FILE", requires = "tls_key_file")]
    pub tls_certificate_file: Option<PathBuf>,

    /// A PEM file with the key of the certificate.
    #[arg(long, value_name = "FILE", requires = "tls_certificate_file")]
    pub tls_key_file: Option<PathBuf>,

    /// How many bytes of unread responses, of those over 64 KiB, may be in memory at once. A
    /// principal with more than a quarter of it unread cannot begin a call.
    #[arg(long, default_value_t = 64 * 1024 * 1024)]
    pub answers_bytes_max: usize,

    /// The limits of request bodies.
    #[command(flatten)]
    pub bodies: BodyLimits,

    /// The limits of streams.
    #[command(flatten)]
    pub streams: StreamsConfig,

    /// The limits of the HTTP server.
    #[command(flatten)]
    pub http: HttpLimits,

    /// mTLS with other services.
    #[command(flatten)]
    pub mtls: MtlsConfig,
}

impl Config {
    /// A config with the defaults of the flags, for a mesh that is started in code.
    #[must_use]
    pub fn new(public_url: Url, authorization_server: String, auth_url: Url) -> Self {
        let loopback = |port| Listen::Address(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        Self {
            listen: loopback(7180),
            admin_listen: loopback(7181),
            public_url,
            authorization_servers: vec![authorization_server],
            scopes: vec!["mcp".to_owned()],
            auth_url: auth_url.into(),
            auth_spiffe_id: None,
            services: Vec::new(),
            config: None,
            contract_poll_ms: 10_000,
            allowed_origins: Vec::new(),
            allowed_hosts: Vec::new(),
            bodies: BodyLimits::default(),
            answers_bytes_max: 64 * 1024 * 1024,
            call_timeout_ms: 30_000,
            secret: None,
            redis_url: None,
            session_idle_seconds: 1800,
            sessions_per_principal_max: 32,
            sessions_max: 10_000,
            streams: StreamsConfig::default(),
            trusted_hops: 0,
            forwarded_by: ForwardedBy::XForwardedFor,
            tls_certificate_file: None,
            tls_key_file: None,
            http: HttpLimits::default(),
            mtls: MtlsConfig::default(),
        }
    }
}

/// The edge could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The certificate for services, or their trust bundle, cannot be used.
    #[error("cannot set up mTLS")]
    Mtls(#[from] MtlsError),
    /// An address in the config is not a gRPC address.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// The config file cannot be used.
    #[error(transparent)]
    ConfigFile(#[from] ConfigTextError),
    /// An allowed origin is invalid.
    #[error("invalid origin {0:?} (expected e.g. https://app.example.com)")]
    Origin(String),
    /// The Redis URL is invalid.
    #[error("invalid Redis URL")]
    Redis(#[from] redis::RedisError),
    /// A key could not be set up.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The cache could not be set up.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// The TLS certificate cannot be used.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The TLS certificate or its key is missing.
    #[error("TLS needs both a certificate and its key")]
    HalfTls,
    /// An address could not be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
}

/// Starts the edge. It is ready once the contract of every tool service was requested; a service
/// that is down is retried until it responds.
///
/// # Errors
/// When the config is invalid or an address could not be bound.
pub async fn start(config: Config, telemetry: &Telemetry) -> Result<RunningService, StartError> {
    let builder = ServiceBuilder::new();
    let peers = Peers::start(&builder, &config.mtls)?;
    let http = HttpOptions { limits: config.http.clone(), certificate: certificate(&config)? };
    let catalogs: Arc<Catalogs> = Arc::default();
    let limits = Arc::new(RateLimiter::new(config.redis_url.as_ref())?);
    let secret = config.secret.clone().unwrap_or_else(random_secret);
    let redis_url = config.redis_url.as_ref();
    let cache = Cache::start(&builder, &secret, redis_url)?;
    let call_timeout = Duration::from_millis(config.call_timeout_ms);
    let intervals = PollIntervals::new(Duration::from_millis(config.contract_poll_ms));
    let calls = Arc::<CallLimiter>::default();
    let controller = Arc::<AdmissionController>::default();
    let watching = traffic::queue::watch_busy_ratio(Arc::clone(&controller), builder.stopping());
    builder.spawn(watching);
    let guards: Arc<Guards> = Arc::default();
    let reloadable = Reloadable {
        limits: Arc::clone(&limits),
        calls: Arc::clone(&calls),
        controller: Arc::clone(&controller),
        guards: Arc::clone(&guards),
        cache: Arc::clone(&cache),
    };
    let discovery = Discovery::new(Arc::clone(&catalogs), reloadable, call_timeout, intervals)
        .with_peers(peers.clone());
    let file = config.config.clone().map(ConfigFile::new);
    discovery::start(&builder, config::from_flags(&config.services), file, discovery).await?;

    let resource = Arc::new(ProtectedResource::new(
        &config.public_url,
        &config.authorization_servers,
        &config.scopes,
    ));
    let endpoint = Endpoint { resource: Arc::clone(&resource), namespace: None };
    let policy = IngressPolicy::new(&config, endpoint)?;
    let authorizer =
        Authorizer::new(peers.connect(&config.auth_url, "auth", config.auth_spiffe_id.as_ref())?);
    builder.spawn(authorizer.clone().watch_epochs(builder.stopping()));
    let seal = Arc::new(Seal::new(&secret)?);
    let watch_slots = mcp::watch_slots(&config.streams);
    let handler =
        MethodHandler { catalogs: Arc::clone(&catalogs), calls, cache, guards, seal, watch_slots };
    let server = server(&config, handler, &secret, builder.stopping())?;
    builder.spawn(server.run_maintenance());
    let metadata = resource.routes(&catalogs);
    let bodies = Arc::new(BodyBudget::new(config.bodies));
    let responses = Arc::new(ResponseBudget::new(config.answers_bytes_max));
    let admission = AdmissionState {
        authorizer,
        server,
        catalogs,
        limits,
        controller,
        resource,
        bodies,
        responses,
    };
    let service = service(policy, admission, metadata);
    let address: SocketAddr = builder.http_with(&config.listen, service, http)?;
    Ok(builder.finish(address, Admin::new(&config.admin_listen, telemetry))?)
}

fn certificate(config: &Config) -> Result<Option<Arc<ServerCertificate>>, StartError> {
    match (&config.tls_certificate_file, &config.tls_key_file) {
        (Some(certificate), Some(key)) => {
            Ok(Some(Arc::new(ServerCertificate::open(certificate, key)?)))
        }
        (None, None) => Ok(None),
        _ => Err(StartError::HalfTls),
    }
}

/// The MCP server.
fn server(
    config: &Config,
    handler: MethodHandler,
    secret: &SecretString,
    stopping: CancellationToken,
) -> Result<McpServer, StartError> {
    let sessions = SessionLimits {
        max: config.sessions_max,
        per_principal_max: config.sessions_per_principal_max,
        idle: Duration::from_secs(config.session_idle_seconds),
    };
    McpServer::new(handler, &config.streams, sessions, secret, config.redis_url.as_ref(), stopping)
}

/// The HTTP service of all requests.
fn service(policy: IngressPolicy, admission: AdmissionState, metadata: Router) -> impl HttpService {
    let admission = Arc::new(admission);
    let router = router(&policy, &admission, metadata);
    let ingress = Arc::new(Ingress { policy, admission, router });
    service_fn(move |request| {
        let ingress = Arc::clone(&ingress);
        // Boxed, so that the future that a connection moves is small.
        Box::pin(async move { Ok(ingress.handle(request).await) })
    })
}

/// A secret for a single replica.
fn random_secret() -> SecretString {
    let random: [u8; 32] = rand::random();
    random.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into()
}
