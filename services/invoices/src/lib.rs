//! Gets the data out of invoices, and says which rules of EN 16931 they break.

use drawbridge_proto::invoices::v1::invoice_service_server::InvoiceServiceServer;
use drawbridge_sdk::{
    Admin, BindError, GrpcServer, Listen, Running, Starting, Telemetry,
    identity::{Verifier, VerifierError},
};
use url::Url;

use self::{api::InvoiceApi, extract::DOCUMENT_BYTES_MAX};

mod api;
mod check;
mod cii;
mod decimal;
mod error;
mod extract;
mod findings;
#[cfg(test)]
mod invoices;
mod pdf;
mod ubl;
mod values;
mod xml;

/// What a request holds besides its document, in bytes.
const REQUEST_REST_BYTES_MAX: usize = 1024;

/// How the service is set up.
#[derive(Clone, Debug, clap::Args)]
pub struct Config {
    /// Where gRPC is served.
    #[arg(long, default_value = "127.0.0.1:7220")]
    pub listen: Listen,

    /// Where health, readiness and metrics are served.
    #[arg(long, default_value = "127.0.0.1:7221")]
    pub admin_listen: Listen,

    /// Where auth serves the keys of its transaction tokens.
    #[arg(long, default_value = "http://127.0.0.1:7111/.well-known/jwks.json")]
    pub auth_jwks_url: Url,

    /// The `iss` of transaction tokens.
    #[arg(long, default_value = "drawbridge-auth")]
    pub auth_issuer: String,
}

/// The service could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
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
/// When an address cannot be bound.
pub async fn start(config: Config, telemetry: &Telemetry) -> Result<Running, StartError> {
    let verifier = Verifier::new("invoices", &config.auth_issuer, config.auth_jwks_url)?;
    let service = InvoiceServiceServer::new(InvoiceApi::new())
        .max_decoding_message_size(DOCUMENT_BYTES_MAX + REQUEST_REST_BYTES_MAX);
    let starting = Starting::new();
    let address = starting.grpc(&config.listen, GrpcServer::tool_service(service, verifier))?;
    starting.readiness().ready();
    Ok(starting.running(address, Admin::new(&config.admin_listen, telemetry))?)
}
