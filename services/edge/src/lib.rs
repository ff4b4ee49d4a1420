//! MCP over HTTP in, typed gRPC out.
//!
//! Only the edge implements MCP and the public HTTP server. Admission authenticates and authorizes
//! every request; the MCP server handles admitted ones, and calls tool services by their
//! descriptors.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use drawbridge_audit::{AuditConfig, AuditError, AuditLog};
use drawbridge_config::ConfigError;
use drawbridge_runtime::{
    Admin, BindError, CertificateError, GrpcUrl, HttpLimits, HttpOptions, HttpService, Listen,
    RunningService, ServerCertificate, ServiceBuilder, ServiceTasks, Telemetry, parse_defaults,
    parse_url_string,
};
use drawbridge_transport::{ChannelError, MtlsConfig, MtlsError, Peers, SpiffeId};
use secrecy::SecretString;
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
    keys::{EdgeKeys, McpKeys},
    mcp::{McpServer, MethodHandler, Seal, SessionLimits},
    metadata::{Endpoint, ProtectedResource},
    recorder::CallRecords,
    traffic::cache::Cache,
    traffic::limits::RateLimiter,
    traffic::queue::AdmissionController,
};

pub use crate::{
    budget::BodyLimits,
    catalog::{CatalogLock, ItemKind, LOCK_BYTES_MAX, LockDifference},
    catalog_preview::{CatalogPreview, LockProposal, PreviewError, preview_catalog},
    config::{NamedServices, ServiceAddress, ServiceAddressError, check_config, named_services},
    discovery::{
        ContractError, DESCRIPTOR_SET_BYTES_MAX, KubernetesConfig, KubernetesError,
        KubernetesNamespace, KubernetesNamespaceError,
    },
    error_codes::{JSON_RPC_CODES, JsonRpcCode, REFUSAL_REASONS, RefusalReason},
    ingress::ForwardedBy,
    keys::{SECRET_BYTES_MIN, SecretError, random_secret},
    mcp::{GrpcErrorCode, StreamsConfig, grpc_error_codes},
    metrics::METRICS,
    traffic::transform::{Direction, ProgramPrincipal},
    transform_trial::{Trial, TrialError},
};

mod admission;
mod admitted;
mod authorizer;
mod budget;
mod catalog;
mod catalog_preview;
mod checkpoints;
mod config;
mod discovery;
mod error_codes;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod grpc;
mod ingress;
mod keys;
mod mcp;
mod metadata;
mod metrics;
mod readiness;
mod recorder;
mod refusal;
mod request_log;
mod sealer;
mod traffic;
mod transform_trial;
mod truncate;

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

    /// The gRPC address of auth; on this host also `unix:/path`. Repeat, or separate by commas, for
    /// several replicas. A host name resolves to all of its addresses.
    #[arg(
        long = "auth-url",
        value_name = "URL",
        default_value = "http://127.0.0.1:7110",
        value_delimiter = ','
    )]
    pub auth_urls: Vec<GrpcUrl>,

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

    /// The secret that seals session ids, request states and the results cached in Redis: at least
    /// 32 bytes, for example of `openssl rand -base64 32`, and the same on every replica. Required
    /// with a Redis. Absent: a random one, for a single replica.
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

    /// Tool services of Kubernetes.
    #[command(flatten)]
    pub kubernetes: KubernetesConfig,

    /// What is recorded of calls.
    #[command(flatten)]
    pub audit: AuditConfig,

    /// mTLS with other services.
    #[command(flatten)]
    pub mtls: MtlsConfig,
}

impl Config {
    /// A config with the defaults of the options, for a mesh that is started in code.
    #[must_use]
    pub fn new(public_url: Url, authorization_server: String, auth_url: Url) -> Self {
        Self {
            public_url,
            authorization_servers: vec![authorization_server],
            auth_urls: vec![auth_url.into()],
            ..parse_defaults(&["--authorization-server=http://idp"])
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
    ConfigFile(#[from] ConfigError),
    /// Tool services of Kubernetes cannot be discovered.
    #[error(transparent)]
    Kubernetes(#[from] KubernetesError),
    /// An allowed origin is invalid.
    #[error("invalid origin {0:?} (expected e.g. https://app.example.com)")]
    Origin(String),
    /// The Redis URL is invalid.
    #[error("invalid Redis URL")]
    Redis(#[from] redis::RedisError),
    /// The secret cannot be used.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The TLS certificate cannot be used.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The TLS certificate or its key is missing.
    #[error("TLS needs both a certificate and its key")]
    HalfTls,
    /// The audit log cannot be used.
    #[error(transparent)]
    Audit(#[from] AuditError),
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
    metrics::register();
    let builder = ServiceBuilder::new();
    let peers = Peers::start(&builder, &config.mtls)?;
    let http = HttpOptions { limits: config.http.clone(), certificate: certificate(&config)? };
    let catalogs: Arc<Catalogs> = Arc::default();
    let redis_url = config.redis_url.as_ref();
    let keys = EdgeKeys::new(config.secret.as_ref(), redis_url.is_some())?;
    let cache = Cache::start(&builder, keys.cache, redis_url)?;
    let call_timeout = Duration::from_millis(config.call_timeout_ms);
    let intervals = PollIntervals::new(Duration::from_millis(config.contract_poll_ms));
    let controller = Arc::<AdmissionController>::default();
    let watching = traffic::queue::watch_busy_ratio(Arc::clone(&controller), builder.stopping());
    builder.spawn(watching);
    let reloadable = Reloadable {
        limits: Arc::new(RateLimiter::new(redis_url)?),
        calls: Arc::default(),
        controller,
        guards: Arc::default(),
        cache,
    };
    let discovery =
        Discovery::new(Arc::clone(&catalogs), reloadable.clone(), call_timeout, intervals)
            .with_peers(peers.clone());
    let file = config.config.clone().map(ConfigFile::new);
    let flags = config::from_flags(&config.services);
    let audit = AuditLog::open(&config.audit, &builder, "edge")?;
    audit.observe(&telemetry.acts());
    discovery::start(&builder, flags, file, &config.kubernetes, &audit, discovery).await?;

    let authorizer = authorizer(&config, &peers)?;
    checkpoints::exchange(&config, &peers, &audit, &builder)?;
    readiness::watch(&builder, &authorizer, &catalogs, &reloadable.limits, redis_url)?;
    let service = http_service(
        &config,
        authorizer,
        catalogs,
        reloadable,
        keys.mcp,
        builder.tasks(),
        audit.clone(),
    )?;
    let address: SocketAddr = builder.http_with(&config.listen, service, http)?;
    let admin = Admin::new(&config.admin_listen, telemetry);
    Ok(builder.finish(address, admin.with_operator_routes(audit.admin_routes()))?)
}

fn authorizer(config: &Config, peers: &Peers) -> Result<Authorizer, ChannelError> {
    let urls: Vec<Url> = config.auth_urls.iter().map(|url| url.0.clone()).collect();
    Authorizer::new(peers, &urls, config.auth_spiffe_id.as_ref())
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

/// The HTTP service of all requests.
fn http_service(
    config: &Config,
    authorizer: Authorizer,
    catalogs: Arc<Catalogs>,
    reloadable: Reloadable,
    keys: McpKeys,
    tasks: ServiceTasks,
    audit: AuditLog,
) -> Result<impl HttpService + use<>, StartError> {
    let Reloadable { limits, calls, controller, guards, cache } = reloadable;
    let resource = Arc::new(ProtectedResource::new(
        &config.public_url,
        &config.authorization_servers,
        &config.scopes,
    ));
    let endpoint = Endpoint { resource: Arc::clone(&resource), namespace: None };
    let policy = IngressPolicy::new(config, endpoint)?;
    let handler = MethodHandler {
        catalogs: Arc::clone(&catalogs),
        calls,
        cache,
        guards,
        seal: Arc::new(Seal::new(keys.request_states)),
        watch_slots: mcp::watch_slots(&config.streams),
        tasks: tasks.clone(),
    };
    let sessions = SessionLimits {
        max: config.sessions_max,
        per_principal_max: config.sessions_per_principal_max,
        idle: Duration::from_secs(config.session_idle_seconds),
    };
    let redis_url = config.redis_url.as_ref();
    let server = McpServer::new(handler, &config.streams, sessions, keys.sessions, redis_url)?;
    tasks.spawn(server.run_maintenance());
    let metadata = resource.routes(&catalogs);
    let admission = Arc::new(AdmissionState {
        authorizer,
        server,
        catalogs,
        limits,
        controller,
        resource,
        bodies: Arc::new(BodyBudget::new(config.bodies.clone())),
        responses: Arc::new(ResponseBudget::new(config.answers_bytes_max)),
        records: CallRecords::new(audit),
    });
    let router = router(&policy, &admission, metadata);
    let ingress = Arc::new(Ingress { policy, admission, router });
    Ok(service_fn(move |request| {
        let ingress = Arc::clone(&ingress);
        // Boxed, so that the future that a connection moves is small.
        Box::pin(async move { Ok(ingress.handle(request).await) })
    }))
}
