//! A TCP balancer, as it stands in front of the replicas of a service.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
};
use url::Url;

/// What becomes of the connections to one upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpstreamState {
    /// They carry what both sides send.
    Up,
    /// They stay open and carry nothing, as those of a suspended process. What was sent arrives
    /// once the upstream is up again.
    Hangs,
    /// They are closed, and new ones too, as those of a killed process.
    Down,
}

/// Passes each connection to the next of its upstreams, without a look at their state. It stops
/// with its runtime.
#[derive(Clone, Debug)]
pub struct TcpProxy {
    address: SocketAddr,
    upstreams: Arc<[Upstream]>,
    connections: Arc<AtomicUsize>,
}

#[derive(Debug)]
struct Upstream {
    address: SocketAddr,
    state: watch::Sender<UpstreamState>,
}

impl TcpProxy {
    /// Starts a proxy on a free port, in front of these URLs.
    pub async fn start(upstreams: &[&Url]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let upstream = |url: &&Url| Upstream {
            address: url.socket_addrs(|| None).expect("an address")[0],
            state: watch::Sender::new(UpstreamState::Up),
        };
        let upstreams = upstreams.iter().map(upstream).collect();
        let proxy = Self { address, upstreams, connections: Arc::default() };
        tokio::spawn(proxy.clone().accept(listener));
        proxy
    }

    /// Its URL for gRPC in plaintext.
    pub fn url(&self) -> Url {
        format!("http://{}", self.address).parse().expect("a URL")
    }

    /// Changes the state of an upstream, by its place in the list.
    pub fn set(&self, upstream: usize, state: UpstreamState) {
        self.upstreams[upstream].state.send_replace(state);
    }

    /// How many connections it has accepted.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    async fn accept(self, listener: TcpListener) {
        while let Ok((client, _)) = listener.accept().await {
            let connection = self.connections.fetch_add(1, Ordering::Relaxed);
            let (upstreams, index) =
                (Arc::clone(&self.upstreams), connection % self.upstreams.len());
            tokio::spawn(async move {
                // A broken connection does not fail the test.
                drop(upstreams[index].pass(client).await);
            });
        }
    }
}

impl Upstream {
    async fn pass(&self, mut client: TcpStream) -> std::io::Result<()> {
        let mut state = self.state.subscribe();
        let mut server = None;
        loop {
            let now = *state.borrow_and_update();
            if now == UpstreamState::Up && server.is_none() {
                server = Some(TcpStream::connect(self.address).await?);
            }
            match (now, &mut server) {
                (UpstreamState::Down, _) => return Ok(()),
                (UpstreamState::Up, Some(server)) => tokio::select! {
                    copied = copy_bidirectional(&mut client, server) => return copied.map(drop),
                    _ = state.changed() => {}
                },
                _ => drop(state.changed().await),
            }
        }
    }
}
