//! TLS handshakes in progress: bounded for each address and in all, and ended first where the client says nothing.

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

/// What clients may take of a TLS port before they have shown who they are.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "TLS handshakes")]
pub struct HandshakeLimits {
    /// How many TLS handshakes may be in progress. One more ends the oldest whose client has not sent a byte, or else one
    /// of the address that has the most of them.
    #[arg(long, default_value_t = 1024, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..))]
    pub handshakes_max: usize,

    /// How many of them may be one address's, or one IPv6 /64 network's. One more ends the oldest whose client has not
    /// sent a byte; where there is none, the new connection is closed.
    #[arg(long, default_value_t = 128, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..))]
    pub handshakes_per_address_max: usize,

    /// How long a TLS handshake may take, in milliseconds.
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub handshake_timeout_ms: u64,
}

impl Default for HandshakeLimits {
    fn default() -> Self {
        Self { handshakes_max: 1024, handshakes_per_address_max: 128, handshake_timeout_ms: 5_000 }
    }
}

/// Why there is no TLS with a client.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandshakeError {
    /// It failed.
    #[error("the handshake failed")]
    Tls(#[source] io::Error),
    /// It took too long.
    #[error("the handshake took too long")]
    Timeout,
    /// It was ended in favour of another.
    #[error("the handshake was ended in favour of another")]
    Evicted,
    /// The client's address has as many in progress as it may.
    #[error("too many handshakes are in progress")]
    TooMany,
}

/// The handshakes of one port.
#[derive(Debug)]
pub(crate) struct Handshakes {
    limits: HandshakeLimits,
    in_progress: Mutex<InProgress>,
}

/// Ids grow, so that the first is the oldest.
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
    pub(crate) fn new(limits: HandshakeLimits) -> Self {
        Self { limits, in_progress: Mutex::default() }
    }

    /// How many may be in progress.
    pub(crate) fn max(&self) -> usize {
        self.limits.handshakes_max
    }

    /// Speaks TLS with a client that has connected from `address`.
    ///
    /// # Errors
    /// When the handshake fails, takes too long, or gives way to another.
    pub(crate) async fn shake(
        self: &Arc<Self>,
        tls: &TlsAcceptor,
        stream: TcpStream,
        address: IpAddr,
    ) -> Result<TlsStream<TcpStream>, HandshakeError> {
        let place = self.enter(address).ok_or(HandshakeError::TooMany)?;
        let shaking = async {
            stream.peek(&mut [0]).await?;
            place.speak();
            tls.accept(stream).await
        };
        let shaking = timeout(Duration::from_millis(self.limits.handshake_timeout_ms), shaking);
        match place.evicted.run_until_cancelled(shaking).await {
            Some(Ok(shaken)) => shaken.map_err(HandshakeError::Tls),
            Some(Err(_)) => Err(HandshakeError::Timeout),
            None => Err(HandshakeError::Evicted),
        }
    }

    /// A place among those in progress, for which another may have to go.
    fn enter(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let network = network(address);
        let mut in_progress = self.in_progress();
        if let Some(evicted) = in_progress.evict(network, &self.limits)? {
            evicted.cancel();
        }
        let (id, evicted) = (in_progress.next_id, CancellationToken::new());
        in_progress.next_id += 1;
        let handshake = Handshake { network, is_silent: true, evicted: evicted.clone() };
        in_progress.handshakes.insert(id, handshake);
        Some(Place { handshakes: Arc::clone(self), id, evicted })
    }

    fn in_progress(&self) -> MutexGuard<'_, InProgress> {
        self.in_progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl InProgress {
    /// Takes out the handshake that gives way to one from `network`, if one has to. None: the new one has to.
    fn evict(
        &mut self,
        network: IpAddr,
        limits: &HandshakeLimits,
    ) -> Option<Option<CancellationToken>> {
        let own = self.handshakes.values().filter(|one| one.network == network).count();
        let victim = if own >= limits.handshakes_per_address_max {
            self.oldest(|one| one.network == network && one.is_silent)?
        } else if self.handshakes.len() >= limits.handshakes_max {
            match self.oldest(|one| one.is_silent) {
                Some(silent) => silent,
                None => self.of_the_largest(own)?,
            }
        } else {
            return Some(None);
        };
        Some(self.handshakes.remove(&victim).map(|victim| victim.evicted))
    }

    fn oldest(&self, is_it: impl Fn(&Handshake) -> bool) -> Option<u64> {
        self.handshakes.iter().find(|(_, one)| is_it(one)).map(|(id, _)| *id)
    }

    /// The oldest of the network that has the most, where that is more than the `own`.
    fn of_the_largest(&self, own: usize) -> Option<u64> {
        let mut counts = HashMap::new();
        for handshake in self.handshakes.values() {
            *counts.entry(handshake.network).or_insert(0) += 1;
        }
        let (largest, _) =
            counts.into_iter().filter(|(_, count)| *count > own).max_by_key(|(_, count)| *count)?;
        self.oldest(|one| one.network == largest)
    }
}

/// What counts as one address: of IPv6 the network, in which a host has all addresses to itself.
fn network(address: IpAddr) -> IpAddr {
    const HOST_BITS: u32 = 64;
    match address.to_canonical() {
        IpAddr::V6(address) => {
            Ipv6Addr::from_bits(address.to_bits() >> HOST_BITS << HOST_BITS).into()
        }
        v4 => v4,
    }
}

/// A handshake's place among those in progress. It ends with this.
struct Place {
    handshakes: Arc<Handshakes>,
    id: u64,
    evicted: CancellationToken,
}

impl Place {
    /// The client has sent a byte.
    fn speak(&self) {
        if let Some(handshake) = self.handshakes.in_progress().handshakes.get_mut(&self.id) {
            handshake.is_silent = false;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.handshakes.in_progress().handshakes.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// At most six, of which three are one address's.
    fn handshakes() -> Arc<Handshakes> {
        let limits = HandshakeLimits {
            handshakes_max: 6,
            handshakes_per_address_max: 3,
            ..Default::default()
        };
        Arc::new(Handshakes::new(limits))
    }

    fn enter(handshakes: &Arc<Handshakes>, host: u8) -> Option<Place> {
        handshakes.enter([192, 0, 2, host].into())
    }

    #[test]
    fn a_silent_client_gives_way_to_one_of_its_address() {
        let handshakes = handshakes();
        let places: Vec<_> = (0..3).map(|_| enter(&handshakes, 1).expect("a place")).collect();
        places[0].speak();
        let fourth = enter(&handshakes, 1).expect("a place");
        let evicted: Vec<_> = places.iter().map(|place| place.evicted.is_cancelled()).collect();
        assert_eq!(evicted, [false, true, false], "the oldest that is silent goes");
        for place in [&places[2], &fourth] {
            place.speak();
        }
        assert!(enter(&handshakes, 1).is_none(), "all of them speak");
        assert!(enter(&handshakes, 2).is_some(), "another address has places of its own");
    }

    #[test]
    fn an_address_with_few_handshakes_takes_the_place_of_one_with_many() {
        let handshakes = handshakes();
        let places: Vec<_> =
            [1, 1, 1, 2, 2, 3].map(|host| enter(&handshakes, host).expect("a place")).into();
        places.iter().for_each(Place::speak);
        let fourth = enter(&handshakes, 4).expect("a place");
        fourth.speak();
        assert!(places[0].evicted.is_cancelled(), "the oldest of the address that has the most");
        assert!(enter(&handshakes, 1).is_none(), "which has no fewer than any other now");
        drop(places);
        assert_eq!(
            handshakes.in_progress().handshakes.len(),
            1,
            "places end with their handshakes"
        );
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
