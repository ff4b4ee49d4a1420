use std::{sync::Arc, time::Duration};

use axum::Router;
use prost_reflect::DescriptorPool;
use tokio_util::sync::CancellationToken;
use tonic::{server::NamedService, service::Routes, transport::Server};
use tonic_health::ServingStatus;
use tower::ServiceBuilder;

use crate::{
    admin::Readiness,
    identity::Verifier,
    listen::{Accepted, Address, BindError},
    mtls::{Accept, MtlsError, MtlsServerConfig, Peers},
};

use self::{
    call_layer::CallLayer,
    identity_layer::IdentityLayer,
    message_layer::{MessageLayer, Messages},
};

pub use self::incoming::Peer;
pub(crate) use self::incoming::incoming;

mod call_layer;
mod identity_layer;
mod incoming;
mod message_layer;
mod strings;

/// Calls that one connection may have open at once.
const CONCURRENT_STREAMS_MAX: u32 = 1024;
/// The most metadata that one call may carry, in bytes.
const HEADER_LIST_BYTES_MAX: u32 = 64 * 1024;
/// The largest message that a tool service takes unless it says otherwise, in bytes.
const REQUEST_BYTES_MAX: usize = 4 * 1024 * 1024;
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(20);

/// A gRPC server with what every call needs: request id, trace, deadline, metrics, identity, and health
/// and reflection beside the service itself.
#[derive(Debug)]
pub struct GrpcServer {
    routes: Routes,
    service_name: &'static str,
    descriptors: &'static [u8],
    verifier: Option<Arc<Verifier>>,
    request_bytes_max: usize,
    accept: Accept,
}

impl GrpcServer {
    /// A tool service: every RPC needs a transaction token that names it, and takes one message, which must be the one
    /// that the token is for and hold no NUL in its strings.
    pub fn tool_service<S>(service: S, verifier: Verifier) -> Self
    where
        S: GrpcService,
    {
        Self { verifier: Some(Arc::new(verifier)), ..Self::open(service) }
    }

    /// A service whose RPCs bring their callers' tokens in the request, as auth's do.
    pub fn open<S>(service: S) -> Self
    where
        S: GrpcService,
    {
        Self {
            routes: Routes::new(service),
            service_name: S::NAME,
            descriptors: drawbridge_proto::FILE_DESCRIPTOR_SET,
            verifier: None,
            request_bytes_max: REQUEST_BYTES_MAX,
            accept: Accept::default(),
        }
    }

    /// The largest message that a tool service takes, in bytes: 4 MiB by default.
    #[must_use]
    pub fn request_bytes_max(mut self, bytes: usize) -> Self {
        self.request_bytes_max = bytes;
        self
    }

    /// Lets in by mTLS those that the config allows. Without, everybody is let in, by plaintext and on loopback.
    ///
    /// # Errors
    /// When nobody is allowed.
    pub fn accept(mut self, peers: &Peers, config: &MtlsServerConfig) -> Result<Self, MtlsError> {
        self.accept = peers.accept(config)?;
        Ok(self)
    }

    /// Checks that the service may be served at such an address.
    ///
    /// # Errors
    /// When its peers could not prove there who they are.
    pub(crate) fn check_address(&self, address: &Address) -> Result<(), BindError> {
        self.accept.check_address(address)
    }

    /// Serves a document beside the RPCs, to whoever is let in.
    #[must_use]
    pub fn document(mut self, router: Router) -> Self {
        self.routes = self.routes.into_axum_router().merge(router).into();
        self
    }

    /// Serves these descriptors by reflection: the contract of a service whose protos are its own, as an
    /// encoded `FileDescriptorSet` with source info.
    #[must_use]
    pub fn descriptors(mut self, descriptors: &'static [u8]) -> Self {
        self.descriptors = descriptors;
        self
    }

    /// Whether a tool service is in its own contract: else it would answer no call.
    pub(crate) fn check_contract(&self) -> Result<(), String> {
        if self.verifier.is_none() {
            return Ok(());
        }
        contract_holds(self.descriptors, self.service_name)
    }

    /// Serves until `stopping`, then lets the calls in flight end.
    pub(crate) async fn serve(
        self,
        accepted: Accepted,
        readiness: Readiness,
        stopping: CancellationToken,
    ) {
        let (mut health, health_service) = tonic_health::server::health_reporter();
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(self.descriptors)
            .with_service_name(self.service_name)
            .build_v1();
        let reflection = match reflection {
            Ok(reflection) => reflection,
            Err(error) => {
                tracing::error!(%error, "the contracts' descriptors are broken");
                return;
            }
        };
        let messages = match Messages::new(self.descriptors, self.request_bytes_max) {
            Ok(messages) => self.verifier.is_some().then_some(messages),
            Err(error) => {
                tracing::error!(%error, "the contract's descriptors are broken");
                return;
            }
        };
        let layers = ServiceBuilder::new()
            // Opens the span, notes id and deadline, measures.
            .layer(CallLayer)
            // Refuses whoever has no transaction token for this RPC.
            .option_layer(self.verifier.map(IdentityLayer::new))
            // Refuses messages that the token is not for, and NUL in strings.
            .option_layer(messages.map(MessageLayer::new))
            .into_inner();
        let serving = Server::builder()
            .max_concurrent_streams(CONCURRENT_STREAMS_MAX)
            .http2_max_header_list_size(HEADER_LIST_BYTES_MAX)
            .http2_keepalive_interval(Some(KEEP_ALIVE_INTERVAL))
            .layer(layers)
            .add_routes(self.routes)
            .add_service(health_service)
            .add_service(reflection)
            .serve_with_incoming_shutdown(
                incoming(accepted, self.accept),
                stopping.clone().cancelled_owned(),
            );
        let mut changed = readiness.watch();
        let reporting = async {
            while stopping
                .run_until_cancelled(async {
                    let ready = *changed.borrow_and_update();
                    let status =
                        if ready { ServingStatus::Serving } else { ServingStatus::NotServing };
                    health.set_service_status("", status).await;
                    health.set_service_status(self.service_name, status).await;
                    // The readiness outlives the server, so this waits for a change.
                    let _ = changed.changed().await;
                })
                .await
                .is_some()
            {}
            // Whoever watches would keep the connection, and with it the drain, until its deadline.
            health.clear_service_status("").await;
            health.clear_service_status(self.service_name).await;
            std::future::pending::<()>().await;
        };
        tokio::select! {
            served = serving => if let Err(error) = served {
                tracing::error!(%error, "the gRPC server ended");
            },
            () = reporting => {}
        }
    }
}

fn contract_holds(descriptors: &[u8], service_name: &str) -> Result<(), String> {
    let pool = DescriptorPool::decode(descriptors)
        .map_err(|error| format!("the descriptors of {service_name} are broken: {error}"))?;
    match pool.get_service_by_name(service_name) {
        Some(_) => Ok(()),
        None => Err(format!(
            "the descriptors lack the service {service_name}: give its own with `GrpcServer::descriptors`"
        )),
    }
}

/// What a generated gRPC server is.
pub trait GrpcService:
    tower::Service<
        http::Request<tonic::body::Body>,
        Response = http::Response<tonic::body::Body>,
        Error = std::convert::Infallible,
        Future: Send + 'static,
    > + NamedService
    + Clone
    + Send
    + Sync
    + 'static
{
}

impl<S> GrpcService for S where
    S: tower::Service<
            http::Request<tonic::body::Body>,
            Response = http::Response<tonic::body::Body>,
            Error = std::convert::Infallible,
            Future: Send + 'static,
        > + NamedService
        + Clone
        + Send
        + Sync
        + 'static
{
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Such a service started, and answered every call with UNIMPLEMENTED.
    #[test]
    fn a_tool_service_whose_descriptors_lack_it_does_not_start() {
        let descriptors = drawbridge_proto::FILE_DESCRIPTOR_SET;
        contract_holds(descriptors, "drawbridge.code.v1.CodeService").unwrap();
        let refused = contract_holds(descriptors, "acme.v1.AcmeService").unwrap_err();
        assert!(
            refused.contains("acme.v1.AcmeService") && refused.contains("descriptors"),
            "{refused}"
        );
        assert!(contract_holds(b"no descriptors", "acme.v1.AcmeService").is_err());
    }
}
