//! Who is calling, and what they may do.
//!
//! Auth verifies outside access tokens, decides with Cedar, and signs the transaction tokens that carry a
//! caller to one RPC of one tool service. It is the only service that knows either.

use std::{path::PathBuf, sync::Arc};

use axum::{Json, Router, http::header::CACHE_CONTROL, routing::get};
use drawbridge_proto::auth::v1::auth_service_server::AuthServiceServer;
use drawbridge_sdk::{Admin, BindError, GrpcServer, Listen, Running, Starting, Telemetry, jwks::http_client};

pub use crate::access_token::Identity;
use crate::{
    access_token::TokenVerifier,
    api::Api,
    policy::{PolicyError, PolicyStore},
    transaction::{MintError, Minter},
};

mod access_token;
mod api;
pub mod decision_log;
pub mod policy;
mod transaction;

/// How auth runs.
#[derive(Clone, Debug, clap::Args)]
pub struct Config {
    /// Where to serve gRPC.
    #[arg(long, default_value = "127.0.0.1:7110")]
    pub listen: Listen,

    /// Where to serve health, metrics and the keys of transaction tokens.
    #[arg(long, default_value = "127.0.0.1:7111")]
    pub admin_listen: Listen,

    /// The issuer of access tokens, exactly as it writes itself in `iss`.
    #[arg(long)]
    pub issuer: String,

    /// Audiences of which an access token must name one: the edge's URLs. Repeat, or separate by commas.
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
}

/// Auth could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The policies are not right.
    #[error("cannot load the policies")]
    Policies(#[from] PolicyError),
    /// No signing key could be made.
    #[error("cannot make a key for transaction tokens")]
    Key(#[from] MintError),
    /// No HTTP client could be made.
    #[error("cannot make an HTTP client for the issuer's keys")]
    Http(#[from] reqwest::Error),
    /// An address is taken.
    #[error(transparent)]
    Bind(#[from] BindError),
}

/// Starts auth.
///
/// # Errors
/// When the policies are not right or an address is taken. An issuer that is down is no error: its keys
/// are fetched when the first token comes.
pub async fn start(config: Config, telemetry: &Telemetry) -> Result<Running, StartError> {
    let policies = Arc::new(PolicyStore::open(&config.policies)?);
    let minter = Minter::new(&config.transaction_issuer, config.transaction_ttl_seconds)?;
    let http = http_client()?;
    let outside = TokenVerifier::new(&config.issuer, &config.audience, http.clone());
    let inside = TokenVerifier::new(&config.issuer, std::slice::from_ref(&config.internal_audience), http);

    let keys = minter.jwks();
    let keys = Router::new()
        .route("/.well-known/jwks.json", get(async || ([(CACHE_CONTROL, "max-age=60")], Json(keys))));
    let api = Api::new(outside, inside, config.internal_audience, Arc::clone(&policies), minter);

    let starting = Starting::new();
    starting.spawn(policies.follow(starting.readiness(), starting.stopping()));
    let address = starting.grpc(&config.listen, GrpcServer::open(AuthServiceServer::new(api)))?;
    starting.readiness().ready();
    Ok(starting.running(address, Admin::new(&config.admin_listen, telemetry).with(keys))?)
}
