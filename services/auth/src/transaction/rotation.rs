//! When keys are published, sign, and are withdrawn.

use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{
    KeyTiming,
    keyring::{Keyring, SigningKey},
    peers::KeyPeers,
};

impl Keyring {
    /// Rotates the key every `every` until `stopping`: publishes the next key, signs with it once
    /// all peers hold it, then withdraws the previous one, when tokens of lifetime `ttl` have
    /// expired. `rotated` is called with the id of each next key. A verifier that respects KEYS_MAX_AGE never sees an unknown key.
    pub(crate) async fn rotate(
        &self,
        every: Duration,
        ttl: Duration,
        timing: KeyTiming,
        peers: &KeyPeers,
        rotated: impl Fn(&str),
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
                rotated(&kid);
                tracing::info!(kid, "rotated the key of transaction tokens");
                sleep(ttl + timing.grace).await;
                self.withdraw_previous();
            }
        };
        stopping.run_until_cancelled(rotating).await;
    }
}
