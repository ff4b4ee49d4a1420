//! The replicas of auth: each one is live while its epoch stream is.

use std::{
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use drawbridge_proto::auth::v1::{
    WatchRequest, WatchResponse, auth_service_client::AuthServiceClient,
};
use drawbridge_transport::{Replica, ReplicaCounts, ReplicaFollower};
use tokio::{sync::watch, time::timeout};
use tonic::{Status, Streaming};

use super::epochs::{Epochs, ReplicaEpoch};
use crate::metrics::AUTH_REPLICAS;

/// How long a replica may take to send its first epoch.
const FIRST_EPOCH_TIMEOUT: Duration = Duration::from_secs(2);
/// A replica is silent when this many of its heartbeats are missing.
const HEARTBEATS_MISSED: u32 = 3;
/// How often a replica of an earlier version sends its epoch, which does not announce it.
const HEARTBEAT_UNANNOUNCED: Duration = Duration::from_secs(1);
/// How much longer a silent replica is waited for. A message may have arrived and not been read,
/// because this process was suspended or is overloaded.
const GRACE: Duration = Duration::from_millis(200);
/// How long the only live replica may be silent beyond that: without it nothing is allowed, and it
/// may be overloaded.
const LAST_SILENCE_MAX: Duration = Duration::from_secs(2);

/// Follows each replica of auth by its epoch stream.
pub(super) fn follower(epochs: &Arc<Epochs>) -> ReplicaFollower {
    let epochs = Arc::clone(epochs);
    ReplicaFollower::new("auth", move |replica| {
        let epochs = Arc::clone(&epochs);
        Box::pin(async move { follow(&epochs, replica).await })
    })
}

/// Reads the epochs of one replica until its stream ends, fails or is silent.
async fn follow(epochs: &Epochs, replica: &mut Replica) -> Result<(), Status> {
    let mut client = AuthServiceClient::new(replica.channel());
    let opening = timeout(FIRST_EPOCH_TIMEOUT, client.watch(WatchRequest {})).await;
    let mut stream = opening.map_err(|_| silent())??.into_inner();
    let announced = epochs.join();
    let mut silence_max = FIRST_EPOCH_TIMEOUT;
    while let Some(message) = next(&mut stream, silence_max, &announced).await? {
        silence_max = silence_max_of(&message);
        announced.announce(message.epoch, Instant::now() + silence_max);
        replica.set_live(message.revoked);
    }
    Ok(())
}

fn silence_max_of(message: &WatchResponse) -> Duration {
    let heartbeat = match message.heartbeat_ms {
        0 => HEARTBEAT_UNANNOUNCED,
        announced => Duration::from_millis(announced.into()).min(HEARTBEAT_UNANNOUNCED),
    };
    heartbeat * HEARTBEATS_MISSED
}

/// The next message of a replica that is not silent.
async fn next(
    stream: &mut Streaming<WatchResponse>,
    silence_max: Duration,
    announced: &ReplicaEpoch<'_>,
) -> Result<Option<WatchResponse>, Status> {
    let mut message = pin!(stream.message());
    if let Ok(message) = timeout(silence_max, &mut message).await {
        return message;
    }
    let mut waited = Duration::ZERO;
    loop {
        if let Ok(message) = timeout(GRACE, &mut message).await {
            return message;
        }
        waited += GRACE;
        if waited > LAST_SILENCE_MAX || announced.has_other_live() {
            return Err(silent());
        }
    }
}

fn silent() -> Status {
    Status::deadline_exceeded("it is silent")
}

/// Publishes how many replicas there are, until their channel is dropped.
pub(super) async fn publish_counts(mut counts: watch::Receiver<ReplicaCounts>) {
    let [known, live] = ["known", "live"].map(|state| AUTH_REPLICAS.with([state.into()]));
    loop {
        let now = *counts.borrow_and_update();
        known.set(f64::from(u32::try_from(now.known).unwrap_or(u32::MAX)));
        live.set(f64::from(u32::try_from(now.live).unwrap_or(u32::MAX)));
        if counts.changed().await.is_err() {
            return;
        }
    }
}
