//! Keeps connections to all replicas of a service.

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
    ANSWER_HEADERS_BYTES_MAX, CONNECT_TIMEOUT, ChannelError, Handshakes, KEEP_ALIVE_INTERVAL,
};
use crate::{
    listen::Address,
    mtls::{Dial, MaybeTls},
    socket::{self, SocketPath},
};

/// How often a host name is resolved again.
const RESOLVE_INTERVAL: Duration = Duration::from_secs(5);
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(2);
/// The most replicas behind one host name that are used.
const REPLICAS_MAX: usize = 64;
const RECONNECT_FIRST: Duration = Duration::from_millis(50);
const RECONNECT_MAX: Duration = Duration::from_secs(1);

/// Where a service is: `https://host:port`, `http://host:port` or `unix:/path`.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    /// What calls carry as their scheme and authority.
    pub(super) uri: Uri,
    /// For the log too, where it is a socket.
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
        // The URL of an IPv6 address has brackets, which no resolver knows.
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Self { uri, host, port: url.port_or_known_default().unwrap_or(80), socket: None })
    }

    /// Connects to any of its replicas.
    pub(super) async fn connect(&self, dial: &Dial) -> io::Result<MaybeTls> {
        match &self.socket {
            Some(socket) => Ok(Either::Left(Either::Right(socket::connect(socket).await?))),
            None => dial.connect(TcpStream::connect((self.host.as_str(), self.port)).await?).await,
        }
    }
}

/// A connection that takes calls. Each clone is a call in flight.
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
    known: watch::Sender<Known>,
    turn: AtomicUsize,
}

#[derive(Debug, Default)]
struct Known {
    open: Vec<Connection>,
    /// First attempts to resolve or to connect whose end is not known yet. Calls wait for them, and for
    /// nothing else.
    undecided: usize,
}

impl Known {
    /// The connection with the fewest calls in flight; among equals, each in its turn.
    fn pick(&self, turn: usize) -> Option<Connection> {
        let first = turn.checked_rem(self.open.len()).unwrap_or(0);
        let (before, from) = self.open.split_at(first);
        from.iter()
            .chain(before)
            .filter(|connection| !connection.sender.is_closed())
            .min_by_key(|connection| connection.in_flight())
            .cloned()
    }
}

impl Replicas {
    /// A connection for a call. Nothing when no replica can be reached.
    pub(super) async fn pick(&self) -> Option<Connection> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        if let Some(connection) = self.known.borrow().pick(turn) {
            return Some(connection);
        }
        // A connection that has just ended is about to be taken out, so its being there is no answer.
        let mut known = self.known.subscribe();
        let decided = known.wait_for(|known| {
            known.pick(turn).is_some() || (known.undecided == 0 && known.open.is_empty())
        });
        decided.await.ok()?.pick(turn)
    }

    #[cfg(test)]
    pub(super) fn open_count(&self) -> usize {
        self.known.borrow().open.len()
    }

    fn undecided(self: &Arc<Self>) -> Undecided {
        self.known.send_modify(|known| known.undecided += 1);
        Undecided(Arc::clone(self))
    }

    fn open(self: &Arc<Self>, connection: Connection) -> Open {
        self.known.send_modify(|known| known.open.push(connection.clone()));
        Open { replicas: Arc::clone(self), shares: connection.shares }
    }
}

struct Undecided(Arc<Replicas>);

impl Drop for Undecided {
    fn drop(&mut self) {
        self.0.known.send_modify(|known| known.undecided -= 1);
    }
}

struct Open {
    replicas: Arc<Replicas>,
    shares: Arc<()>,
}

impl Drop for Open {
    fn drop(&mut self) {
        let others = |connection: &Connection| !Arc::ptr_eq(&connection.shares, &self.shares);
        self.replicas.known.send_modify(|known| known.open.retain(others));
    }
}

/// Resolves a host name again and again, and stays connected to every address that it has.
pub(super) fn follow(
    replicas: &Arc<Replicas>,
    origin: Origin,
    dial: Dial,
) -> AbortOnDropHandle<Infallible> {
    let (replicas, origin) = (Arc::clone(replicas), Arc::new(origin));
    let first = replicas.undecided();
    AbortOnDropHandle::new(tokio::spawn(async move {
        let mut first = Some(first);
        let mut connecting: HashMap<Address, AbortOnDropHandle<Infallible>> = HashMap::new();
        loop {
            // A name that cannot be resolved now keeps the addresses that it had.
            match resolve(&origin).await {
                Ok(addresses) => {
                    connecting.retain(|address, _| addresses.contains(address));
                    for address in addresses {
                        connecting.entry(address.clone()).or_insert_with(|| {
                            stay_connected(&replicas, &origin, address, dial.clone())
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

fn stay_connected(
    replicas: &Arc<Replicas>,
    origin: &Arc<Origin>,
    address: Address,
    dial: Dial,
) -> AbortOnDropHandle<Infallible> {
    let (replicas, origin) = (Arc::clone(replicas), Arc::clone(origin));
    let first = replicas.undecided();
    AbortOnDropHandle::new(tokio::spawn(async move {
        let mut undecided = Some(first);
        let mut delay = RECONNECT_FIRST;
        let handshakes = Handshakes::default();
        loop {
            let connected = connect(&address, &dial).await;
            handshakes.tell(&origin.host, connected.as_ref().err());
            match connected {
                Ok((sender, connection)) => {
                    let origin = Arc::clone(&origin);
                    let open = replicas.open(Connection { sender, origin, shares: Arc::default() });
                    drop(undecided.take());
                    let since = Instant::now();
                    // It ends when no more calls can be begun; those in flight still end.
                    if let Err(error) = connection.await {
                        tracing::debug!(%address, %error, "a connection broke");
                    }
                    if since.elapsed() > RECONNECT_MAX {
                        // Before it is taken out, so that calls wait for the next one.
                        undecided = Some(replicas.undecided());
                        drop(open);
                        delay = RECONNECT_FIRST;
                        continue;
                    }
                }
                Err(error) => tracing::debug!(%address, %error, "cannot connect"),
            }
            drop(undecided.take());
            sleep(delay).await;
            delay = (delay * 2).min(RECONNECT_MAX);
        }
    }))
}

type Driver = http2::Connection<TokioIo<MaybeTls>, Body, TokioExecutor>;

async fn connect(address: &Address, dial: &Dial) -> io::Result<(http2::SendRequest<Body>, Driver)> {
    let connecting = async {
        let stream = match address {
            Address::Tcp(address) => dial.connect(TcpStream::connect(address).await?).await?,
            Address::Unix(socket) => Either::Left(Either::Right(socket::connect(socket).await?)),
        };
        http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_while_idle(true)
            .max_header_list_size(ANSWER_HEADERS_BYTES_MAX)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(io::Error::other)
    };
    timeout(CONNECT_TIMEOUT, connecting).await?
}
