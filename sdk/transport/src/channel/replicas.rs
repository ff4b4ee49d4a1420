//! The connections to the replicas of a service, and the choice of one for a call.

use std::{
    cmp::Reverse,
    io, mem,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::Uri;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpStream, lookup_host},
    sync::watch,
    time::timeout,
};
use tokio_util::{either::Either, sync::CancellationToken};
use tonic::body::Body;
use tracing::Span;
use url::Url;

use super::{CONNECT_TIMEOUT, ChannelError, KEEP_ALIVE_INTERVAL, RESPONSE_HEADERS_BYTES_MAX};
use crate::mtls::{Connector, MaybeTls};
use drawbridge_runtime::{
    Address,
    socket::{self, SocketPath},
};

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
    tasks: ConnectionTasks,
    /// Its rank: calls go to the connections of the highest one.
    shares: Arc<AtomicU64>,
}

impl Connection {
    pub(super) fn new(
        sender: http2::SendRequest<Body>,
        origin: &Arc<Origin>,
        tasks: ConnectionTasks,
    ) -> Self {
        Self { sender, origin: Arc::clone(origin), tasks, shares: Arc::default() }
    }

    pub(super) fn origin(&self) -> &Uri {
        &self.origin.uri
    }

    /// Records where the service is in the span of a call.
    pub(super) fn record_address(&self, span: &Span) {
        let Origin { host, port, .. } = &*self.origin;
        span.record("server.address", host.as_str());
        if *port != 0 {
            span.record("server.port", port);
        }
    }

    pub(super) fn set_rank(&self, rank: u64) {
        self.shares.store(rank, Ordering::Relaxed);
    }

    /// Closes the connection at once: calls in flight fail.
    pub(super) fn close(&self) {
        self.tasks.0.cancel();
    }

    fn rank(&self) -> u64 {
        self.shares.load(Ordering::Relaxed)
    }

    fn in_flight(&self) -> usize {
        Arc::strong_count(&self.shares)
    }
}

/// Runs the tasks of one connection until it is closed. hyper spawns the connection itself, so that
/// nothing else ends one whose peer is silent.
#[derive(Clone, Debug, Default)]
pub(super) struct ConnectionTasks(CancellationToken);

impl<F> hyper::rt::Executor<F> for ConnectionTasks
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, task: F) {
        let closed = self.0.clone();
        tokio::spawn(async move { closed.run_until_cancelled_owned(task).await });
    }
}

/// How many replicas a channel has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReplicaCounts {
    /// The addresses that its URLs resolve to.
    pub known: usize,
    /// The replicas that get calls.
    pub live: usize,
}

/// The connections of one channel.
#[derive(Debug, Default)]
pub(super) struct Replicas {
    state: watch::Sender<State>,
    counts: watch::Sender<ReplicaCounts>,
    next_offset: AtomicUsize,
}

#[derive(Debug, Default)]
struct State {
    open: Vec<Connection>,
    /// First attempts to resolve or to connect that have not finished. Calls wait only for these.
    pending: usize,
    known: usize,
}

impl State {
    /// Of the connections with the highest rank the one with the fewest calls in flight; ties are
    /// broken round-robin.
    fn pick(&self, offset: usize) -> Option<Connection> {
        let first = offset.checked_rem(self.open.len()).unwrap_or(0);
        let (before, from) = self.open.split_at(first);
        from.iter()
            .chain(before)
            .filter(|connection| !connection.sender.is_closed())
            .min_by_key(|connection| (Reverse(connection.rank()), connection.in_flight()))
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

    pub(super) fn counts(&self) -> watch::Receiver<ReplicaCounts> {
        self.counts.subscribe()
    }

    /// The calls in flight on connections that the channel has and nothing else holds.
    #[cfg(test)]
    pub(super) fn calls_in_flight(&self) -> usize {
        // The list, the handle that removes it from there, and the replica have one each.
        self.state
            .borrow()
            .open
            .iter()
            .map(|connection| connection.in_flight().saturating_sub(3))
            .sum()
    }

    pub(super) fn pending(self: &Arc<Self>) -> PendingAttempt {
        self.update(|state| state.pending += 1);
        PendingAttempt(Arc::clone(self))
    }

    pub(super) fn known(self: &Arc<Self>) -> KnownAddress {
        self.update(|state| state.known += 1);
        KnownAddress(Arc::clone(self))
    }

    pub(super) fn open(self: &Arc<Self>, connection: Connection) -> OpenConnection {
        self.update(|state| state.open.push(connection.clone()));
        OpenConnection { replicas: Arc::clone(self), shares: connection.shares }
    }

    fn update(&self, change: impl FnOnce(&mut State)) {
        self.state.send_modify(|state| {
            change(state);
            let counts = ReplicaCounts { known: state.known, live: state.open.len() };
            self.counts.send_if_modified(|now| mem::replace(now, counts) != counts);
        });
    }
}

/// An attempt for which calls wait, until this is dropped.
#[derive(Debug)]
pub(super) struct PendingAttempt(Arc<Replicas>);

impl Drop for PendingAttempt {
    fn drop(&mut self) {
        self.0.update(|state| state.pending -= 1);
    }
}

/// An address that counts as known until this is dropped.
#[derive(Debug)]
pub(super) struct KnownAddress(Arc<Replicas>);

impl Drop for KnownAddress {
    fn drop(&mut self) {
        self.0.update(|state| state.known -= 1);
    }
}

/// A connection that gets calls until this is dropped.
#[derive(Debug)]
pub(super) struct OpenConnection {
    replicas: Arc<Replicas>,
    shares: Arc<AtomicU64>,
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        let is_other = |connection: &Connection| !Arc::ptr_eq(&connection.shares, &self.shares);
        self.replicas.update(|state| state.open.retain(is_other));
    }
}

pub(super) async fn resolve(origin: &Origin) -> io::Result<Vec<Address>> {
    if let Some(socket) = &origin.socket {
        return Ok(vec![Address::Unix(socket.clone())]);
    }
    let resolving = lookup_host((origin.host.as_str(), origin.port));
    Ok(timeout(RESOLVE_TIMEOUT, resolving).await??.take(REPLICAS_MAX).map(Address::Tcp).collect())
}

type Driver = http2::Connection<TokioIo<MaybeTls>, Body, ConnectionTasks>;

pub(super) async fn connect(
    address: &Address,
    connector: &Connector,
    tasks: ConnectionTasks,
) -> io::Result<(http2::SendRequest<Body>, Driver)> {
    let connecting = async {
        let stream = match address {
            Address::Tcp(address) => connector.connect(TcpStream::connect(address).await?).await?,
            Address::Unix(socket) => Either::Left(Either::Right(socket::connect(socket).await?)),
        };
        http2::Builder::new(tasks)
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
