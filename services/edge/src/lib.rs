//! MCP over HTTP in, typed gRPC out.
//!
//! The edge is the only place that knows MCP and the public side of HTTP. Every request passes the gate,
//! which says who is calling and whether they may; what passes is answered by the MCP handler, which calls
//! tool services by their descriptors.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use axum::{Router, middleware, routing::any};
use drawbridge_sdk::{
    Admin, BindError, Certificate, CertificateError, ChannelError, ConfigTextError, GrpcUrl,
    HttpLimits, HttpOptions, HttpService, Listen, MtlsConfig, MtlsError, RunningService,
    ServiceBuilder, SpiffeId, Telemetry, url_text,
};
use secrecy::SecretString;
use tokio_util::sync::CancellationToken;
use tower::service_fn;
use url::Url;

use crate::{
    admission::authorizer::Authorizer,
    admission::{AnswerBudget, BodyBudget, Gate},
    catalog::Catalogs,
    catalog::discovery::{Discovery, Pace},
    config::{ConfigFile, Live},
    ingress::{Front, Ingress, page},
    mcp::{Handler, Seal, Server, SessionBounds},
    metadata::{Endpoint, Endpoints, ProtectedResource},
    traffic::cache::Cache,
    traffic::guard::Guards,
    traffic::limits::{Anybody, Limits},
    traffic::queue::{Calls, Requests},
};

pub use crate::{
    admission::BodyLimits,
    catalog::discovery::ContractError,
    catalog::{CatalogLock, ItemKind, LOCK_BYTES_MAX, LockDifference, Namespace, NamespaceError},
    config::{NamedServices, ServiceAddress, ServiceAddressError, named_services},
    ingress::ForwardedBy,
    mcp::{SealError, StreamsConfig},
    offered::{Lockable, Offered, OfferedError, offered},
    traffic::cache::CacheError,
    traffic::transform::{Direction, Principal, Trial, TrialError},
};

mod admission;
mod catalog;
mod config;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod grpc;
mod ingress;
mod mcp;
mod metadata;
mod offered;
mod refusal;
mod sealer;
mod traffic;

/// How the edge runs.
#[derive(Clone, Debug, clap::Args)]
pub struct Config {
    /// Where to serve MCP.
    #[arg(long, default_value = "127.0.0.1:7180")]
    pub listen: Listen,

    /// Where to serve health and metrics.
    #[arg(long, default_value = "127.0.0.1:7181")]
    pub admin_listen: Listen,

    /// The URL under which clients know the MCP endpoint, with its path. It is the OAuth resource, and the
    /// only source of the URLs that the edge writes.
    #[arg(long, default_value = "http://127.0.0.1:7180/mcp")]
    pub public_url: Url,

    /// An authorization server that clients may get tokens from: an issuer that auth accepts, the preferred one first.
    /// Repeat, or separate by commas.
    #[arg(
        long = "authorization-server",
        value_name = "ISSUER",
        required = true,
        value_delimiter = ',',
        value_parser = url_text
    )]
    pub authorization_servers: Vec<String>,

    /// Scopes that clients are told to ask for. Repeat, or separate by commas.
    #[arg(long, default_value = "mcp", value_delimiter = ',')]
    pub scopes: Vec<String>,

    /// Where auth serves gRPC; on this host also `unix:/path`.
    #[arg(long, default_value = "http://127.0.0.1:7110")]
    pub auth_url: GrpcUrl,

    /// The SPIFFE id of auth. Absent: the own one with `auth` as its last segment.
    #[arg(long, value_name = "SPIFFE_ID")]
    pub auth_spiffe_id: Option<SpiffeId>,

    /// A tool service, as `namespace=URL`. Repeat, or separate by commas; a namespace that is given more than
    /// once has several replicas. A host name stands for all its addresses.
    #[arg(long = "service", value_name = "NAMESPACE=URL", value_delimiter = ',')]
    pub services: Vec<ServiceAddress>,

    /// A TOML file that names tool services and says what the edge does around their calls. What is edited in it
    /// takes effect without a restart.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// How often a tool service is asked whether its contract has changed, besides when it comes back, in
    /// milliseconds.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub contract_poll_ms: u64,

    /// An origin whose pages may call the edge, besides the public URL's own. Repeat, or separate by commas.
    #[arg(long = "allowed-origin", value_name = "ORIGIN", value_delimiter = ',')]
    pub allowed_origins: Vec<String>,

    /// A `Host` that the edge answers to, besides the public URL's own. Repeat, or separate by commas.
    #[arg(long = "allowed-host", value_name = "HOST[:PORT]", value_delimiter = ',')]
    pub allowed_hosts: Vec<String>,

    /// How long a call may take when its tool says nothing, in milliseconds.
    #[arg(long, default_value_t = 30_000)]
    pub call_timeout_ms: u64,

    /// What seals session ids, request states and results that are kept in Redis. It must be the same on every replica, and long. Absent: made
    /// up at start, for a single replica.
    #[arg(long, hide_env_values = true)]
    pub secret: Option<SecretString>,

    /// Redis (`redis://`, `redis-sentinel://` or `redis-cluster://`), where replicas find one another's sessions, count
    /// rate limits together and share results that are kept. Absent: all of these are this replica's alone.
    #[arg(long, hide_env_values = true)]
    pub redis_url: Option<SecretString>,

    /// After how long a session in which nothing happens is closed, in seconds.
    #[arg(long, default_value_t = 1800, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub session_idle_seconds: u64,

    /// How many sessions one principal may have open on this replica.
    #[arg(long, default_value_t = 32)]
    pub sessions_per_principal_max: usize,

    /// How many sessions this replica may have open, of all principals.
    #[arg(long, default_value_t = 10_000)]
    pub sessions_max: usize,

    /// How many proxies in front of the edge are trusted to say whom they forward for. 0: the address of the
    /// connection is the client's.
    #[arg(long, default_value_t = 0)]
    pub trusted_hops: usize,

    /// The header in which they say it. Another one, which anybody could send through them, is not believed.
    #[arg(long, value_enum, default_value_t = ForwardedBy::XForwardedFor)]
    pub forwarded_by: ForwardedBy,

    /// A PEM file of the certificate to serve TLS with, and behind it those of the authorities between it and
    /// the root. Absent: plain HTTP. It may change at any time.
    #[arg(long, value_name = "FILE", requires = "tls_key_file")]
    pub tls_certificate_file: Option<PathBuf>,

    /// A PEM file of the certificate's key.
    #[arg(long, value_name = "FILE", requires = "tls_certificate_file")]
    pub tls_key_file: Option<PathBuf>,

    /// How many bytes of answers over 64 KiB are in memory at once that clients have not read. One principal has a quarter
    /// of it, and begins no call while it leaves more unread.
    #[arg(long, default_value_t = 64 * 1024 * 1024)]
    pub answers_bytes_max: usize,

    /// What request bodies may take.
    #[command(flatten)]
    pub bodies: BodyLimits,

    /// What clients may take of its streams.
    #[command(flatten)]
    pub streams: StreamsConfig,

    /// What a client may take of the HTTP server.
    #[command(flatten)]
    pub http: HttpLimits,

    /// What services are shown, and which are believed.
    #[command(flatten)]
    pub mtls: MtlsConfig,
}

impl Config {
    /// A config with the flags' own defaults, for a mesh that is started in code.
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
    /// What the edge shows to services cannot be used.
    #[error("cannot set up mTLS")]
    Mtls(#[from] MtlsError),
    /// An address of the config is no gRPC address.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// The config file cannot be used.
    #[error(transparent)]
    ConfigFile(#[from] ConfigTextError),
    /// An origin of the config is not one.
    #[error("{0:?} is no origin, such as https://app.example.com")]
    Origin(String),
    /// The Redis URL is not one.
    #[error("cannot use the Redis URL")]
    Redis(#[from] redis::RedisError),
    /// The system's cryptography does not work.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The cache cannot be set up.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// The certificate cannot be served.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// A certificate is of no use without its key, nor a key without its certificate.
    #[error("TLS needs a certificate and its key")]
    HalfTls,
    /// An address is taken.
    #[error(transparent)]
    Bind(#[from] BindError),
}

/// Starts the edge. It is ready once every tool service has been asked for its contract; one that is down
/// is asked again until it answers.
///
/// # Errors
/// When the config is not right or an address is taken.
pub async fn start(config: Config, telemetry: &Telemetry) -> Result<RunningService, StartError> {
    let starting = ServiceBuilder::new();
    let peers = starting.peers(&config.mtls)?;
    let http = HttpOptions { limits: config.http.clone(), certificate: certificate(&config)? };
    let catalogs: Arc<Catalogs> = Arc::default();
    let limits = Arc::new(Limits::new(config.redis_url.as_ref())?);
    let secret = config.secret.clone().unwrap_or_else(made_up_secret);
    let redis_url = config.redis_url.as_ref();
    let cache = Cache::start(&starting, &secret, redis_url)?;
    let call_timeout = Duration::from_millis(config.call_timeout_ms);
    let pace = Pace::new(Duration::from_millis(config.contract_poll_ms));
    let (calls, requests) = (Arc::<Calls>::default(), Arc::<Requests>::default());
    starting.spawn(traffic::queue::watch(Arc::clone(&requests), starting.stopping()));
    let guards: Arc<Guards> = Arc::default();
    let live = Live {
        limits: Arc::clone(&limits),
        calls: Arc::clone(&calls),
        requests: Arc::clone(&requests),
        guards: Arc::clone(&guards),
        cache: Arc::clone(&cache),
    };
    let discovery =
        Discovery::new(Arc::clone(&catalogs), live, call_timeout, pace).among(peers.clone());
    let file = config.config.clone().map(ConfigFile::new);
    catalog::discovery::start(&starting, config::from_flags(&config.services), file, discovery)
        .await?;

    let resource = Arc::new(ProtectedResource::new(
        &config.public_url,
        &config.authorization_servers,
        &config.scopes,
    ));
    let whole = Endpoint { resource: Arc::clone(&resource), namespace: None };
    let front = Front::new(&config, whole)?;
    let authorizer =
        Authorizer::new(peers.connect(&config.auth_url, "auth", config.auth_spiffe_id.as_ref())?);
    starting.spawn(authorizer.clone().listen(starting.stopping()));
    let seal = Arc::new(Seal::new(&secret)?);
    let watches = mcp::watches(&config.streams);
    let handler = Handler { catalogs: Arc::clone(&catalogs), calls, cache, guards, seal, watches };
    let server = server(&config, handler, &secret, starting.stopping())?;
    starting.spawn(server.upkeep());
    let metadata = resource.routes(&catalogs);
    let bodies = Arc::new(BodyBudget::new(config.bodies));
    let answers = Arc::new(AnswerBudget::new(config.answers_bytes_max));
    let gate = Gate { authorizer, server, catalogs, limits, requests, resource, bodies, answers };
    let service = service(front, gate, metadata);
    let address: SocketAddr = starting.http_with(&config.listen, service, http)?;
    Ok(starting.running(address, Admin::new(&config.admin_listen, telemetry))?)
}

fn certificate(config: &Config) -> Result<Option<Arc<Certificate>>, StartError> {
    match (&config.tls_certificate_file, &config.tls_key_file) {
        (Some(certificate), Some(key)) => Ok(Some(Arc::new(Certificate::open(certificate, key)?))),
        (None, None) => Ok(None),
        _ => Err(StartError::HalfTls),
    }
}

/// The server of MCP.
fn server(
    config: &Config,
    handler: Handler,
    secret: &SecretString,
    stopping: CancellationToken,
) -> Result<Server, StartError> {
    let sessions = SessionBounds {
        max: config.sessions_max,
        per_principal_max: config.sessions_per_principal_max,
        idle: Duration::from_secs(config.session_idle_seconds),
    };
    Server::new(handler, &config.streams, sessions, secret, config.redis_url.as_ref(), stopping)
}

/// What answers every request.
fn service(front: Front, gate: Gate, metadata: Router) -> impl HttpService {
    let gate = Arc::new(gate);
    let router = router(&front, &gate, metadata);
    let ingress = Arc::new(Ingress { front, gate, router });
    service_fn(move |request| {
        let ingress = Arc::clone(&ingress);
        // Boxed, so that what a connection moves about is small.
        Box::pin(async move { Ok(ingress.answer(request).await) })
    })
}

fn router(front: &Front, gate: &Arc<Gate>, metadata: Router) -> Router {
    let path = gate.resource.path().to_owned();
    // Clients differ in whether they keep the slash. Below stand the endpoints of single services.
    let mut paths =
        vec![format!("{path}/"), format!("{path}/{{namespace}}"), format!("{path}/{{namespace}}/")];
    if !path.is_empty() {
        paths.push(path);
    }
    let endpoint = Endpoint { resource: Arc::clone(&gate.resource), namespace: None };
    // With MCP at the root, whoever opens it gets the page there.
    let home = if gate.resource.path().is_empty() { Router::new() } else { page::route(&endpoint) };
    let anybody = Arc::new(Anybody { limits: Arc::clone(&gate.limits), endpoint });
    let endpoints =
        Endpoints { resource: Arc::clone(&gate.resource), catalogs: Arc::clone(&gate.catalogs) };
    let metadata = metadata
        .merge(home)
        .route_layer(middleware::from_fn_with_state(anybody, traffic::limits::pass_anybody));
    let mcp = paths.iter().fold(Router::new(), |mcp, path| mcp.route(path, any(admission::pass)));
    mcp.route_layer(middleware::from_fn_with_state(Arc::new(endpoints), page::for_browsers))
        .with_state(Arc::clone(gate))
        .merge(metadata)
        .layer(front.cors())
}

/// A secret for a replica that has none to share.
fn made_up_secret() -> SecretString {
    let random: [u8; 32] = rand::random();
    random.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into()
}
