//! TLS handshakes in progress: bounded per address and in total. Handshakes of silent clients are
//! evicted first.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::sync::CancellationToken;

use crate::metrics::SERVER_HANDSHAKES_FAILED;

/// What clients may use of a TLS port before they are authenticated.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "TLS handshakes")]
pub struct HandshakeLimits {
    /// How many TLS handshakes may be in progress. One more evicts the oldest whose client has not
    /// sent a byte, or else one of the address that has the most.
    #[arg(
        long,
        default_value_t = 1024,
        value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..)
    )]
    pub handshakes_max: usize,

    /// How many of them one address, or one IPv6 /64 network, may have. One more evicts its oldest
    /// whose client has not sent a byte; if all have sent one, the new connection is closed.
    #[arg(
        long,
        default_value_t = 128,
        value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..)
    )]
    pub handshakes_per_address_max: usize,

    /// How long a TLS handshake may take, in milliseconds.
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub handshake_timeout_ms: u64,
}

impl Default for HandshakeLimits {
    fn default() -> Self {
        crate::parse_defaults(&[])
    }
}

/// Why a TLS handshake with a client failed.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// It failed.
    #[error("the handshake failed")]
    Tls(#[source] io::Error),
    /// It took too long.
    #[error("the handshake took too long")]
    Timeout,
    /// It was evicted in favor of another.
    #[error("the handshake was evicted in favor of another")]
    Evicted,
    /// No slot is free, and no other handshake may be evicted.
    #[error("too many handshakes are in progress")]
    TooMany,
}

/// Connections of services that are not accepted are counted from zero for these reasons.
pub fn count_failed_handshakes_from_zero(reasons: &[&'static str]) {
    SERVER_HANDSHAKES_FAILED.start_at_zero(reasons.iter().map(|reason| [(*reason).into()]));
}

/// Counts a connection of a service that was not accepted.
pub fn count_failed_handshake(reason: &'static str) {
    SERVER_HANDSHAKES_FAILED.with([reason.into()]).increment(1);
}

/// The handshakes of one port.
#[derive(Debug)]
pub struct Handshakes {
    limits: HandshakeLimits,
    in_progress: Mutex<InProgress>,
}

/// Ids grow, so the first is the oldest.
#[derive(Debug, Default)]
struct InProgress {
    next_id: u64,
    handshakes: BTreeMap<u64, Handshake>,
}

#[derive(Debug)]
struct Handshake {
    network: IpAddr,
    /// Whether the client has not sent a byte yet.
    is_silent: bool,
    evicted: CancellationToken,
}

impl Handshakes {
    /// No handshake is in progress yet.
    #[must_use]
    pub fn new(limits: HandshakeLimits) -> Self {
        Self { limits, in_progress: Mutex::default() }
    }

    /// How many may be in progress.
    pub fn max(&self) -> usize {
        self.limits.handshakes_max
    }

    /// Performs the TLS handshake with a client that has connected from `address`.
    ///
    /// # Errors
    /// When the handshake fails, takes too long, or is evicted.
    pub async fn accept(
        self: &Arc<Self>,
        tls: &TlsAcceptor,
        stream: TcpStream,
        address: IpAddr,
    ) -> Result<TlsStream<TcpStream>, HandshakeError> {
        let slot = self.acquire(address).ok_or(HandshakeError::TooMany)?;
        let handshake = async {
            stream.peek(&mut [0]).await?;
            slot.mark_active();
            tls.accept(stream).await
        };
        let handshake = timeout(Duration::from_millis(self.limits.handshake_timeout_ms), handshake);
        match slot.evicted.run_until_cancelled(handshake).await {
            Some(Ok(accepted)) => accepted.map_err(HandshakeError::Tls),
            Some(Err(_)) => Err(HandshakeError::Timeout),
            None => Err(HandshakeError::Evicted),
        }
    }

    /// Acquires a slot for a handshake, which may evict another. `None` when no slot is free and no
    /// other handshake may be evicted.
    fn acquire(self: &Arc<Self>, address: IpAddr) -> Option<Slot> {
        let network = network(address);
        let mut in_progress = self.in_progress();
        if let Some(evicted) = in_progress.evict(network, &self.limits)? {
            evicted.cancel();
        }
        let (id, evicted) = (in_progress.next_id, CancellationToken::new());
        in_progress.next_id += 1;
        let handshake = Handshake { network, is_silent: true, evicted: evicted.clone() };
        in_progress.handshakes.insert(id, handshake);
        Some(Slot { handshakes: Arc::clone(self), id, evicted })
    }

    fn in_progress(&self) -> MutexGuard<'_, InProgress> {
        self.in_progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl InProgress {
    /// Removes the handshake that must be evicted for a new one from `network`, if one must. The
    /// outer `None` rejects the new one.
    fn evict(
        &mut self,
        network: IpAddr,
        limits: &HandshakeLimits,
    ) -> Option<Option<CancellationToken>> {
        let network_count =
            self.handshakes.values().filter(|handshake| handshake.network == network).count();
        let victim = if network_count >= limits.handshakes_per_address_max {
            self.oldest(|handshake| handshake.network == network && handshake.is_silent)?
        } else if self.handshakes.len() >= limits.handshakes_max {
            match self.oldest(|handshake| handshake.is_silent) {
                Some(silent) => silent,
                None => self.oldest_of_busiest_network(network_count)?,
            }
        } else {
            return Some(None);
        };
        Some(self.handshakes.remove(&victim).map(|victim| victim.evicted))
    }

    fn oldest(&self, matches: impl Fn(&Handshake) -> bool) -> Option<u64> {
        self.handshakes.iter().find(|(_, handshake)| matches(handshake)).map(|(id, _)| *id)
    }

    /// The oldest handshake of the network with the most, if it has more than `network_count`.
    fn oldest_of_busiest_network(&self, network_count: usize) -> Option<u64> {
        let mut counts = HashMap::new();
        for handshake in self.handshakes.values() {
            *counts.entry(handshake.network).or_insert(0) += 1;
        }
        let (busiest, _) = counts
            .into_iter()
            .filter(|(_, count)| *count > network_count)
            .max_by_key(|(_, count)| *count)?;
        self.oldest(|handshake| handshake.network == busiest)
    }
}

/// The unit that is limited: an IPv4 address, or an IPv6 /64 network, in which one host owns all
/// addresses.
fn network(address: IpAddr) -> IpAddr {
    const HOST_BITS: u32 = 64;
    match address.to_canonical() {
        IpAddr::V6(address) => {
            Ipv6Addr::from_bits(address.to_bits() >> HOST_BITS << HOST_BITS).into()
        }
        v4 => v4,
    }
}

/// The slot of a handshake in progress. Dropping it frees the slot.
struct Slot {
    handshakes: Arc<Handshakes>,
    id: u64,
    evicted: CancellationToken,
}

impl Slot {
    /// Notes that the client has sent a byte.
    fn mark_active(&self) {
        if let Some(handshake) = self.handshakes.in_progress().handshakes.get_mut(&self.id) {
            handshake.is_silent = false;
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.handshakes.in_progress().handshakes.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// At most six handshakes, three per address.
    fn handshakes() -> Arc<Handshakes> {
        let limits = HandshakeLimits {
            handshakes_max: 6,
            handshakes_per_address_max: 3,
            ..Default::default()
        };
        Arc::new(Handshakes::new(limits))
    }

    fn acquire(handshakes: &Arc<Handshakes>, host: u8) -> Option<Slot> {
        handshakes.acquire([192, 0, 2, host].into())
    }

    #[test]
    fn a_silent_client_is_evicted_for_a_new_one_of_its_address() {
        let handshakes = handshakes();
        let slots: Vec<_> = (0..3).map(|_| acquire(&handshakes, 1).expect("a slot")).collect();
        slots[0].mark_active();
        let fourth = acquire(&handshakes, 1).expect("a slot");
        let evicted: Vec<_> = slots.iter().map(|slot| slot.evicted.is_cancelled()).collect();
        assert_eq!(evicted, [false, true, false], "the oldest silent one is evicted");
        for slot in [&slots[2], &fourth] {
            slot.mark_active();
        }
        assert!(acquire(&handshakes, 1).is_none(), "none is silent");
        assert!(acquire(&handshakes, 2).is_some(), "another address has slots of its own");
    }

    #[test]
    fn a_handshake_of_the_busiest_address_is_evicted_for_another_address() {
        let handshakes = handshakes();
        let slots: Vec<_> =
            [1, 1, 1, 2, 2, 3].map(|host| acquire(&handshakes, host).expect("a slot")).into();
        slots.iter().for_each(Slot::mark_active);
        let fourth = acquire(&handshakes, 4).expect("a slot");
        fourth.mark_active();
        assert!(slots[0].evicted.is_cancelled(), "the oldest of the busiest address");
        assert!(acquire(&handshakes, 1).is_none(), "it has as many as the others now");
        drop(slots);
        assert_eq!(handshakes.in_progress().handshakes.len(), 1, "slots end with their handshakes");
        drop(fourth);
    }

    #[test]
    fn an_address_is_a_v4_address_or_a_v6_network() {
        let network = |text: &str| network(text.parse().expect("an address"));
        assert_eq!(network("2001:db8::1"), network("2001:db8::ffff:2"));
        assert_ne!(network("2001:db8::1"), network("2001:db8:0:1::1"));
        assert_eq!(network("192.0.2.1"), network("::ffff:192.0.2.1"));
    }
}
