//! One replica of a service: its connection, and whether it gets calls.

use std::{
    collections::HashMap,
    convert::Infallible,
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures::future::BoxFuture;
use http::{Request, Response};
use tokio::time::{Instant, sleep};
use tokio_util::task::AbortOnDropHandle;
use tonic::{Status, body::Body};

use super::{
    HandshakeReporter,
    replicas::{
        self, Connection, ConnectionTasks, OpenConnection, Origin, PendingAttempt, Replicas,
    },
    send::send_to,
};
use crate::mtls::Connector;
use drawbridge_runtime::{
    Address,
    backoff::{RECONNECT_DELAY_MAX, ReconnectDelays},
};

/// How often a host name is resolved again.
const RESOLVE_INTERVAL: Duration = Duration::from_secs(5);

/// Decides which connected replicas get calls.
#[derive(Clone, Debug, Default)]
pub(super) enum Follow {
    /// Each one while it is connected.
    #[default]
    Connected,
    /// Those that this finds to be live.
    Live(ReplicaFollower),
}

impl Follow {
    /// The name for the log of what is followed.
    fn service(&self) -> Option<&'static str> {
        match self {
            Self::Connected => None,
            Self::Live(follower) => Some(follower.service),
        }
    }
}

/// Follows each replica of a service over its connection, and decides when it gets calls.
#[derive(Clone)]
pub struct ReplicaFollower {
    service: &'static str,
    follow: Arc<FollowFn>,
}

type FollowFn = dyn for<'a> Fn(&'a mut Replica) -> BoxFuture<'a, Result<(), Status>> + Send + Sync;

impl fmt::Debug for ReplicaFollower {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ReplicaFollower").field("service", &self.service).finish()
    }
}

impl ReplicaFollower {
    /// `follow` runs for each connection to a replica of `service`, and calls [`Replica::set_live`]
    /// once that can serve calls. When it returns, the replica gets no more calls, and the channel
    /// connects again. After `Ok` calls in flight may finish; after an error, for example because
    /// the replica is silent, they fail at once with `UNAVAILABLE`.
    pub fn new(
        service: &'static str,
        follow: impl for<'a> Fn(&'a mut Replica) -> BoxFuture<'a, Result<(), Status>>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        Self { service, follow: Arc::new(follow) }
    }

    pub(super) fn service(&self) -> &'static str {
        self.service
    }
}

/// A connected replica.
#[derive(Debug)]
pub struct Replica {
    service: Option<&'static str>,
    address: Address,
    connection: Connection,
    replicas: Arc<Replicas>,
    open: Option<OpenConnection>,
    pending: Option<PendingAttempt>,
}

impl Replica {
    /// Where it is.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// A channel to this replica alone, over its connection.
    #[must_use]
    pub fn channel(&self) -> ReplicaChannel {
        ReplicaChannel(self.connection.clone())
    }

    /// From now on it gets calls, as long as no live replica has a higher rank.
    pub fn set_live(&mut self, rank: u64) {
        self.connection.set_rank(rank);
        if self.open.is_none() {
            if let Some(service) = self.service {
                tracing::info!(service, address = %self.address, "a replica is live");
            }
            self.open = Some(self.replicas.open(self.connection.clone()));
            self.pending = None;
        }
    }
}

/// A channel to one replica.
#[derive(Clone, Debug)]
pub struct ReplicaChannel(Connection);

impl tower::Service<Request<Body>> for ReplicaChannel {
    type Response = Response<Body>;
    type Error = Status;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Status>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(send_to(self.0.clone(), request))
    }
}

/// Resolves a host name periodically, and stays connected to every address.
pub(super) fn resolve_and_connect(
    pool: &Arc<Replicas>,
    origin: Origin,
    connector: Connector,
    follow: Follow,
) -> AbortOnDropHandle<Infallible> {
    let (pool, origin) = (Arc::clone(pool), Arc::new(origin));
    let first = pool.pending();
    AbortOnDropHandle::new(tokio::spawn(async move {
        let mut first = Some(first);
        let mut connecting: HashMap<Address, AbortOnDropHandle<Infallible>> = HashMap::new();
        loop {
            // When a name cannot be resolved, its previous addresses stay in use.
            match replicas::resolve(&origin).await {
                Ok(addresses) => {
                    connecting.retain(|address, _| addresses.contains(address));
                    for address in addresses {
                        connecting.entry(address.clone()).or_insert_with(|| {
                            let (replicas, origin) = (Arc::clone(&pool), Arc::clone(&origin));
                            let (connector, follow) = (connector.clone(), follow.clone());
                            Upkeep { replicas, origin, address, connector, follow }.spawn()
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

/// Stays connected to one address.
struct Upkeep {
    replicas: Arc<Replicas>,
    origin: Arc<Origin>,
    address: Address,
    connector: Connector,
    follow: Follow,
}

impl Upkeep {
    fn spawn(self) -> AbortOnDropHandle<Infallible> {
        let (pending, known) = (self.replicas.pending(), self.replicas.known());
        AbortOnDropHandle::new(tokio::spawn(async move {
            let _known = known;
            self.run(pending).await
        }))
    }

    async fn run(&self, first: PendingAttempt) -> Infallible {
        let mut pending = Some(first);
        let mut delays = ReconnectDelays::default();
        let handshakes = HandshakeReporter::default();
        let mut last_problem = None;
        loop {
            let tasks = ConnectionTasks::default();
            let connected = replicas::connect(&self.address, &self.connector, tasks.clone()).await;
            handshakes.report(&self.origin.host, connected.as_ref().err());
            match connected {
                Ok((sender, driver)) => {
                    let mut replica = Replica {
                        service: self.follow.service(),
                        address: self.address.clone(),
                        connection: Connection::new(sender, &self.origin, tasks),
                        replicas: Arc::clone(&self.replicas),
                        open: None,
                        pending: pending.take(),
                    };
                    let since = Instant::now();
                    let ended = tokio::select! {
                        ended = self.follow(&mut replica) => ended,
                        // It ends when no more calls can start; those in flight still finish.
                        ended = driver => ended.map_err(|error| Status::from_error(error.into())),
                    };
                    if ended.is_err() {
                        replica.connection.close();
                    }
                    let was_live = replica.open.is_some();
                    self.report(ended, was_live, &mut last_problem);
                    if was_live && since.elapsed() > RECONNECT_DELAY_MAX {
                        // Before the connection is removed, so that calls wait for the next one.
                        pending = Some(self.replicas.pending());
                        delays.reset();
                        continue;
                    }
                }
                Err(error) => {
                    let error = Status::unavailable(error.to_string());
                    self.report(Err(error), false, &mut last_problem);
                }
            }
            drop(pending.take());
            delays.wait().await;
        }
    }

    async fn follow(&self, replica: &mut Replica) -> Result<(), Status> {
        match &self.follow {
            Follow::Connected => {
                replica.set_live(0);
                std::future::pending().await
            }
            Follow::Live(follower) => (follower.follow)(replica).await,
        }
    }

    /// Reports that the replica gets no more calls, or none yet. A problem that persists is
    /// reported once.
    fn report(&self, ended: Result<(), Status>, was_live: bool, last_problem: &mut Option<String>) {
        let reason = ended.err().map_or_else(
            || "it accepts no more calls".to_owned(),
            |status| status.message().to_owned(),
        );
        let address = &self.address;
        match &self.follow {
            Follow::Live(ReplicaFollower { service, .. }) if was_live => {
                tracing::warn!(service, %address, reason, "a replica is no longer live");
            }
            Follow::Live(ReplicaFollower { service, .. })
                if last_problem.as_ref() != Some(&reason) =>
            {
                tracing::warn!(service, %address, reason, "a replica cannot be used");
            }
            _ => tracing::debug!(%address, reason, "a connection ended"),
        }
        *last_problem = (!was_live).then_some(reason);
    }
}
