//! A tool service that restarts with another contract.

use drawbridge_mesh::HostedService;
use drawbridge_runtime::{Listen, TelemetryConfig};
use tokio_util::task::AbortOnDropHandle;
use url::Url;

use super::{Edge, TestMesh};
use crate::conformance::Conformance;

impl TestMesh {
    /// Like [`Self::conformance`], with a service that restarts whenever one of its tools changes
    /// its contract, as in a rollout.
    pub async fn conformance_with_rollouts(&self) -> (AbortOnDropHandle<()>, Edge) {
        let (service, mut hosted, edge) = self.conformance(|_| {}).await;
        let (keys, telemetry) = (self.transaction_keys(), self.config.telemetry.clone());
        let mut changes = service.changes.subscribe();
        let rollouts = async move {
            while changes.changed().await.is_ok() {
                let address = hosted.running.address.tcp().expect("an address");
                hosted.stop().await;
                let (listen, _) = Listen::bind(address).expect("the same port");
                hosted = host(&service, listen, keys.clone(), &telemetry).await;
            }
        };
        (AbortOnDropHandle::new(tokio::spawn(rollouts)), edge)
    }
}

/// Starts the conformance service.
pub(super) async fn host(
    service: &Conformance,
    listen: Listen,
    keys: Url,
    telemetry: &TelemetryConfig,
) -> HostedService {
    let service = service.clone();
    let hosted = HostedService::start("conformance", telemetry, |telemetry| async move {
        service.start(listen, keys, &telemetry).await
    });
    hosted.await.expect("the service")
}
