//! Authentication and authorization.
//!
//! Auth verifies external access tokens, evaluates Cedar policies, and signs the transaction tokens
//! that carry a caller to one RPC of one tool service. No other service knows issuers or policies.

use std::{path::PathBuf, sync::Arc, time::Duration};

use axum::{Json, Router, routing::get};
use clap::ArgGroup;
use drawbridge_audit::{AuditConfig, AuditError, AuditLog, EXCHANGE_PATH};
use drawbridge_proto::auth::v1::auth_service_server::AuthServiceServer;
use drawbridge_runtime::{
    Admin, BindError, Effect, Listen, RunningService, ServiceBuilder, Telemetry, parse_defaults,
    parse_url_string,
};
use drawbridge_transport::{
    ChannelError, GrpcServer, MtlsError, MtlsServerConfig, Peers, ReplicaDocuments, SpiffeId,
};
use secrecy::SecretString;
use url::Url;

use crate::{
    api::Api,
    authn::{Audience, IssuerFlags, Issuers, TokenVerifier},
    epoch::{DecisionInputs, Epochs},
    policy::{
        PolicyStore, STATUS_PATH,
        bundle::{BundleConfig, BundleError, PolicyLocation},
    },
    revocation::{Revocations, RevocationsError},
    transaction::{KeyPeers, Keyring, MintError, Minter, ROTATION_SECONDS_MIN},
};

pub use crate::{
    authn::{Identity, IssuersFileError, RefusedTokensConfig, SeenConfig, check_issuers},
    metrics::METRICS,
    transaction::KeyTiming,
};

mod api;
mod authn;
mod digest;
mod epoch;
mod metrics;
pub mod policy;
mod readiness;
mod records;
mod revocation;
mod transaction;

/// The largest request in bytes: it contains the arguments of one edge request, twice where some
/// are sensitive.
const REQUEST_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Configuration of the auth service.
#[derive(Clone, Debug, clap::Args)]
#[command(
    group = ArgGroup::new("accepted").args(["issuer", "issuers"]).required(true).multiple(true)
)]
pub struct Config {
    /// Where to serve gRPC: an address and a port, or `unix:/path` for this host only.
    #[arg(long, default_value = "127.0.0.1:7110")]
    pub listen: Listen,

    /// Where to serve health, metrics and the public keys of transaction tokens.
    #[arg(long, default_value = "127.0.0.1:7111")]
    pub admin_listen: Listen,

    /// An issuer of access tokens, exactly as in its `iss` claim. Use it for an issuer whose tokens
    /// name the edge's URLs and whose keys its metadata document locates. It adds to the issuers of
    /// --issuers.
    #[arg(long, value_parser = parse_url_string)]
    pub issuer: Option<String>,

    /// A tenant that tokens of --issuer may name; `*` allows any. Default: any while --issuer is
    /// the only issuer, none when there are others. Repeat, or separate by commas.
    #[arg(long, value_name = "TENANT", value_delimiter = ',', requires = "issuer")]
    pub issuer_tenants: Vec<String>,

    /// Allow fetching the keys of --issuer over http and from loopback or private addresses.
    #[arg(long, requires = "issuer")]
    pub allow_private_addresses: bool,

    /// A TOML file of issuers, each with its own audiences, keys and claims.
    #[arg(long, value_name = "FILE")]
    pub issuers: Option<PathBuf>,

    /// The edge's URLs. An access token must name one of them, unless its issuer in --issuers has
    /// its own audiences. Repeat, or separate by commas.
    #[arg(long, required = true, value_delimiter = ',')]
    pub audience: Vec<String>,

    /// The audience that an internal caller's token must name for token exchange.
    #[arg(long, default_value = "drawbridge-auth")]
    pub internal_audience: String,

    /// The Cedar policies: a folder, or a signed bundle, `https://HOST/NAME.tar.gz` or
    /// `oci://REGISTRY/REPOSITORY:TAG`.
    #[arg(long, value_name = "FOLDER_OR_URL", default_value = "policies")]
    pub policies: PolicyLocation,

    /// How a bundle of policies is fetched and trusted.
    #[command(flatten)]
    pub policy_bundles: BundleConfig,

    /// The `iss` of transaction tokens.
    #[arg(long, default_value = "drawbridge-auth")]
    pub transaction_issuer: String,

    /// How long a transaction token is valid, in seconds.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(5..=60))]
    pub transaction_ttl_seconds: u32,

    /// How long one key signs transaction tokens, in seconds.
    #[arg(
        long,
        default_value_t = 86_400,
        value_parser = clap::value_parser!(u32).range(ROTATION_SECONDS_MIN..)
    )]
    pub transaction_key_seconds: u32,

    /// Redis (`redis://`, `redis-sentinel://` or `redis-cluster://`) through which replicas share
    /// revocations. Without it, revocations apply to this replica only and are lost at exit.
    #[arg(long, hide_env_values = true)]
    pub redis_url: Option<SecretString>,

    /// A file that stores revocations across restarts, for a single replica without Redis. It is
    /// readable by this user only.
    #[arg(long, value_name = "FILE")]
    pub revocations_file: Option<PathBuf>,

    /// How rejected tokens are cached.
    #[command(flatten)]
    pub refused_tokens: RefusedTokensConfig,

    /// What is remembered of verified tokens.
    #[command(flatten)]
    pub seen: SeenConfig,
    /// What is recorded of decisions.
    #[command(flatten)]
    pub audit: AuditConfig,

    /// Who may call, and the certificate that callers see.
    #[command(flatten)]
    pub mtls: MtlsServerConfig,

    /// The SPIFFE id of an edge. Only edges may authorize clients' access tokens. Default: auth's
    /// own id with `edge` as its last segment. Repeat, or separate by commas.
    #[arg(
        long,
        value_name = "SPIFFE_ID",
        value_delimiter = ',',
        requires = "mtls_certificate_file",
        help_heading = "Between services"
    )]
    pub mtls_allow_edge: Vec<SpiffeId>,

    /// The replicas of auth, as `https://host:port` of their gRPC addresses. Each publishes the
    /// keys of all of them, and is ready once the others publish its own. A host name resolves to
    /// all of its addresses, again and again; this replica may be among them. Repeat, or separate
    /// by commas.
    #[arg(long, value_name = "URL", value_delimiter = ',', help_heading = "Between services")]
    pub peers: Vec<Url>,

    /// When keys are exchanged with the peers, sign, and are withdrawn.
    #[arg(skip)]
    pub key_timing: KeyTiming,
}

impl Config {
    /// A config for access tokens of this issuer that name one of these audiences, with the defaults
    /// of the options.
    #[must_use]
    pub fn new(issuer: String, audience: Vec<String>) -> Self {
        let placeholders = ["--issuer=http://idp", "--audience=http://edge"];
        Self { issuer: Some(issuer), audience, ..parse_defaults(&placeholders) }
    }

    fn issuer_flags(&self) -> Option<IssuerFlags> {
        let (issuer, tenants) = (self.issuer.clone()?, self.issuer_tenants.clone());
        let allow_private_addresses = self.allow_private_addresses;
        Some(IssuerFlags { issuer, allow_private_addresses, tenants })
    }

    /// A digest of what decisions read here. The version stands for the code.
    fn digest(&self) -> [u8; 32] {
        let mut parts = vec![env!("CARGO_PKG_VERSION"), &self.internal_audience];
        parts.extend(self.audience.iter().map(String::as_str));
        let parts: Vec<_> = parts.into_iter().map(str::as_bytes).collect();
        digest::digest(&parts)
    }
}

/// Auth could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The certificate, key or authorities for mTLS cannot be used.
    #[error("cannot set up mTLS")]
    Mtls(#[from] MtlsError),
    /// The policies are invalid.
    #[error("cannot load the policies")]
    Policies(#[from] BundleError),
    /// No signing key could be generated.
    #[error("cannot generate a key for transaction tokens")]
    Key(#[from] MintError),
    /// The issuers are invalid.
    #[error("cannot load the issuers")]
    Issuers(#[from] IssuersFileError),
    /// The stored revocations cannot be read.
    #[error(transparent)]
    Revocations(#[from] RevocationsError),
    /// The audit log cannot be used.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// The peers cannot be reached by these URLs.
    #[error("invalid --peers")]
    Peers(#[from] ChannelError),
    /// An address is in use.
    #[error(transparent)]
    Bind(#[from] BindError),
}

/// Fetches the keys of the issuer of `--issuer` and of those of `--issuers`, as auth does. Returns
/// the name of each issuer, with the error if the fetch failed.
///
/// # Errors
/// If the issuers are invalid.
pub async fn probe_issuers(
    issuer: Option<&str>,
    allow_private_addresses: bool,
    issuers: Option<&std::path::Path>,
) -> Result<Vec<(String, Option<String>)>, IssuersFileError> {
    let flags = |issuer: &str| IssuerFlags {
        issuer: issuer.to_owned(),
        allow_private_addresses,
        tenants: Vec::new(),
    };
    Ok(Issuers::load(issuer.map(flags), issuers, SeenConfig::default())?.probe().await)
}

/// Starts auth.
///
/// # Errors
/// If the policies or issuers are invalid, or an address is in use. An unreachable issuer is not an
/// error: its keys are fetched with the first token.
pub async fn start(config: Config, telemetry: &Telemetry) -> Result<RunningService, StartError> {
    metrics::register();
    let policies = PolicyStore::start(&config.policies, &config.policy_bundles).await?;
    let policies = Arc::new(policies);
    let status = Arc::clone(&policies);
    let status = move || std::future::ready(Json(status.status()));
    let status = Router::new().route(STATUS_PATH, get(status));
    let issuers = Issuers::load(config.issuer_flags(), config.issuers.as_deref(), config.seen)?;
    let issuers = Arc::new(issuers);
    let revocations =
        Revocations::new(config.redis_url.as_ref(), config.revocations_file.as_deref())?;
    let epochs = Epochs::new(DecisionInputs {
        config: config.digest(),
        policies: Arc::clone(&policies),
        issuers: Arc::clone(&issuers),
        revocations: Arc::clone(&revocations),
    });

    let builder = ServiceBuilder::new();
    let peers = Peers::start(&builder, &config.mtls.identity)?;
    let audit = AuditLog::open(&config.audit, &builder, "auth")?;
    audit.observe(&telemetry.acts());
    readiness::watch(&builder, &issuers, &revocations);
    let keys = Keys::new(&config, &peers)?;
    let mut edges = config.mtls_allow_edge;
    if edges.is_empty() {
        edges.extend(peers.sibling("edge"));
    }
    let (readiness, stopping) = (builder.readiness(), builder.stopping());
    builder.spawn(Arc::clone(&policies).follow(audit.clone(), readiness, stopping));
    let (readiness, stopping) = (builder.readiness(), builder.stopping());
    builder.spawn(Arc::clone(&issuers).follow(audit.clone(), readiness, stopping));
    builder.spawn(Arc::clone(&revocations).follow(builder.stopping()));
    builder.spawn(Arc::clone(&epochs).follow(builder.stopping()));
    let routes = keys.peers.routes();
    let api = Api {
        client_tokens: TokenVerifier::new(
            Arc::clone(&issuers),
            Audience::Edge(config.audience),
            &config.refused_tokens,
        ),
        internal_tokens: TokenVerifier::new(
            Arc::clone(&issuers),
            Audience::Own(config.internal_audience.clone()),
            &config.refused_tokens,
        ),
        issuers,
        internal_audience: config.internal_audience,
        policies,
        revocations,
        epochs,
        minter: Minter::new(&config.transaction_issuer, keys.ttl, Arc::clone(&keys.ring)),
        peers: Arc::clone(&keys.peers),
        audit: audit.clone(),
        edges: edges.clone(),
        draining: builder.draining(),
    };
    let service = AuthServiceServer::new(api).max_decoding_message_size(REQUEST_BYTES_MAX);
    let documents = routes.clone().merge(audit.peer_routes());
    let server = GrpcServer::unverified(service).document(documents);
    let mut mtls = config.mtls;
    mtls.mtls_allow.extend(edges);
    if !config.peers.is_empty() {
        let replicas = ReplicaDocuments::new(&peers, &config.peers, peers.id())?;
        exchange_checkpoints(replicas, &audit, &builder);
        mtls.mtls_allow.extend(peers.id().cloned());
    }
    let address = server.accept(&peers, &mtls)?.start(&builder, &config.listen)?;
    keys.start(&builder, audit.clone());
    builder.readiness().set_ready();
    let admin = Admin::new(&config.admin_listen, telemetry).with_routes(routes);
    let operator = status.merge(audit.admin_routes());
    Ok(builder.finish(address, admin.with_operator_routes(operator))?)
}

/// Exchanges checkpoints of the audit log with the other replicas, so that each log is evidence of
/// the others. Edges do the same with this one.
fn exchange_checkpoints(replicas: ReplicaDocuments, audit: &AuditLog, builder: &ServiceBuilder) {
    let (audit, stopping, replicas) = (audit.clone(), builder.stopping(), Arc::new(replicas));
    let send = move |message| {
        let replicas = Arc::clone(&replicas);
        async move {
            let answers = replicas.post(EXCHANGE_PATH, message).await;
            answers.into_iter().map(|answer| (answer.replica, answer.body)).collect()
        }
    };
    builder.spawn(async move { audit.exchange(send, stopping).await });
}

/// The keys of this replica, and the exchange with its peers.
struct Keys {
    ring: Arc<Keyring>,
    peers: Arc<KeyPeers>,
    timing: KeyTiming,
    /// How long one key signs.
    every: Duration,
    /// How long a token is valid.
    ttl: Duration,
}

impl Keys {
    fn new(config: &Config, peers: &Peers) -> Result<Self, StartError> {
        let (timing, ring) = (config.key_timing, Arc::new(Keyring::new()?));
        let ttl = Duration::from_secs(config.transaction_ttl_seconds.into());
        let every = Duration::from_secs(config.transaction_key_seconds.into());
        // Replicas are the same service.
        let replicas = (!config.peers.is_empty())
            .then(|| ReplicaDocuments::new(peers, &config.peers, peers.id()))
            .transpose()?;
        let peers = KeyPeers::new(Arc::clone(&ring), replicas, timing, ttl);
        Ok(Self { ring, peers, timing, every, ttl })
    }

    /// Exchanges keys with the peers, and rotates this replica's own. With peers the service is not
    /// ready until its first key may sign.
    fn start(self, builder: &ServiceBuilder, audit: AuditLog) {
        let Self { ring, peers, timing, every, ttl } = self;
        if peers.exist() {
            let condition = builder.readiness().condition("signing_key", Effect::Required);
            builder.spawn(Arc::clone(&peers).follow(builder.stopping()));
            builder.spawn(Arc::clone(&peers).join(condition, builder.stopping()));
        }
        let stopping = builder.stopping();
        let rotated = move |key: &str| records::key_signs(&audit, key);
        rotated(&ring.newest());
        builder.spawn(async move {
            ring.rotate(every, ttl, timing, &peers, rotated, stopping).await;
        });
    }
}
