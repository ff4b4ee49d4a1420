//! Maintains connections to all replicas of a service.

use std::{
    collections::HashMap,
    convert::Infallible,
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::Uri;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    net::{TcpStream, lookup_host},
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tokio_util::{either::Either, task::AbortOnDropHandle};
use tonic::body::Body;
use url::Url;

use super::{
    CONNECT_TIMEOUT, ChannelError, HandshakeReporter, KEEP_ALIVE_INTERVAL,
    RESPONSE_HEADERS_BYTES_MAX,
};
use crate::mtls::{Connector, MaybeTls};
use drawbridge_runtime::{
    Address,
    backoff::{RECONNECT_DELAY_MAX, ReconnectDelays},
    socket::{self, SocketPath},
};

/// How often a host name is resolved again.
const RESOLVE_INTERVAL: Duration = Duration::from_secs(5);
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(2);
/// The most replicas that are used behind one host name.
const REPLICAS_MAX: usize = 64;

/// Where a service is: `https://host:port`, `http://host:port` or `unix:/path`.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    /// The scheme and authority of calls.
    pub(super) uri: Uri,
    /// The host name, or the socket for the log.
    pub(super) host: String,
    port: u16,
    pub(super) socket: Option<SocketPath>,
}

impl Origin {
    pub(super) fn new(url: &Url) -> Result<Self, ChannelError> {
        if url.scheme() == "unix" {
            let socket = SocketPath::try_from(url)?;
            let uri = Uri::from_static("http://localhost");
            return Ok(Self { uri, host: socket.to_string(), port: 0, socket: Some(socket) });
        }
        let form = || ChannelError::Form { url: url.clone() };
        let bare = matches!(url.scheme(), "http" | "https")
            && matches!(url.path(), "" | "/")
            && url.query().is_none()
            && url.username().is_empty()
            && url.password().is_none();
        if !bare {
            return Err(form());
        }
        let host = url.host_str().ok_or_else(form)?;
        let uri = url.as_str().parse().map_err(|_| form())?;
        // The URL of an IPv6 address has brackets, which resolvers do not accept.
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Self { uri, host, port: url.port_or_known_default().unwrap_or(80), socket: None })
    }

    /// Connects to any of its replicas.
    pub(super) async fn connect(&self, connector: &Connector) -> io::Result<MaybeTls> {
        match &self.socket {
            Some(socket) => Ok(Either::Left(Either::Right(socket::connect(socket).await?))),
            None => {
                connector.connect(TcpStream::connect((self.host.as_str(), self.port)).await?).await
            }
        }
    }
}

/// An open connection. Each clone is a call in flight.
#[derive(Clone, Debug)]
pub(super) struct Connection {
    pub(super) sender: http2::SendRequest<Body>,
    origin: Arc<Origin>,
    shares: Arc<()>,
}

impl Connection {
    pub(super) fn origin(&self) -> &Uri {
        &self.origin.uri
    }

    fn in_flight(&self) -> usize {
        Arc::strong_count(&self.shares)
    }
}

/// The connections of one channel.
#[derive(Debug, Default)]
pub(super) struct Replicas {
    state: watch::Sender<State>,
    next_offset: AtomicUsize,
}

#[derive(Debug, Default)]
struct State {
    open: Vec<Connection>,
    /// First attempts to resolve or to connect that have not finished. Calls wait only for these.
    pending: usize,
}

impl State {
    /// The connection with the fewest calls in flight; ties are broken round-robin.
    fn pick(&self, offset: usize) -> Option<Connection> {
        let first = offset.checked_rem(self.open.len()).unwrap_or(0);
        let (before, from) = self.open.split_at(first);
        from.iter()
            .chain(before)
            .filter(|connection| !connection.sender.is_closed())
            .min_by_key(|connection| connection.in_flight())
            .cloned()
    }
}

impl Replicas {
    /// A connection for a call. `None` when no replica is reachable.
    pub(super) async fn pick(&self) -> Option<Connection> {
        let offset = self.next_offset.fetch_add(1, Ordering::Relaxed);
        if let Some(connection) = self.state.borrow().pick(offset) {
            return Some(connection);
        }
        // A closed connection may still be listed, so an open list alone does not decide.
        let mut state = self.state.subscribe();
        let decided = state.wait_for(|state| {
            state.pick(offset).is_some() || (state.pending == 0 && state.open.is_empty())
        });
        decided.await.ok()?.pick(offset)
    }

    #[cfg(test)]
    pub(super) fn open_count(&self) -> usize {
        self.state.borrow().open.len()
    }

    fn pending(self: &Arc<Self>) -> PendingAttempt {
        self.state.send_modify(|state| state.pending += 1);
        PendingAttempt(Arc::clone(self))
    }

    fn open(self: &Arc<Self>, connection: Connection) -> OpenConnection {
        self.state.send_modify(|state| state.open.push(connection.clone()));
        OpenConnection { replicas: Arc::clone(self), shares: connection.shares }
    }
}

struct PendingAttempt(Arc<Replicas>);

impl Drop for PendingAttempt {
    fn drop(&mut self) {
        self.0.state.send_modify(|state| state.pending -= 1);
    }
}

struct OpenConnection {
    replicas: Arc<Replicas>,
    shares: Arc<()>,
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        let is_other = |connection: &Connection| !Arc::ptr_eq(&connection.shares, &self.shares);
        self.replicas.state.send_modify(|state| state.open.retain(is_other));
    }
}

/// Resolves a host name periodically, and stays connected to every address.
pub(super) fn resolve_and_connect(
    replicas: &Arc<Replicas>,
    origin: Origin,
    connector: Connector,
) -> AbortOnDropHandle<Infallible> {
    let (replicas, origin) = (Arc::clone(replicas), Arc::new(origin));
    let first = replicas.pending();
    AbortOnDropHandle::new(tokio::spawn(async move {
        let mut first = Some(first);
        let mut connecting: HashMap<Address, AbortOnDropHandle<Infallible>> = HashMap::new();
        loop {
            // When a name cannot be resolved, its previous addresses stay in use.
            match resolve(&origin).await {
                Ok(addresses) => {
                    connecting.retain(|address, _| addresses.contains(address));
                    for address in addresses {
                        connecting.entry(address.clone()).or_insert_with(|| {
                            maintain_connection(&replicas, &origin, address, connector.clone())
                        });
                    }
                }
                Err(error) => tracing::debug!(host = origin.host, %error, "cannot resolve"),
            }
            drop(first.take());
            sleep(RESOLVE_INTERVAL).await;
        }
    }))
}

async fn resolve(origin: &Origin) -> io::Result<Vec<Address>> {
    if let Some(socket) = &origin.socket {
        return Ok(vec![Address::Unix(socket.clone())]);
    }
    let resolving = lookup_host((origin.host.as_str(), origin.port));
    Ok(timeout(RESOLVE_TIMEOUT, resolving).await??.take(REPLICAS_MAX).map(Address::Tcp).collect())
}

fn maintain_connection(
    replicas: &Arc<Replicas>,
    origin: &Arc<Origin>,
    address: Address,
    connector: Connector,
) -> AbortOnDropHandle<Infallible> {
    let (replicas, origin) = (Arc::clone(replicas), Arc::clone(origin));
    let first = replicas.pending();
    AbortOnDropHandle::new(tokio::spawn(async move {
        let mut pending = Some(first);
        let mut delays = ReconnectDelays::default();
        let reporter = HandshakeReporter::default();
        loop {
            let connected = connect(&address, &connector).await;
            reporter.report(&origin.host, connected.as_ref().err());
            match connected {
                Ok((sender, connection)) => {
                    let origin = Arc::clone(&origin);
                    let open = replicas.open(Connection { sender, origin, shares: Arc::default() });
                    drop(pending.take());
                    let since = Instant::now();
                    // It ends when no more calls can start; those in flight still finish.
                    if let Err(error) = connection.await {
                        tracing::debug!(%address, %error, "a connection broke");
                    }
                    if since.elapsed() > RECONNECT_DELAY_MAX {
                        // Before the connection is removed, so that calls wait for the next one.
                        pending = Some(replicas.pending());
                        drop(open);
                        delays.reset();
                        continue;
                    }
                }
                Err(error) => tracing::debug!(%address, %error, "cannot connect"),
            }
            drop(pending.take());
            delays.wait().await;
        }
    }))
}

type Driver = http2::Connection<TokioIo<MaybeTls>, Body, TokioExecutor>;

async fn connect(
    address: &Address,
    connector: &Connector,
) -> io::Result<(http2::SendRequest<Body>, Driver)> {
    let connecting = async {
        let stream = match address {
            Address::Tcp(address) => connector.connect(TcpStream::connect(address).await?).await?,
            Address::Unix(socket) => Either::Left(Either::Right(socket::connect(socket).await?)),
        };
        http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_while_idle(true)
            .max_header_list_size(RESPONSE_HEADERS_BYTES_MAX)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(io::Error::other)
    };
    timeout(CONNECT_TIMEOUT, connecting).await?
}
