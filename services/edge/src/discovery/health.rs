//! Watches the health of a service, to notice when it is available again.

use drawbridge_transport::BalancedChannel;
use tonic::Streaming;
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus,
    health_client::HealthClient,
};

/// Watches the health of one replica behind a channel, for as long as that replica lives.
#[derive(Debug)]
pub(super) struct HealthWatcher {
    client: HealthClient<BalancedChannel>,
    stream: Option<HealthStream>,
    was_unavailable: bool,
}

#[derive(Debug)]
struct HealthStream {
    responses: Streaming<HealthCheckResponse>,
    has_responded: bool,
}

impl HealthWatcher {
    pub(super) fn new(channel: BalancedChannel) -> Self {
        Self { client: HealthClient::new(channel), stream: None, was_unavailable: false }
    }

    /// Waits until the service serves again after it did not, or until the watched replica ends:
    /// the next one may run another version. Without a health response it waits forever.
    pub(super) async fn changed(&mut self) {
        if self.stream.is_none() {
            let response = self.client.watch(HealthCheckRequest { service: String::new() }).await;
            self.stream = response.ok().map(|response| HealthStream {
                responses: response.into_inner(),
                has_responded: false,
            });
        }
        let Some(stream) = &mut self.stream else { return std::future::pending().await };
        while let Ok(Some(health)) = stream.responses.message().await {
            stream.has_responded = true;
            let is_serving = health.status() == ServingStatus::Serving;
            if std::mem::replace(&mut self.was_unavailable, !is_serving) && is_serving {
                return;
            }
        }
        let has_responded = stream.has_responded;
        self.stream = None;
        if !has_responded {
            // A service without a health service only closes the stream; the next poll retries.
            std::future::pending::<()>().await;
        }
    }
}
