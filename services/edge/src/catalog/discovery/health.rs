//! Watches a service's health, to notice when it comes back.

use drawbridge_sdk::BalancedChannel;
use tonic::Streaming;
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus,
    health_client::HealthClient,
};

/// The health of the service behind a channel: of one of its replicas, as long as that one lives.
#[derive(Debug)]
pub(super) struct Health {
    client: HealthClient<BalancedChannel>,
    watching: Option<Watching>,
    was_away: bool,
}

#[derive(Debug)]
struct Watching {
    answers: Streaming<HealthCheckResponse>,
    answered: bool,
}

impl Health {
    pub(super) fn new(channel: BalancedChannel) -> Self {
        Self { client: HealthClient::new(channel), watching: None, was_away: false }
    }

    /// Waits until the service, having been away, serves again, or until the replica that is watched goes:
    /// the next may be another version. Without an answer about health it waits for ever.
    pub(super) async fn changed(&mut self) {
        if self.watching.is_none() {
            let watching = self.client.watch(HealthCheckRequest { service: String::new() }).await;
            self.watching = watching
                .ok()
                .map(|answers| Watching { answers: answers.into_inner(), answered: false });
        }
        let Some(watching) = &mut self.watching else { return std::future::pending().await };
        while let Ok(Some(health)) = watching.answers.message().await {
            watching.answered = true;
            let serves = health.status() == ServingStatus::Serving;
            if std::mem::replace(&mut self.was_away, !serves) && serves {
                return;
            }
        }
        let answered = watching.answered;
        self.watching = None;
        if !answered {
            // A service that only ever hangs up has no news; it is asked again after the next poll.
            std::future::pending::<()>().await;
        }
    }
}
