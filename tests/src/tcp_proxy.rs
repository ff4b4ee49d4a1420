//! A TCP balancer, as it stands in front of the replicas of a service.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
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
    url: Url,
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
        let mut url = upstreams[0].clone();
        url.set_port(Some(listener.local_addr().expect("an address").port())).expect("a port");
        let upstream = |url: &&Url| Upstream {
            address: url.socket_addrs(|| None).expect("an address")[0],
            state: watch::Sender::new(UpstreamState::Up),
        };
        let upstreams = upstreams.iter().map(upstream).collect();
        let proxy = Self { url, upstreams, connections: Arc::default() };
        tokio::spawn(proxy.clone().accept(listener));
        proxy
    }

    /// The URL of its first upstream, through the proxy.
    pub fn url(&self) -> Url {
        self.url.clone()
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
    async fn pass(&self, client: TcpStream) -> std::io::Result<()> {
        let passing = async {
            self.wait_for(UpstreamState::Up).await;
            let server = TcpStream::connect(self.address).await?;
            let ((from_client, to_client), (from_server, to_server)) =
                (client.into_split(), server.into_split());
            tokio::select! {
                copied = self.copy(from_client, to_server) => copied,
                copied = self.copy(from_server, to_client) => copied,
            }
        };
        tokio::select! {
            passed = passing => passed,
            () = self.wait_for(UpstreamState::Down) => Ok(()),
        }
    }

    async fn wait_for(&self, wanted: UpstreamState) {
        let mut state = self.state.subscribe();
        // The sender lives as long as `self`.
        let _ = state.wait_for(|state| *state == wanted).await;
    }

    /// Copies what arrives while the upstream is up, until one side closes.
    async fn copy(
        &self,
        mut from: impl AsyncRead + Unpin,
        mut to: impl AsyncWrite + Unpin,
    ) -> std::io::Result<()> {
        let mut buffer = vec![0; 16 * 1024];
        loop {
            let read = from.read(&mut buffer).await?;
            self.wait_for(UpstreamState::Up).await;
            if read == 0 {
                return Ok(());
            }
            to.write_all(&buffer[..read]).await?;
        }
    }
}
