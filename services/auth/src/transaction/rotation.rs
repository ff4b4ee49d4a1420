//! When keys are published, sign, and are withdrawn.

use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{
    keyring::{Keyring, SigningKey},
    peers::KeyPeers,
};

/// The times of publication, exchange and withdrawal of keys. The defaults are for every use but
/// tests: verifiers rely on them.
#[derive(Clone, Copy, Debug)]
pub struct KeyTiming {
    /// How long a key is published before it signs: verifiers refresh their caches within it.
    pub lead: Duration,
    /// The same for the first key of a replica with peers. A verifier that meets an unknown key
    /// fetches the keys again, unless it has done so in the last five seconds.
    pub lead_at_start: Duration,
    /// How much longer than the last token that it signed a key is published, for clock skew. A
    /// peer's key, after the peer was last seen.
    pub grace: Duration,
    /// Time between two polls of the peers.
    pub poll_interval: Duration,
    /// Time between two polls while a key waits for its confirmation by the peers.
    pub confirm_interval: Duration,
    /// How long a key waits for peers that are silent, or do not find this replica, beyond its time
    /// of publication: longer than name servers cache the addresses of a service.
    pub confirm_timeout: Duration,
    /// A replica that has not polled for so long was suspended: its peers may have withdrawn its
    /// key, so it signs nothing until it has polled them.
    pub stall_max: Duration,
}

impl Default for KeyTiming {
    fn default() -> Self {
        Self {
            lead: Duration::from_secs(90),
            lead_at_start: Duration::from_secs(6),
            grace: Duration::from_secs(30),
            poll_interval: Duration::from_secs(5),
            confirm_interval: Duration::from_millis(500),
            confirm_timeout: Duration::from_secs(45),
            stall_max: Duration::from_secs(20),
        }
    }
}

impl Keyring {
    /// Rotates the key every `every` until `stopping`: publishes the next key, signs with it once
    /// all peers hold it, then withdraws the previous one, when tokens of lifetime `ttl` have
    /// expired. A verifier that respects KEYS_MAX_AGE never sees an unknown key.
    pub(crate) async fn rotate(
        &self,
        every: Duration,
        ttl: Duration,
        timing: KeyTiming,
        peers: &KeyPeers,
        stopping: CancellationToken,
    ) {
        let rotating = async {
            let mut signs_until = Instant::now() + every;
            loop {
                sleep_until(signs_until - timing.lead).await;
                let next = match SigningKey::generate() {
                    Ok(next) => next,
                    Err(error) => {
                        tracing::error!(
                            %error,
                            "cannot generate the next key for transaction tokens; \
                             the current key remains in use"
                        );
                        signs_until += timing.lead;
                        continue;
                    }
                };
                let kid = next.id().to_owned();
                self.publish(next.public.clone());
                tokio::join!(sleep(timing.lead), peers.confirmed(&kid, timing.lead));
                self.sign_with(next);
                signs_until = Instant::now() + every;
                tracing::info!(kid, "rotated the key of transaction tokens");
                sleep(ttl + timing.grace).await;
                self.withdraw_previous();
            }
        };
        stopping.run_until_cancelled(rotating).await;
    }
}
