//! The writer of a log: one thread, which alone appends lines.

use std::{
    collections::HashMap,
    io::{self, Write as _},
    sync::{
        Arc,
        atomic::Ordering,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use drawbridge_runtime::{
    Condition,
    metric::{Counter, Gauge},
};
use jiff::Timestamp;
use tokio::sync::oneshot;

use self::batch::{Entry, answer_all, entry, gap};
pub(crate) use self::batch::{Message, Start};
use crate::{
    AuditMode, Checkpoint,
    event::{CheckpointRecord, Event, FORMAT_VERSION, Start as StartRecord, Stop, schemas},
    files::FileEnd,
    lines::line_hash,
    merkle::Hash,
    metrics::{LAST_CHECKPOINT, LAST_WRITE, RECORDS_LOST, RECORDS_WRITTEN, WRITABLE},
    note::SigningKey,
    output::Output,
    shared::{AuditUnavailable, Shared, lock},
};

mod batch;

/// The most events that wait for the writer.
const QUEUE_EVENTS_MAX: usize = 1 << 15;
/// About the most bytes of one write.
const BATCH_BYTES_MAX: usize = 1 << 20;
/// How long the writer collects events where no caller waits for them.
const BATCH_DELAY: Duration = Duration::from_millis(2);
/// How long lines may be in memory of the operating system alone, where no caller waits for them.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);
/// How often a write is tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// How long lines may be without a checkpoint.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(10);
/// How many lines may be without a checkpoint.
const CHECKPOINT_RECORDS: u64 = 1_000;

/// The handles of metrics, of the recorder of the service.
#[derive(Debug)]
struct Metrics {
    written: HashMap<&'static str, Counter>,
    lost: Counter,
    writable: Gauge,
    last_write: Gauge,
    last_checkpoint: Gauge,
}

/// Appends lines, and signs checkpoints.
#[derive(Debug)]
pub(crate) struct Writer {
    output: Output,
    shared: Arc<Shared>,
    signing: SigningKey,
    log: String,
    /// The number of the next line.
    seq: u64,
    /// The hash of the last line.
    prev: String,
    /// The first line of this process, until it is written.
    start: Option<Box<StartRecord>>,
    /// Lines since the last checkpoint, without those of checkpoints and anchors.
    news: u64,
    checkpoint_at: Instant,
    is_synced: bool,
    synced_at: Instant,
    is_failing: bool,
    condition: Condition,
    metrics: Metrics,
}

impl Writer {
    pub(crate) fn new(
        output: Output,
        shared: Arc<Shared>,
        signing: SigningKey,
        log: String,
        start: Start,
        condition: Condition,
    ) -> Self {
        let metrics = Metrics {
            written: HashMap::new(),
            lost: RECORDS_LOST.with(["write_failed".into()]),
            writable: WRITABLE.get(),
            last_write: LAST_WRITE.get(),
            last_checkpoint: LAST_CHECKPOINT.get(),
        };
        let seq = lock(&shared.tree).size();
        let record = StartRecord {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            origin: shared.origin.clone(),
            key: shared.public_key.clone(),
            ..start.record
        };
        Self {
            output,
            shared,
            signing,
            log,
            seq,
            prev: start.prev,
            start: Some(Box::new(record)),
            news: 0,
            checkpoint_at: Instant::now(),
            is_synced: true,
            synced_at: Instant::now(),
            is_failing: false,
            condition,
            metrics,
        }
    }

    /// Starts the thread. The first line is there when it returns, unless the log cannot be written.
    pub(crate) fn spawn(mut self, mode: AuditMode) -> io::Result<SyncSender<Message>> {
        for (name, _) in schemas() {
            self.metrics.written.insert(name, RECORDS_WRITTEN.with([name.into()]));
        }
        self.metrics.writable.set(1);
        let (queue, messages) = sync_channel(QUEUE_EVENTS_MAX);
        self.write(Vec::new());
        self.condition.set(lock(&self.shared.problem).clone().map_or(Ok(()), Err));
        self.output.prune(&mut lock(&self.shared.tree));
        let dispatch = tracing::dispatcher::get_default(Clone::clone);
        thread::Builder::new().name("audit".to_owned()).spawn(move || {
            let _logging = tracing::dispatcher::set_default(&dispatch);
            let stopped = self.run(&messages, mode);
            // The files are free for another process before the service has stopped.
            drop(self);
            if let Some(done) = stopped {
                let _ = done.send(());
            }
        })?;
        Ok(queue)
    }

    /// Writes until the service stops. Returns who waits for that.
    fn run(
        &mut self,
        messages: &Receiver<Message>,
        mode: AuditMode,
    ) -> Option<oneshot::Sender<()>> {
        loop {
            let first = match messages.recv_timeout(self.patience()) {
                Ok(message) => Some(message),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => {
                    self.stop();
                    return None;
                }
            };
            let is_idle = first.is_none();
            let (mut batch, mut bytes, mut stopped) = (Vec::new(), 0, None);
            #[cfg(test)]
            let mut asked = Vec::new();
            for message in first.into_iter().chain(messages.try_iter()) {
                match message {
                    Message::Event { name, time, event, done } => {
                        bytes += event.len();
                        batch.push(Entry { name, time, event, done });
                    }
                    Message::Stop(done) => stopped = Some(done),
                    #[cfg(test)]
                    Message::Checkpoint(done) => asked.push(done),
                }
                if bytes >= BATCH_BYTES_MAX {
                    break;
                }
            }
            self.shared.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.write(batch);
            self.upkeep();
            #[cfg(test)]
            for done in asked {
                self.checkpoint();
                let _ = done.send(());
            }
            if stopped.is_some() {
                self.stop();
                return stopped;
            }
            if mode == AuditMode::Best && !is_idle {
                thread::sleep(BATCH_DELAY);
            }
        }
    }

    /// How long to wait for an event.
    fn patience(&self) -> Duration {
        let until = |at: Instant, interval: Duration| interval.saturating_sub(at.elapsed());
        if self.is_failing {
            return RETRY_INTERVAL;
        }
        let is_lost = lock(&self.shared.lost).count > 0;
        let mut patience = if is_lost { RETRY_INTERVAL } else { Duration::from_secs(3600) };
        if !self.is_synced {
            patience = patience.min(until(self.synced_at, SYNC_INTERVAL));
        }
        if self.news > 0 {
            patience = patience.min(until(self.checkpoint_at, CHECKPOINT_INTERVAL));
        }
        patience
    }

    /// What is due between batches.
    fn upkeep(&mut self) {
        if !self.is_synced && !self.is_failing && self.synced_at.elapsed() >= SYNC_INTERVAL {
            let synced = self.sync();
            self.report(synced);
        }
        let is_due = self.news >= CHECKPOINT_RECORDS
            || (self.news > 0 && self.checkpoint_at.elapsed() >= CHECKPOINT_INTERVAL);
        if is_due && !self.is_failing {
            self.checkpoint();
        }
    }

    fn stop(&mut self) {
        let service = self.log.split('/').next().unwrap_or_default().to_owned();
        self.write(vec![entry(&Event::Stop(Stop { service }))]);
        if !self.is_failing {
            self.checkpoint();
            let synced = self.sync();
            self.report(synced);
        }
        if let Err(error) = lock(&self.shared.tree).sync() {
            // The next start computes it from the lines.
            tracing::warn!(%error, "cannot store the hashes of the audit log");
        }
    }

    /// Writes a batch, after a record of what was lost before.
    fn write(&mut self, events: Vec<Entry>) {
        let lost = lock(&self.shared.lost).clone();
        let start = self.start.clone().map(|start| entry(&Event::Start(start)));
        let mut batch: Vec<_> = start.into_iter().collect();
        batch.extend((lost.count > 0).then(|| gap(&lost)));
        let own = batch.len();
        batch.extend(events);
        if batch.is_empty() {
            if self.is_failing {
                let synced = self.sync();
                self.report(synced);
            }
            return;
        }
        self.rotate();
        let (lines, leaves, prev) = self.format(&batch);
        let written = self.output.append(&lines);
        if let Err(error) = written {
            self.lose(batch.split_off(own), &error);
            return;
        }
        self.seq += leaves.len() as u64;
        (self.prev, self.start) = (prev, None);
        self.is_synced = false;
        self.add(leaves);
        lock(&self.shared.lost).count -= lost.count;
        for entry in &batch {
            if let Some(counter) = self.metrics.written.get(entry.name) {
                counter.increment(1);
            }
            self.news += u64::from(!matches!(entry.name, "checkpoint" | "anchor"));
        }
        self.metrics.last_write.set(Timestamp::now().as_duration().as_secs_f64());
        let is_awaited = batch.iter().any(|entry| entry.done.is_some());
        let synced = if is_awaited || self.is_failing { self.sync() } else { Ok(()) };
        let answer = synced.as_ref().copied().map_err(|e| AuditUnavailable(e.to_string()));
        self.report(synced);
        answer_all(batch, &answer);
    }

    /// The lines of a batch, the hashes of their leaves, and the hash of the last line.
    fn format(&self, batch: &[Entry]) -> (Vec<u8>, Vec<Hash>, String) {
        let mut lines = Vec::with_capacity(batch.iter().map(|entry| entry.event.len() + 256).sum());
        let (mut leaves, mut prev) = (Vec::with_capacity(batch.len()), self.prev.clone());
        for (seq, Entry { time, event, .. }) in (self.seq..).zip(batch) {
            let (begin, log) = (lines.len(), &self.log);
            // The event is an object with at least one member. Writing to a vector cannot fail.
            let _ = write!(
                lines,
                r#"{{"v":{FORMAT_VERSION},"log":"{log}","seq":{seq},"time":"{time:.6}","prev":"{prev}","#
            );
            lines.extend(&event[1..]);
            prev = line_hash(&lines[begin..]);
            leaves.push(Hash::of_leaf(&lines[begin..]));
            lines.push(b'\n');
        }
        (lines, leaves, prev)
    }

    fn add(&mut self, leaves: Vec<Hash>) {
        let mut tree = lock(&self.shared.tree);
        leaves.into_iter().for_each(|leaf| tree.push(leaf));
        // What cannot be stored remains in memory.
        if let Err(error) = tree.flush() {
            tracing::warn!(%error, "cannot store the hashes of the audit log");
        }
    }

    fn lose(&mut self, lost: Vec<Entry>, error: &io::Error) {
        if let Some(first) = lost.first() {
            let count = lost.len() as u64;
            self.shared.lose(count, first.time, &error.to_string());
            self.metrics.lost.increment(count);
        }
        self.report(Err(io::Error::new(error.kind(), error.to_string())));
        answer_all(lost, &Err(AuditUnavailable(error.to_string())));
    }

    fn sync(&mut self) -> io::Result<()> {
        self.synced_at = Instant::now();
        self.output.sync()?;
        self.is_synced = true;
        self.shared.durable.send_replace(self.seq);
        Ok(())
    }

    /// Publishes whether the log can be written.
    fn report(&mut self, written: io::Result<()>) {
        let problem = written.err().map(|error| error.to_string());
        if problem.is_some() || self.is_failing {
            self.is_failing = problem.is_some();
            self.metrics.writable.set(if self.is_failing { 0 } else { 1 });
            lock(&self.shared.problem).clone_from(&problem);
            let reason = problem.map(|problem| format!("the log cannot be written: {problem}"));
            self.condition.set(reason.map_or(Ok(()), Err));
        }
    }

    /// Begins a new file if the open one is full. If that fails, the open one goes on.
    fn rotate(&mut self) {
        if self.is_failing || !self.output.is_full() {
            return;
        }
        let Some(note) = self.sign() else { return };
        let mut tree = lock(&self.shared.tree);
        let end = FileEnd {
            file: String::new(),
            size: self.seq,
            prev: self.prev.clone(),
            frontier: tree.frontier().clone(),
            key: self.shared.public_key.clone(),
            note,
        };
        if let Err(error) = self.output.rotate(end, &mut tree) {
            tracing::error!(%error, "cannot begin a new file of the audit log");
        }
    }

    /// The signed checkpoint of all lines.
    fn sign(&self) -> Option<String> {
        let origin = self.shared.origin.clone();
        let root = lock(&self.shared.tree).root();
        let signed = Checkpoint { origin, size: self.seq, root }.sign(&self.signing);
        signed.inspect_err(|error| tracing::error!(%error, "cannot sign a checkpoint")).ok()
    }

    /// Records a checkpoint of all lines, and publishes one that covers its own line too.
    fn checkpoint(&mut self) {
        self.checkpoint_at = Instant::now();
        self.news = 0;
        let Some(note) = self.sign() else { return };
        let (size, key) = (self.seq, self.shared.public_key.clone());
        let record = CheckpointRecord { size, key, note };
        self.write(vec![entry(&Event::Checkpoint(record))]);
        if self.is_failing {
            return;
        }
        let Some(note) = self.sign() else { return };
        if let Err(error) = self.output.publish(&note) {
            tracing::warn!(%error, "cannot store the checkpoint of the audit log");
        }
        self.metrics.last_checkpoint.set(Timestamp::now().as_duration().as_secs_f64());
        *lock(&self.shared.published) = Some((self.seq, note));
    }
}
