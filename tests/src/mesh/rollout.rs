//! A tool service that comes back with another contract.

use drawbridge_cli::mesh::Hosted;
use drawbridge_sdk::{Listen, TelemetryConfig};
use tokio_util::task::AbortOnDropHandle;
use url::Url;

use super::{Edge, TestMesh};
use crate::conformance::Conformance;

impl TestMesh {
    /// As [`Self::conformance`], with a service that comes back whenever one of its tools has changed its contract, as
    /// in a rollout.
    pub async fn changing_conformance(&self) -> (AbortOnDropHandle<()>, Edge) {
        let (service, mut hosted, edge) = self.conformance(|_| {}).await;
        let (keys, telemetry) = (self.transaction_keys(), self.config.telemetry.clone());
        let mut changed = service.changed.subscribe();
        let rollouts = async move {
            while changed.changed().await.is_ok() {
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
) -> Hosted {
    let service = service.clone();
    let hosted = Hosted::start("conformance", telemetry, |telemetry| async move {
        service.start(listen, keys, &telemetry).await
    });
    hosted.await.expect("the service")
}
