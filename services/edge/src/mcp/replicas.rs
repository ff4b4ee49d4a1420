//! The other replicas. What belongs to a call of a session that runs on another one is handed to that replica: a client's
//! answer, its cancellation, and a broken stream that it takes up again.
//!
//! Each replica reads two streams in Redis: one that all of them read, where a replica looks for a call, and one that is
//! its own inbox. A message is encrypted, and deleted once it is read. Nothing is written before a client comes to a
//! replica that does not have what it names.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use drawbridge_proto::auth::v1::Operation;
use drawbridge_sdk::Redis;
use prost::Message as _;
use redis::RedisError;
use secrecy::SecretString;
use tokio::{
    sync::{Semaphore, SemaphorePermit, mpsc},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use self::messages::{Events, Found, Kind, Message, Named};
use super::{
    SealError,
    session::{Sessions, Store},
};
use crate::{StartError, refusal::Refusal, sealer::Sealer};

pub(super) use self::messages::Subject;

mod messages;
mod relay;

/// All inboxes lie in one slot of a cluster: two of them are read at once.
const INBOX: &str = "drawbridge:mcp:{inbox}:";
/// How many messages lie in one inbox at most.
const INBOX_MESSAGES_MAX: usize = 1024;
/// For how long an inbox stays to which nothing is written.
const INBOX_SECONDS: i64 = 60;
/// How much of this replica's messages lies in Redis at most, in KiB.
const UNREAD_KIB_MAX: u32 = 32 * 1024;
/// By then the receiver has read a message, and deleted it.
const READ_WITHIN: Duration = Duration::from_secs(2);
/// How long another replica may take to say that it has a call, or that it has done what it was asked.
const REPLY_WITHIN: Duration = Duration::from_secs(1);
/// How long Redis waits for a message before it says that there is none.
const BLOCK: Duration = Duration::from_secs(2);
/// Longer than that.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);
/// Before an inbox is read again that could not be read.
const PAUSE: Duration = Duration::from_secs(1);
const MESSAGES_AT_ONCE: usize = 64;

/// What Redis says of new messages: of each stream its messages, each with its id and its fields.
type Unread = Option<Vec<(String, Vec<(String, Vec<Vec<u8>>)>)>>;
/// A message, and the replica that sent it.
type Received = (u64, Kind);

/// The way to the other replicas.
pub(super) struct Replicas {
    /// This replica.
    number: u64,
    store: Arc<Store>,
    /// A connection that waits for messages.
    reading: Redis,
    sealer: Sealer,
    /// Who waits for messages about a request to another replica, by the request's number.
    waiting: Mutex<HashMap<u64, mpsc::Sender<Received>>>,
    unread: Semaphore,
}

impl fmt::Debug for Replicas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replicas").field("number", &self.number).finish_non_exhaustive()
    }
}

/// Where something of a session is that is not on this replica.
#[derive(Debug)]
pub(super) struct Place {
    replica: u64,
    /// What its client must be allowed. None: nothing but its session.
    pub(super) operation: Option<Arc<Operation>>,
    /// The stream of the call.
    stream: u64,
}

/// Messages about one request, as long as this lives.
struct Waiting<'a> {
    replicas: &'a Replicas,
    number: u64,
    messages: mpsc::Receiver<Received>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.replicas.waiting().remove(&self.number);
    }
}

impl Replicas {
    pub(super) fn new(
        secret: &SecretString,
        url: &SecretString,
        store: Arc<Store>,
    ) -> Result<Arc<Self>, StartError> {
        Ok(Arc::new(Self {
            number: rand::random(),
            store,
            reading: Redis::open(url, RESPONSE_TIMEOUT)?,
            sealer: Sealer::new(secret, "messages of replicas").map_err(SealError::from)?,
            waiting: Mutex::default(),
            unread: Semaphore::new(UNREAD_KIB_MAX as usize),
        }))
    }

    /// Finds the replica that has this. None: no replica has it.
    ///
    /// # Errors
    /// When Redis gives no answer.
    pub(super) async fn find(&self, subject: &Subject) -> Result<Option<Place>, Refusal> {
        // All replicas read this, and it stays for a while: what the client answers goes to the one that wants it.
        let Some(named) = Named::from(subject).without_answer() else { return Ok(None) };
        let reply = self.ask(None, Kind::Find(named)).await?;
        let Some((replica, Kind::Found(Found { operation, stream }))) = reply else {
            return Ok(None);
        };
        let operation = operation.as_deref().map(Operation::decode).transpose();
        let operation = operation.map_err(|_| Refusal::SessionsAway)?.map(Arc::new);
        Ok(Some(Place { replica, operation, stream }))
    }

    /// Has the replica that has this do with it what its client wants.
    ///
    /// # Errors
    /// When it does not say that it has done so.
    pub(super) async fn hand_over(&self, place: &Place, subject: &Subject) -> Result<(), Refusal> {
        let mut named = Named::from(subject);
        named.stream = Some(place.stream);
        let reply = self.ask(Some(place.replica), Kind::Do(named)).await?;
        reply.map(drop).ok_or(Refusal::SessionsAway)
    }

    async fn ask(&self, to: Option<u64>, kind: Kind) -> Result<Option<Received>, Refusal> {
        let mut waiting = self.wait(rand::random());
        let _unread = self.send(to, waiting.number, kind).await.ok_or(Refusal::SessionsAway)?;
        Ok(timeout(REPLY_WITHIN, waiting.messages.recv()).await.ok().flatten())
    }

    fn wait(&self, number: u64) -> Waiting<'_> {
        let (sender, messages) = mpsc::channel(4);
        self.waiting().insert(number, sender);
        Waiting { replicas: self, number, messages }
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, HashMap<u64, mpsc::Sender<Received>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a message to one replica or, without one, to all. It counts as unread as long as the permit lives. None:
    /// Redis did not take it.
    async fn send(&self, to: Option<u64>, number: u64, kind: Kind) -> Option<SemaphorePermit<'_>> {
        let key = inbox(to);
        let message = Message { from: self.number, number, kind: Some(kind) }.encode_to_vec();
        let kib = u32::try_from(message.len() / 1024 + 1).unwrap_or(u32::MAX).min(UNREAD_KIB_MAX);
        let permit = self.unread.acquire_many(kib).await.ok()?;
        let sealed = self.sealer.close(key.as_bytes(), &message)?;
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
        self.store.run::<()>(&command).await.map(|()| permit)
    }

    /// Reads what other replicas send, until the edge stops and nothing of its sessions is under way any more.
    pub(super) async fn receive(
        self: Arc<Self>,
        sessions: Arc<Sessions>,
        stopping: CancellationToken,
    ) {
        let mut unread = Inbox::new(self.number);
        loop {
            let reading = async {
                let read = unread.read(&mut self.reading.clone()).await;
                if let Err(error) = &read {
                    tracing::debug!(error = %drawbridge_sdk::error_chain(error), "messages of replicas cannot be read");
                    tokio::time::sleep(PAUSE).await;
                }
                read.unwrap_or_default()
            };
            let mut reading = std::pin::pin!(reading);
            let is_over = || stopping.is_cancelled() && !sessions.is_busy();
            let early = tokio::select! {
                messages = &mut reading => Some(messages),
                () = stopping.cancelled(), if !stopping.is_cancelled() => None,
            };
            if is_over() {
                return;
            }
            let messages = match early {
                Some(messages) => messages,
                None => reading.await,
            };
            for (key, sealed) in messages {
                let message = self.sealer.open(key.as_bytes(), sealed);
                match message.and_then(|message| Message::decode(message).ok()) {
                    Some(Message { from, number, kind: Some(kind) }) if from != self.number => {
                        self.received(&sessions, from, number, kind);
                    }
                    Some(_) => {}
                    None => tracing::warn!("a replica has another --secret"),
                }
            }
        }
    }

    fn received(self: &Arc<Self>, sessions: &Sessions, from: u64, number: u64, kind: Kind) {
        let reply = match kind {
            Kind::Find(named) => named.locate(sessions).map(Kind::Found),
            // It has arrived twice.
            Kind::Do(_) if self.waiting().contains_key(&number) => None,
            Kind::Do(named) => match named.reader(sessions) {
                Some(reader) => {
                    let relaying = Arc::clone(self).relay(from, number, reader);
                    tokio::spawn(relaying);
                    None
                }
                None if named.is_stream() => {
                    Some(Kind::Events(Events { is_end: true, ..Events::default() }))
                }
                None => named.apply(sessions).map(Kind::Found),
            },
            kind => {
                let waiting = self.waiting().get(&number).cloned();
                if let Some(waiting) = waiting
                    && waiting.try_send((from, kind)).is_err()
                {
                    tracing::debug!(from, "a replica sends more than it was asked for");
                }
                None
            }
        };
        if let Some(reply) = reply {
            let this = Arc::clone(self);
            tokio::spawn(async move { drop(this.send(Some(from), number, reply).await) });
        }
    }
}

fn inbox(of: Option<u64>) -> String {
    of.map_or_else(|| format!("{INBOX}all"), |of| format!("{INBOX}{of:016x}"))
}

/// The two streams that a replica reads, and how far it is with them.
struct Inbox {
    keys: [String; 2],
    /// The last message of each. None: not known yet.
    last: Option<[String; 2]>,
    /// Messages of the own one that were read.
    read: Vec<String>,
}

impl Inbox {
    fn new(number: u64) -> Self {
        Self { keys: [inbox(None), inbox(Some(number))], last: None, read: Vec::new() }
    }

    /// Where reading begins: behind what was sent before this replica was there. Ids are times, so they also go on where
    /// Redis has lost its data, or another server has taken over.
    async fn beginning(&self, redis: &mut Redis) -> Result<[String; 2], RedisError> {
        let mut command = redis::pipe();
        command.cmd("XREVRANGE").arg(&self.keys[0]).arg("+").arg("-").arg("COUNT").arg(1);
        let (latest,): (Vec<(String, Vec<Vec<u8>>)>,) = command.query_async(redis).await?;
        let latest = latest.into_iter().next().map_or_else(|| "0".to_owned(), |(id, _)| id);
        Ok([latest, "0".to_owned()])
    }

    /// Waits for messages. Each comes with the key under which it lay.
    async fn read(&mut self, redis: &mut Redis) -> Result<Vec<(String, Vec<u8>)>, RedisError> {
        let mut last = match self.last.take() {
            Some(last) => last,
            None => self.beginning(redis).await?,
        };
        let mut command = redis::pipe();
        if !self.read.is_empty() {
            command.cmd("XDEL").arg(&self.keys[1]).arg(&self.read).ignore();
        }
        command.cmd("XREAD").arg("COUNT").arg(MESSAGES_AT_ONCE);
        command.arg("BLOCK").arg(u64::try_from(BLOCK.as_millis()).unwrap_or(u64::MAX));
        command.arg("STREAMS").arg(&self.keys).arg(&last);
        let answer: Result<(Unread,), _> = command.query_async(redis).await;
        let (unread,) = answer.inspect_err(|_| self.last = Some(last.clone()))?;
        self.read.clear();
        let mut messages = Vec::new();
        for (key, entries) in unread.unwrap_or_default() {
            let own = key == self.keys[1];
            for (id, fields) in entries {
                last[usize::from(own)].clone_from(&id);
                if own {
                    self.read.push(id);
                }
                messages.extend(fields.into_iter().nth(1).map(|sealed| (key.clone(), sealed)));
            }
        }
        self.last = Some(last);
        Ok(messages)
    }
}
