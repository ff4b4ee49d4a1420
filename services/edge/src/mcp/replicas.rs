//! Messages between replicas, for calls of a session that run on another replica: a client's
//! response, its cancellation, and a broken stream that it resumes.
//!
//! Each replica reads two streams in Redis: a shared one, in which replicas look for a call, and
//! its own inbox. A message is encrypted, and deleted once it is read. Nothing is written until a
//! client names something that its replica does not have.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use drawbridge_proto::auth::v1::Operation;
use drawbridge_runtime::Redis;
use prost::Message as _;
use redis::RedisError;
use secrecy::SecretString;
use tokio::{
    sync::{Semaphore, SemaphorePermit, mpsc},
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use self::messages::{EventBatch, ItemRef, Located, Payload, ReplicaMessage};
use super::session::{SessionRegistry, SessionStore};
use crate::{StartError, refusal::Refusal, sealer::Sealer};

pub(super) use self::messages::RemoteItem;

mod messages;
mod relay;

/// All inboxes share one slot of a cluster, because two of them are read at once.
const INBOX: &str = "drawbridge:mcp:{inbox}:";
/// The most messages in one inbox.
const INBOX_MESSAGES_MAX: usize = 1024;
/// How long an unused inbox exists.
const INBOX_SECONDS: i64 = 60;
/// The most unread messages of this replica in Redis, in KiB.
const UNREAD_KIB_MAX: u32 = 32 * 1024;
/// How long the receiver may take to read a message and delete it.
const READ_TIMEOUT: Duration = Duration::from_secs(2);
/// How long another replica may take to reply that it has a call, or has applied a request.
const REPLY_TIMEOUT: Duration = Duration::from_secs(1);
/// How long Redis blocks while there is no message.
const BLOCK_TIMEOUT: Duration = Duration::from_secs(2);
/// Longer than `BLOCK_TIMEOUT`.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);
/// The delay after a failed read of an inbox.
const RETRY_DELAY: Duration = Duration::from_secs(1);
const MESSAGES_AT_ONCE: usize = 64;

/// Redis's reply to `XREAD`: each stream's messages, each with its id and its fields.
type StreamEntries = Option<Vec<(String, Vec<(String, Vec<Vec<u8>>)>)>>;
/// The replica that sent a message, and the message.
type Reply = (u64, Payload);

/// Exchanges messages with the other replicas.
pub(super) struct ReplicaBus {
    /// The number of this replica.
    number: u64,
    store: Arc<SessionStore>,
    /// The connection that blocks on messages.
    connection: Redis,
    sealer: Sealer,
    /// The receivers of replies, by the number of their request.
    pending: Mutex<HashMap<u64, mpsc::Sender<Reply>>>,
    unread: Semaphore,
}

impl fmt::Debug for ReplicaBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplicaBus").field("number", &self.number).finish_non_exhaustive()
    }
}

/// Where an item is that is not on this replica.
#[derive(Debug)]
pub(super) struct RemoteLocation {
    replica: u64,
    /// The operation that its client must be permitted to perform. `None`: its session is enough.
    pub(super) operation: Option<Arc<Operation>>,
    /// The stream of the call.
    stream: u64,
}

/// Receives the replies to one request, until this is dropped.
struct PendingReplies<'a> {
    replicas: &'a ReplicaBus,
    number: u64,
    messages: mpsc::Receiver<Reply>,
}

impl Drop for PendingReplies<'_> {
    fn drop(&mut self) {
        self.replicas.pending().remove(&self.number);
    }
}

impl ReplicaBus {
    pub(super) fn new(
        sealer: Sealer,
        url: &SecretString,
        store: Arc<SessionStore>,
    ) -> Result<Arc<Self>, StartError> {
        Ok(Arc::new(Self {
            number: rand::random(),
            store,
            connection: Redis::open(url, RESPONSE_TIMEOUT)?,
            sealer,
            pending: Mutex::default(),
            unread: Semaphore::new(UNREAD_KIB_MAX as usize),
        }))
    }

    /// Finds the replica that has an item. `None`: no replica has it.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub(super) async fn find(&self, item: &RemoteItem) -> Result<Option<RemoteLocation>, Refusal> {
        // All replicas read this message, so it does not contain the client's response.
        let Some(item) = ItemRef::from(item).without_response() else { return Ok(None) };
        let reply = self.request(None, Payload::Find(item)).await?;
        let Some((replica, Payload::Located(Located { operation, stream }))) = reply else {
            return Ok(None);
        };
        let operation = operation.as_deref().map(Operation::decode).transpose();
        let operation = operation.map_err(|_| Refusal::SessionsUnavailable)?.map(Arc::new);
        Ok(Some(RemoteLocation { replica, operation, stream }))
    }

    /// Forwards what the client requested to the replica that has the item.
    ///
    /// # Errors
    /// When that replica does not confirm it.
    pub(super) async fn forward(
        &self,
        location: &RemoteLocation,
        item: &RemoteItem,
    ) -> Result<(), Refusal> {
        let mut item = ItemRef::from(item);
        item.stream = Some(location.stream);
        let reply = self.request(Some(location.replica), Payload::Apply(item)).await?;
        reply.map(drop).ok_or(Refusal::SessionsUnavailable)
    }

    async fn request(&self, to: Option<u64>, payload: Payload) -> Result<Option<Reply>, Refusal> {
        let mut pending = self.register(rand::random());
        let _unread =
            self.send(to, pending.number, payload).await.ok_or(Refusal::SessionsUnavailable)?;
        Ok(timeout(REPLY_TIMEOUT, pending.messages.recv()).await.ok().flatten())
    }

    fn register(&self, number: u64) -> PendingReplies<'_> {
        let (sender, messages) = mpsc::channel(4);
        self.pending().insert(number, sender);
        PendingReplies { replicas: self, number, messages }
    }

    fn pending(&self) -> std::sync::MutexGuard<'_, HashMap<u64, mpsc::Sender<Reply>>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a message to one replica or, without one, to all. It counts as unread until the permit
    /// is dropped. `None`: Redis is unavailable.
    async fn send(
        &self,
        to: Option<u64>,
        number: u64,
        payload: Payload,
    ) -> Option<SemaphorePermit<'_>> {
        let key = inbox_key(to);
        let message =
            ReplicaMessage { from: self.number, number, payload: Some(payload) }.encode_to_vec();
        let kib = u32::try_from(message.len() / 1024 + 1).unwrap_or(u32::MAX).min(UNREAD_KIB_MAX);
        let permit = self.unread.acquire_many(kib).await.ok()?;
        let sealed = self.sealer.seal(key.as_bytes(), &message)?;
        let mut command = redis::pipe();
        command.atomic();
        command
            .cmd("XADD")
            .arg(&key)
            .arg("MAXLEN")
            .arg(INBOX_MESSAGES_MAX)
            .arg("*")
            .arg("m")
            .arg(sealed);
        command.ignore().expire(&key, INBOX_SECONDS).ignore();
        self.store.run::<()>("XADD", &command).await.map(|()| permit)
    }

    /// Receives messages of other replicas, until the edge stops.
    pub(super) async fn receive(
        self: Arc<Self>,
        sessions: Arc<SessionRegistry>,
        stopping: CancellationToken,
    ) {
        let mut inbox = Inbox::new(self.number);
        let mut sending = JoinSet::new();
        loop {
            while sending.try_join_next().is_some() {}
            let reading = async {
                let read = inbox.read(&mut self.connection.clone()).await;
                if let Err(error) = &read {
                    let error = drawbridge_runtime::error_chain(error);
                    tracing::debug!(%error, "messages of other replicas could not be read");
                    tokio::time::sleep(RETRY_DELAY).await;
                }
                read.unwrap_or_default()
            };
            let Some(messages) = stopping.run_until_cancelled(reading).await else {
                let sent = async { while sending.join_next().await.is_some() {} };
                let _ = timeout(REPLY_TIMEOUT, sent).await;
                return;
            };
            for (key, sealed) in messages {
                let message = self.sealer.open(key.as_bytes(), sealed);
                match message.and_then(|message| ReplicaMessage::decode(message).ok()) {
                    Some(ReplicaMessage { from, number, payload: Some(payload) })
                        if from != self.number =>
                    {
                        self.handle_message(&mut sending, &sessions, from, number, payload);
                    }
                    Some(_) => {}
                    None => tracing::warn!(
                        "a message of another replica could not be opened: its --secret differs"
                    ),
                }
            }
        }
    }

    fn handle_message(
        self: &Arc<Self>,
        sending: &mut JoinSet<()>,
        sessions: &SessionRegistry,
        from: u64,
        number: u64,
        payload: Payload,
    ) {
        let reply = match payload {
            Payload::Find(item) => item.locate(sessions).map(Payload::Located),
            // A message may arrive twice.
            Payload::Apply(_) if self.pending().contains_key(&number) => None,
            Payload::Apply(item) => match item.open_reader(sessions) {
                Some(reader) => {
                    let relaying = Arc::clone(self).relay(from, number, reader);
                    sending.spawn(relaying);
                    None
                }
                None if item.is_stream() => {
                    Some(Payload::Events(EventBatch { is_end: true, ..EventBatch::default() }))
                }
                None => item.apply(sessions).map(Payload::Located),
            },
            payload => {
                let pending = self.pending().get(&number).cloned();
                if let Some(pending) = pending
                    && pending.try_send((from, payload)).is_err()
                {
                    tracing::debug!(from, "a replica sent more messages than were requested");
                }
                None
            }
        };
        if let Some(reply) = reply {
            let this = Arc::clone(self);
            sending.spawn(async move { drop(this.send(Some(from), number, reply).await) });
        }
    }
}

fn inbox_key(replica: Option<u64>) -> String {
    replica.map_or_else(|| format!("{INBOX}all"), |replica| format!("{INBOX}{replica:016x}"))
}

/// The two streams that a replica reads, and its positions in them.
struct Inbox {
    keys: [String; 2],
    /// The last message of each that was read. `None`: not known yet.
    last: Option<[String; 2]>,
    /// Messages of its own stream that were read, and are to be deleted.
    processed: Vec<String>,
}

impl Inbox {
    fn new(number: u64) -> Self {
        Self { keys: [inbox_key(None), inbox_key(Some(number))], last: None, processed: Vec::new() }
    }

    /// The positions from which to read: after the messages that precede this replica. Ids are
    /// timestamps, so they stay valid after Redis loses its data or fails over.
    async fn start_positions(&self, redis: &mut Redis) -> Result<[String; 2], RedisError> {
        let mut command = redis::pipe();
        command.cmd("XREVRANGE").arg(&self.keys[0]).arg("+").arg("-").arg("COUNT").arg(1);
        let (latest,): (Vec<(String, Vec<Vec<u8>>)>,) = command.query_async(redis).await?;
        let latest = latest.into_iter().next().map_or_else(|| "0".to_owned(), |(id, _)| id);
        Ok([latest, "0".to_owned()])
    }

    /// Waits for messages, and returns each with the key of its stream.
    async fn read(&mut self, redis: &mut Redis) -> Result<Vec<(String, Vec<u8>)>, RedisError> {
        let mut last = match self.last.take() {
            Some(last) => last,
            None => self.start_positions(redis).await?,
        };
        let mut command = redis::pipe();
        if !self.processed.is_empty() {
            command.cmd("XDEL").arg(&self.keys[1]).arg(&self.processed).ignore();
        }
        command.cmd("XREAD").arg("COUNT").arg(MESSAGES_AT_ONCE);
        command.arg("BLOCK").arg(u64::try_from(BLOCK_TIMEOUT.as_millis()).unwrap_or(u64::MAX));
        command.arg("STREAMS").arg(&self.keys).arg(&last);
        let reply: Result<(StreamEntries,), _> = command.query_async(redis).await;
        let (streams,) = reply.inspect_err(|_| self.last = Some(last.clone()))?;
        self.processed.clear();
        let mut messages = Vec::new();
        for (key, entries) in streams.unwrap_or_default() {
            let is_own = key == self.keys[1];
            for (id, fields) in entries {
                last[usize::from(is_own)].clone_from(&id);
                if is_own {
                    self.processed.push(id);
                }
                messages.extend(fields.into_iter().nth(1).map(|sealed| (key.clone(), sealed)));
            }
        }
        self.last = Some(last);
        Ok(messages)
    }
}
