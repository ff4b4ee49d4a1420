use std::{sync::Arc, time::Duration};

use axum::Router;
use prost_reflect::DescriptorPool;
use tokio_util::sync::CancellationToken;
use tonic::{server::NamedService, service::Routes, transport::Server};
use tonic_health::{ServingStatus, server::HealthReporter};

use crate::{
    mtls::{Acceptor, MtlsError, MtlsServerConfig, Peers},
    transaction_token::Verifier,
};
use drawbridge_runtime::{
    Accepted, Address, BindError, Listen, LogLimit, Readiness, ServiceBuilder, ServiceTasks, metric,
};

use self::{
    call_layer::CallLayer,
    drain_layer::{DrainLayer, watch_paths},
    message_layer::{MessageChecker, MessageLayer},
    transaction_token_layer::TransactionTokenLayer,
};

pub use self::incoming::Peer;
pub(crate) use self::incoming::incoming;
use crate::metrics::METRICS;

mod call_layer;
mod drain_layer;
mod incoming;
mod message_layer;
mod nul;
mod transaction_token_layer;

/// Calls that one connection may have open at once.
const CONCURRENT_STREAMS_MAX: u32 = 1024;
/// The most metadata of one call, in bytes.
const HEADER_LIST_BYTES_MAX: u32 = 64 * 1024;
/// The default of the largest request message of a tool service, in bytes.
const REQUEST_BYTES_MAX: usize = 4 * 1024 * 1024;
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(20);

/// A gRPC server with what every call needs: request id, trace, deadline, metrics, caller
/// verification, and, next to the service itself, health and reflection.
#[derive(Debug)]
pub struct GrpcServer {
    routes: Routes,
    service_name: &'static str,
    descriptors: &'static [u8],
    verifier: Option<Arc<Verifier>>,
    request_bytes_max: usize,
    accept: Acceptor,
}

impl GrpcServer {
    /// A tool service. Every RPC requires a transaction token that names it, and takes one message,
    /// which must be the one that the token is for and must have no NUL in its strings.
    pub fn tool_service<S>(service: S, verifier: Verifier) -> Self
    where
        S: GrpcService,
    {
        Self { verifier: Some(Arc::new(verifier)), ..Self::unverified(service) }
    }

    /// A service without transaction tokens: its RPCs carry their callers' tokens in the request,
    /// as auth's do.
    pub fn unverified<S>(service: S) -> Self
    where
        S: GrpcService,
    {
        Self {
            routes: Routes::new(service),
            service_name: S::NAME,
            descriptors: drawbridge_proto::FILE_DESCRIPTOR_SET,
            verifier: None,
            request_bytes_max: REQUEST_BYTES_MAX,
            accept: Acceptor::default(),
        }
    }

    /// Sets the largest request message of a tool service, in bytes: 4 MiB by default.
    #[must_use]
    pub fn request_bytes_max(mut self, bytes: usize) -> Self {
        self.request_bytes_max = bytes;
        self
    }

    /// Accepts by mTLS the peers that the config allows. By default every peer is accepted, in
    /// plaintext on loopback.
    ///
    /// # Errors
    /// When the config allows no peer.
    pub fn accept(mut self, peers: &Peers, config: &MtlsServerConfig) -> Result<Self, MtlsError> {
        self.accept = peers.acceptor(config)?;
        Ok(self)
    }

    /// Serves documents next to the RPCs, to every accepted peer.
    #[must_use]
    pub fn document(mut self, router: Router) -> Self {
        self.routes = self.routes.into_axum_router().merge(router).into();
        self
    }

    /// Serves these descriptors by reflection: the contract of a service with its own protos, as an
    /// encoded `FileDescriptorSet` with source info.
    #[must_use]
    pub fn descriptors(mut self, descriptors: &'static [u8]) -> Self {
        self.descriptors = descriptors;
        self
    }

    /// Serves gRPC with health and reflection, as a part of this service.
    ///
    /// # Errors
    /// When the address cannot be bound or must not be served in plaintext, or when a tool service
    /// is not in its descriptors.
    pub fn start(self, service: &ServiceBuilder, listen: &Listen) -> Result<Address, BindError> {
        metric::describe(METRICS);
        self.accept.check_address(&listen.address()?)?;
        let (accepted, address) = listen.accept()?;
        self.check_contract().map_err(|why| BindError::refused(address.clone(), why))?;
        service.spawn_server(self.serve(accepted, service.readiness(), service.tasks()));
        Ok(address)
    }

    /// Checks that a tool service is in its own contract; otherwise it would reject every call.
    fn check_contract(&self) -> Result<(), String> {
        if self.verifier.is_none() {
            return Ok(());
        }
        check_descriptors(self.descriptors, self.service_name)
    }

    /// Serves until the service drains, then lets calls in flight finish.
    async fn serve(self, accepted: Accepted, readiness: Readiness, tasks: ServiceTasks) {
        let draining = tasks.draining();
        let (health, health_service) = tonic_health::server::health_reporter();
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(self.descriptors)
            .with_service_name(self.service_name)
            .build_v1();
        let reflection = match reflection {
            Ok(reflection) => reflection,
            Err(error) => {
                tracing::error!(%error, "the contract's descriptors are invalid");
                return;
            }
        };
        let refusals = Arc::new(LogLimit::default());
        let checker =
            MessageChecker::new(self.descriptors, self.request_bytes_max, Arc::clone(&refusals));
        let read = checker.and_then(|checker| Ok((checker, watch_paths(self.descriptors)?)));
        let (checker, watches) = match read {
            Ok((checker, watches)) => (self.verifier.is_some().then_some(checker), watches),
            Err(error) => {
                tracing::error!(%error, "the contract's descriptors are invalid");
                return;
            }
        };
        let layers = tower::ServiceBuilder::new()
            // Opens the span, records id and deadline, measures.
            .layer(CallLayer)
            // Ends calls with an error when the drain timeout has passed, and watches before.
            .layer(DrainLayer::new(&tasks, watches))
            // Rejects callers without a transaction token for this RPC.
            .option_layer(
                self.verifier.map(|verifier| TransactionTokenLayer::new(verifier, refusals)),
            )
            // Rejects messages that the token is not for, and NUL in strings.
            .option_layer(checker.map(MessageLayer::new))
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
                draining.clone().cancelled_owned(),
            );
        let reporting = report_health(health, self.service_name, &readiness, &draining);
        tokio::select! {
            served = serving => if let Err(error) = served {
                tracing::error!(%error, "the gRPC server ended");
            },
            () = reporting => {}
        }
    }
}

/// Reports the readiness of the service as its health, and does not return.
async fn report_health(
    health: HealthReporter,
    service_name: &str,
    readiness: &Readiness,
    draining: &CancellationToken,
) {
    let mut changes = readiness.subscribe();
    let reporting = async {
        loop {
            let ready = *changes.borrow_and_update();
            let status = if ready { ServingStatus::Serving } else { ServingStatus::NotServing };
            health.set_service_status("", status).await;
            health.set_service_status(service_name, status).await;
            // The readiness outlives the server, so this waits for a change.
            let _ = changes.changed().await;
        }
    };
    draining.run_until_cancelled(reporting).await;
    // Watchers would hold their connections open, and with them the drain, until its timeout.
    let mut health = health;
    health.clear_service_status("").await;
    health.clear_service_status(service_name).await;
    std::future::pending::<()>().await;
}

fn check_descriptors(descriptors: &[u8], service_name: &str) -> Result<(), String> {
    let pool = DescriptorPool::decode(descriptors)
        .map_err(|error| format!("the descriptors of {service_name} are invalid: {error}"))?;
    match pool.get_service_by_name(service_name) {
        Some(_) => Ok(()),
        None => Err(format!(
            "the descriptors do not contain the service {service_name}: \
             pass its own with `GrpcServer::descriptors`"
        )),
    }
}

/// A generated gRPC server.
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

    /// Such a service once started, and answered every call with UNIMPLEMENTED.
    #[test]
    fn a_tool_service_that_is_not_in_its_descriptors_does_not_start() {
        let descriptors = drawbridge_proto::FILE_DESCRIPTOR_SET;
        check_descriptors(descriptors, "drawbridge.code.v1.CodeService").unwrap();
        let refused = check_descriptors(descriptors, "acme.v1.AcmeService").unwrap_err();
        assert!(
            refused.contains("acme.v1.AcmeService") && refused.contains("descriptors"),
            "{refused}"
        );
        assert!(check_descriptors(b"no descriptors", "acme.v1.AcmeService").is_err());
    }
}
