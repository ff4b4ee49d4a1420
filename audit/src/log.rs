//! The audit log of a service: what the service calls to record events.

use std::sync::{
    Arc,
    atomic::Ordering,
    mpsc::{SyncSender, TrySendError},
};

use axum::{Router, http::StatusCode, routing::get};
use drawbridge_runtime::{Effect, OperatorActs, ServiceBuilder, private_files};
use jiff::Timestamp;
use tokio::sync::oneshot;

use crate::{
    AuditConfig, AuditMode, DigestKey, Event,
    checkpoint::origin,
    config::host_name,
    event::Admin,
    folder::lock_root,
    metrics::{self, COMMIT_DURATION, RECORDS_LOST},
    note::SigningKey,
    open::{AuditError, OpenedLog, open_log, signing_key_text},
    shared::{AuditUnavailable, Shared, lock},
    sink::{Receivers, SentLog, Sinks},
    tree::Tree,
    writer::{Message, Writer},
};

/// The largest event, in bytes.
const EVENT_BYTES_MAX: usize = 256 << 10;
/// The most bytes of events that wait for the writer.
const QUEUE_BYTES_MAX: usize = 64 << 20;

/// The audit log of a service. Its clones are the same log.
#[derive(Clone, Debug)]
pub struct AuditLog(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Absent: nothing is recorded.
    queue: Option<SyncSender<Message>>,
    shared: Arc<Shared>,
    mode: AuditMode,
    has_arguments: bool,
    key: DigestKey,
}

impl AuditLog {
    /// A log that records nothing.
    ///
    /// # Errors
    /// When no random bytes are available.
    pub fn off() -> Result<Self, AuditError> {
        Ok(Self(Arc::new(Inner {
            queue: None,
            shared: Arc::new(Shared::new(String::new(), String::new(), Tree::in_memory())),
            mode: AuditMode::Best,
            has_arguments: false,
            key: DigestKey::random()?,
        })))
    }

    /// Opens the configured log of a service. The service is ready without it with `best`, and not
    /// with `required`: condition `audit`. At shutdown, what was recorded is written once calls have
    /// ended or the drain timeout has passed.
    ///
    /// # Errors
    /// When the folder or a key cannot be used. A log that cannot be continued is not an error: it
    /// is left as it is, and a new one begins.
    pub fn open(
        config: &AuditConfig,
        service: &ServiceBuilder,
        name: &'static str,
    ) -> Result<Self, AuditError> {
        metrics::register();
        let Some(path) = &config.audit_log else { return Self::off() };
        let folder = Some(path.as_path()).filter(|path| path.as_os_str() != "-");
        let failed = |source| AuditError::Folder { folder: path.clone(), source };
        if let Some(folder) = folder {
            private_files::create_folder(folder).map_err(failed)?;
        }
        let _opening = folder.map(lock_root).transpose().map_err(failed)?;
        let key = match (&config.audit_key_file, folder) {
            (Some(file), _) => DigestKey::read(file)?,
            (None, Some(folder)) => DigestKey::read_or_create(&folder.join("digest.key"))?,
            (None, None) => DigestKey::random()?,
        };
        let receivers = Receivers::new(config)?;
        let replica = config.audit_replica.clone().unwrap_or_else(host_name);
        let signing_key = signing_key_text(config, folder, name, &replica)?;
        let sign_as = |log: &str| {
            SigningKey::parse_as(&signing_key.1, &origin(&config.audit_mesh, log))
                .map_err(|source| AuditError::SigningKey { file: signing_key.0.clone(), source })
        };
        sign_as("")?;
        let is_own = |log: &str, key: &str| {
            sign_as(log).is_ok_and(|signing| signing.public().to_string() == key)
        };
        let opened = open_log(config, folder, name, &replica, is_own).map_err(failed)?;
        let OpenedLog { log, output, tree, mut start } = opened;
        let (origin, signing) = (origin(&config.audit_mesh, &log), sign_as(&log)?);
        start.record.service = name.to_owned();
        start.record.digest_key = key.id().to_owned();
        let public_key = signing.public().to_string();
        let (shared, own_folder) =
            (Arc::new(Shared::new(origin, public_key, tree)), output.folder());
        lock(&shared.peers).restore(&start.anchors);
        let effect = match config.audit_mode {
            AuditMode::Best => Effect::Degrading,
            AuditMode::Required => Effect::Required,
        };
        let condition = service.readiness().condition("audit", effect);
        let writer = Writer::new(output, Arc::clone(&shared), signing, log, start, condition);
        let queue = writer.spawn(config.audit_mode).map_err(failed)?;
        let sent = own_folder.map(|folder| SentLog {
            service: name,
            replica,
            folder,
            durable: shared.durable.subscribe(),
            is_required: config.audit_mode == AuditMode::Required,
        });
        let sinks = sent.map(|sent| Sinks::start(receivers, sent, service)).transpose();
        let sinks = sinks.map_err(failed)?.unwrap_or_default();
        service.on_drained(stop(queue.clone(), sinks));
        let log = Self(Arc::new(Inner {
            queue: Some(queue),
            shared,
            mode: config.audit_mode,
            has_arguments: config.audit_arguments,
            key,
        }));
        log.observe(&service.acts());
        Ok(log)
    }

    /// Records what operators do from now on.
    pub fn observe(&self, acts: &OperatorActs) {
        if self.is_on() {
            let log = self.clone();
            acts.observe(move |act| log.record(Event::Admin(Box::new(Admin::of(act)))));
        }
    }

    /// Whether anything is recorded.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.0.queue.is_some()
    }

    /// What happens while the log cannot be written.
    #[must_use]
    pub fn mode(&self) -> AuditMode {
        self.0.mode
    }

    /// Whether arguments are recorded, without sensitive ones.
    #[must_use]
    pub fn has_arguments(&self) -> bool {
        self.0.has_arguments
    }

    /// The keyed digest of JSON, see [`DigestKey::digest`].
    #[must_use]
    pub fn digest(&self, json: &[u8]) -> String {
        self.0.key.digest(json)
    }

    /// Records an event. It never waits: what does not fit into the queue is counted, and a record
    /// `gap` says how many events are missing.
    pub fn record(&self, event: Event) {
        if self.is_on() {
            // With `best` a lost event is counted, not an error of its caller.
            let _ = self.send(event, None);
        }
    }

    /// Records an event. With `required` it waits until the record is on the disk.
    ///
    /// # Errors
    /// With `required`, when the record cannot be written: what it is about must be refused.
    pub async fn commit(&self, event: Event) -> Result<(), AuditUnavailable> {
        if self.0.mode == AuditMode::Best || !self.is_on() {
            self.record(event);
            return Ok(());
        }
        let began = std::time::Instant::now();
        let (done, written) = oneshot::channel();
        self.send(event, Some(done))?;
        let written = written.await;
        COMMIT_DURATION.get().record(began.elapsed());
        written.unwrap_or_else(|_| Err(AuditUnavailable("the service stops".to_owned())))
    }

    /// Whether events can be recorded, to refuse what could not be. With `best` they always can.
    ///
    /// # Errors
    /// With `required`, while the log cannot be written.
    pub fn check(&self) -> Result<(), AuditUnavailable> {
        match lock(&self.0.shared.problem).as_ref() {
            Some(problem) if self.0.mode == AuditMode::Required => {
                Err(AuditUnavailable(problem.clone()))
            }
            _ => Ok(()),
        }
    }

    /// The latest signed checkpoint. `None`: nothing is signed yet.
    #[must_use]
    pub fn checkpoint(&self) -> Option<String> {
        lock(&self.0.shared.published).as_ref().map(|(_, note)| note.clone())
    }

    /// The route `/checkpoint` of an admin port: the latest signed checkpoint.
    pub fn admin_routes(&self) -> Router {
        let log = self.clone();
        let answer = move || std::future::ready(log.checkpoint().ok_or(StatusCode::NOT_FOUND));
        Router::new().route("/checkpoint", get(answer))
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.0.shared
    }

    #[cfg(test)]
    pub(crate) fn queue(&self) -> &SyncSender<Message> {
        self.0.queue.as_ref().unwrap()
    }

    fn send(
        &self,
        event: Event,
        done: Option<oneshot::Sender<Result<(), AuditUnavailable>>>,
    ) -> Result<(), AuditUnavailable> {
        let Some(queue) = &self.0.queue else { return Ok(()) };
        let time = Timestamp::now();
        let lose = |reason: &'static str, text: &str| {
            RECORDS_LOST.with([reason.into()]).increment(1);
            self.0.shared.lose(1, time, text);
            Err(AuditUnavailable(text.to_owned()))
        };
        let (name, Some(event)) = (event.name(), encode(event)) else {
            return lose("too_large", "an event is too large");
        };
        let bytes = event.len();
        let queued = self.0.shared.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
        let message = Message::Event { name, time, event, done };
        let sent = if queued + bytes > QUEUE_BYTES_MAX {
            Err(TrySendError::Full(message))
        } else {
            queue.try_send(message)
        };
        if sent.is_ok() {
            return Ok(());
        }
        self.0.shared.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
        lose("queue_full", "the queue of the writer is full")
    }
}

/// The JSON of an event. Arguments that are too large are omitted.
fn encode(mut event: Event) -> Option<Vec<u8>> {
    let bytes = serde_json::to_vec(&event).ok()?;
    if bytes.len() <= EVENT_BYTES_MAX {
        return Some(bytes);
    }
    let Event::Decision(decision) = &mut event else { return None };
    decision.arguments = None;
    decision.arguments_redacted = true;
    serde_json::to_vec(&event).ok().filter(|bytes| bytes.len() <= EVENT_BYTES_MAX)
}

/// Writes what was recorded, and the last checkpoint, and lets sinks send it.
async fn stop(queue: SyncSender<Message>, sinks: Sinks) {
    let (done, stopped) = oneshot::channel();
    let sent = tokio::task::spawn_blocking(move || queue.send(Message::Stop(done)).is_ok()).await;
    if !sent.unwrap_or_default() || stopped.await.is_err() {
        tracing::error!("the audit log could not be completed");
    }
    sinks.close().await;
}

#[cfg(test)]
mod tests;
