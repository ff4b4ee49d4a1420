//! Who is calling, and what they may do.
//!
//! Auth verifies outside access tokens, decides with Cedar, and signs the transaction tokens that carry a
//! caller to one RPC of one tool service. It is the only service that knows either.

use std::{path::PathBuf, sync::Arc, time::Duration};

use axum::{Json, Router, http::header::CACHE_CONTROL, routing::get};
use clap::ArgGroup;
use drawbridge_proto::auth::v1::auth_service_server::AuthServiceServer;
use drawbridge_sdk::{
    Admin, BindError, GrpcServer, Listen, MtlsError, MtlsServerConfig, RunningService,
    ServiceBuilder, SpiffeId, Telemetry, url_text,
};
use secrecy::SecretString;

use crate::{
    api::Api,
    authn::{Audience, Given, Issuers, TokenVerifier},
    decision_log::{DecisionLog, DecisionLogConfig, DecisionLogError},
    epoch::{Ending, Epochs},
    policy::{PolicyError, PolicyStore},
    revocation::{Revocations, RevocationsError},
    transaction::{KEYS_MAX_AGE, MintError, Minter, ROTATION_SECONDS_MIN, Rotation},
};

pub use crate::authn::{Identity, IssuersFileError, RefusedTokensConfig, SeenConfig};

mod api;
mod authn;
pub mod decision_log;
mod epoch;
pub mod policy;
mod revocation;
mod transaction;

/// The largest question, in bytes: it holds the arguments of a request of an edge, twice where some are sensitive.
const QUESTION_BYTES_MAX: usize = 16 * 1024 * 1024;

/// How auth runs.
#[derive(Clone, Debug, clap::Args)]
#[command(group = ArgGroup::new("accepted").args(["issuer", "issuers"]).required(true).multiple(true))]
pub struct Config {
    /// Where to serve gRPC: an address and a port, or `unix:/path` for this host alone.
    #[arg(long, default_value = "127.0.0.1:7110")]
    pub listen: Listen,

    /// Where to serve health, metrics and the keys of transaction tokens.
    #[arg(long, default_value = "127.0.0.1:7111")]
    pub admin_listen: Listen,

    /// An issuer of access tokens, exactly as it writes itself in `iss`: the short way for one whose tokens name
    /// the edge's URLs and whose keys its metadata leads to. It adds to those of --issuers.
    #[arg(long, value_parser = url_text)]
    pub issuer: Option<String>,

    /// A tenant that --issuer may name in its tokens; `*` stands for any. Absent: any while it is the only issuer, and
    /// none beside others. Repeat, or separate by commas.
    #[arg(long, value_name = "TENANT", value_delimiter = ',', requires = "issuer")]
    pub issuer_tenants: Vec<String>,

    /// Let the keys of --issuer come by http, and from a loopback or private address.
    #[arg(long, requires = "issuer")]
    pub allow_private_addresses: bool,

    /// A TOML file of issuers, each with audiences, keys and claims of its own.
    #[arg(long, value_name = "FILE")]
    pub issuers: Option<PathBuf>,

    /// The edge's URLs. An access token must name one of them, unless its issuer in --issuers has audiences of its
    /// own. Repeat, or separate by commas.
    #[arg(long, required = true, value_delimiter = ',')]
    pub audience: Vec<String>,

    /// The audience that an internal caller's token must name to be exchanged.
    #[arg(long, default_value = "drawbridge-auth")]
    pub internal_audience: String,

    /// The folder of Cedar policies.
    #[arg(long, default_value = "policies")]
    pub policies: PathBuf,

    /// The `iss` of transaction tokens.
    #[arg(long, default_value = "drawbridge-auth")]
    pub transaction_issuer: String,

    /// How long a transaction token is valid, in seconds.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(5..=60))]
    pub transaction_ttl_seconds: u32,

    /// For how long one key signs transaction tokens, in seconds.
    #[arg(long, default_value_t = 86_400, value_parser = clap::value_parser!(u32).range(ROTATION_SECONDS_MIN..))]
    pub transaction_key_seconds: u32,

    /// Redis (`redis://`, `redis-sentinel://` or `redis-cluster://`), where replicas share what is revoked. Absent:
    /// revocations are this replica's alone, and end with it.
    #[arg(long, hide_env_values = true)]
    pub redis_url: Option<SecretString>,

    /// A file that holds what is revoked, so that a restart forgets none of it: for a single replica without Redis. It is
    /// made for this user alone to read.
    #[arg(long, value_name = "FILE")]
    pub revocations_file: Option<PathBuf>,

    /// How tokens that are not good are remembered.
    #[command(flatten)]
    pub refused_tokens: RefusedTokensConfig,

    /// What is remembered of verified tokens.
    #[command(flatten)]
    pub seen: SeenConfig,
    /// What is written down of decisions.
    #[command(flatten)]
    pub decision_log: DecisionLogConfig,

    /// Who may call, and what they are shown.
    #[command(flatten)]
    pub mtls: MtlsServerConfig,

    /// The SPIFFE id of an edge: nobody else may ask about clients' access tokens. Absent: auth's own with `edge` as its
    /// last segment. Repeat, or separate by commas.
    #[arg(
        long,
        value_name = "SPIFFE_ID",
        value_delimiter = ',',
        requires = "mtls_certificate_file",
        help_heading = "Between services"
    )]
    pub mtls_allow_edge: Vec<SpiffeId>,
}

/// Auth could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// What auth shows to others cannot be used.
    #[error("cannot set up mTLS")]
    Mtls(#[from] MtlsError),
    /// The policies are not right.
    #[error("cannot load the policies")]
    Policies(#[from] PolicyError),
    /// No signing key could be made.
    #[error("cannot make a key for transaction tokens")]
    Key(#[from] MintError),
    /// The issuers are not right.
    #[error("cannot load the issuers")]
    Issuers(#[from] IssuersFileError),
    /// What was revoked before cannot be had.
    #[error(transparent)]
    Revocations(#[from] RevocationsError),
    /// The decision log cannot be written.
    #[error(transparent)]
    DecisionLog(#[from] DecisionLogError),
    /// An address is taken.
    #[error(transparent)]
    Bind(#[from] BindError),
}

/// Asks the issuer of `--issuer` and those of `--issuers` for their keys, as auth does: the name of each, and why there
/// is no answer.
///
/// # Errors
/// When the issuers are not right.
pub async fn reach_issuers(
    issuer: Option<&str>,
    allow_private_addresses: bool,
    issuers: Option<&std::path::Path>,
) -> Result<Vec<(String, Option<String>)>, IssuersFileError> {
    let given = |issuer: &str| Given {
        issuer: issuer.to_owned(),
        allow_private_addresses,
        tenants: Vec::new(),
    };
    Ok(Issuers::load(issuer.map(given), issuers, SeenConfig::default())?.reach().await)
}

/// Starts auth.
///
/// # Errors
/// When the policies or issuers are not right, or an address is taken. An issuer that is down is no error: its keys
/// are fetched when the first token comes.
pub async fn start(config: Config, telemetry: &Telemetry) -> Result<RunningService, StartError> {
    let policies = Arc::new(PolicyStore::open(&config.policies)?);
    let ttl = Duration::from_secs(config.transaction_ttl_seconds.into());
    let minter = Arc::new(Minter::new(&config.transaction_issuer, ttl)?);
    let allow_private_addresses = config.allow_private_addresses;
    let tenants = config.issuer_tenants;
    let flags = config.issuer.map(|issuer| Given { issuer, allow_private_addresses, tenants });
    let issuers = Arc::new(Issuers::load(flags, config.issuers.as_deref(), config.seen)?);
    let revocations =
        Revocations::new(config.redis_url.as_ref(), config.revocations_file.as_deref())?;
    let epochs = Epochs::new();

    let starting = ServiceBuilder::new();
    let peers = starting.peers(&config.mtls.own)?;
    let mut edges = config.mtls_allow_edge;
    if edges.is_empty() {
        edges.extend(peers.sibling("edge"));
    }
    starting.spawn(Arc::clone(&policies).follow(starting.readiness(), starting.stopping()));
    starting.spawn(Arc::clone(&revocations).follow(starting.readiness(), starting.stopping()));
    starting.spawn(Arc::clone(&epochs).end_with(
        policies.changes(),
        Ending::Rules,
        starting.stopping(),
    ));
    starting.spawn(Arc::clone(&epochs).end_with(
        issuers.changes(),
        Ending::Rules,
        starting.stopping(),
    ));
    starting.spawn(Arc::clone(&epochs).end_with(
        revocations.changes(),
        Ending::Revocations,
        starting.stopping(),
    ));

    let rotation = Rotation::new(Duration::from_secs(config.transaction_key_seconds.into()), ttl);
    let (rotating, stopping) = (Arc::clone(&minter), starting.stopping());
    starting.spawn(async move { rotating.rotate(rotation, stopping).await });

    let published = Arc::clone(&minter);
    let cached = format!("max-age={}", KEYS_MAX_AGE.as_secs());
    let keys =
        move || std::future::ready(([(CACHE_CONTROL, cached.clone())], Json(published.jwks())));
    let keys = Router::new().route("/.well-known/jwks.json", get(keys));
    let api = Api {
        outside: TokenVerifier::new(
            Arc::clone(&issuers),
            Audience::Edge(config.audience),
            &config.refused_tokens,
        ),
        inside: TokenVerifier::new(
            Arc::clone(&issuers),
            Audience::Own(config.internal_audience.clone()),
            &config.refused_tokens,
        ),
        issuers,
        internal_audience: config.internal_audience,
        policies,
        revocations,
        epochs,
        minter,
        log: DecisionLog::open(&config.decision_log, &starting)?,
        edges: edges.clone(),
        stopping: starting.stopping(),
    };
    let service = AuthServiceServer::new(api).max_decoding_message_size(QUESTION_BYTES_MAX);
    let server = GrpcServer::open(service).document(keys.clone());
    let mut mtls = config.mtls;
    mtls.mtls_allow.extend(edges);
    let address = starting.grpc(&config.listen, server.accept(&peers, &mtls)?)?;
    starting.readiness().ready();
    Ok(starting.running(address, Admin::new(&config.admin_listen, telemetry).with(keys))?)
}
