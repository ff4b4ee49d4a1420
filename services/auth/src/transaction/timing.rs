use std::time::Duration;

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
    /// A replica that has not polled for longer was suspended: its peers may have withdrawn its
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
