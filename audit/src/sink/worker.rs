//! The work of one sink: it sends the lines of its logs until each is acknowledged.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use drawbridge_runtime::{
    Condition,
    backoff::ReconnectDelays,
    metric::{Counter, Gauge},
};
use jiff::Timestamp;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{
    SentLog,
    backlog::{Backlog, Batch},
    delivery::{Delivered, SendError},
    name_of,
    orphans::{self, Orphan},
    receiver::Receiver,
};
use crate::{
    metrics::{
        SINK_ATTEMPTS_FAILED, SINK_LAG, SINK_LAG_RECORDS, SINK_RECORDS_DROPPED, SINK_RECORDS_SENT,
    },
    position::Position,
};

/// The first and the longest delay between two attempts.
const DELAYS: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// How often it looks for what replicas that run no more have left.
const ORPHANS_INTERVAL: Duration = Duration::from_secs(300);
/// After how many failed attempts in a row the receiver counts as down.
const FAILURES_UNTIL_DOWN: u32 = 3;

#[derive(Debug)]
struct Metrics {
    sent: Counter,
    deleted: Counter,
    rejected: Counter,
    failed: Counter,
    lag: Gauge,
    lag_records: Gauge,
}

impl Metrics {
    fn new(sink: &'static str) -> Self {
        let dropped =
            |reason: &'static str| SINK_RECORDS_DROPPED.with([sink.into(), reason.into()]);
        Self {
            sent: SINK_RECORDS_SENT.with([sink.into()]),
            deleted: dropped("deleted"),
            rejected: dropped("rejected"),
            failed: SINK_ATTEMPTS_FAILED.with([sink.into()]),
            lag: SINK_LAG.with([sink.into()]),
            lag_records: SINK_LAG_RECORDS.with([sink.into()]),
        }
    }

    fn set_lag(&self, records: u64, oldest: Option<Timestamp>) {
        // A gauge of more than 2^53 records does not matter.
        #[expect(clippy::cast_precision_loss, reason = "it is a metric")]
        self.lag_records.set(records as f64);
        let age = oldest.map(|oldest| Timestamp::now().duration_since(oldest).as_secs_f64());
        self.lag.set(age.unwrap_or_default().max(0.0));
    }
}

/// Sends the logs of a replica to one receiver.
#[derive(Debug)]
pub(super) struct Worker {
    name: &'static str,
    /// The receiver, for people.
    to: String,
    receiver: Receiver,
    log: Arc<SentLog>,
    condition: Condition,
    metrics: Metrics,
}

impl Worker {
    pub(super) fn new(
        name: &'static str,
        to: String,
        receiver: Receiver,
        log: Arc<SentLog>,
        condition: Condition,
    ) -> Self {
        Self { name, to, receiver, log, condition, metrics: Metrics::new(name) }
    }

    /// Sends what earlier logs of this replica have left, and then the log that is being written,
    /// until it is `closing` and all of it is acknowledged. When there is nothing of it to send, it
    /// sends what replicas that run no more have left.
    pub(super) async fn run(self, closing: CancellationToken) {
        let folders = self.log.folders().unwrap_or_else(|error| {
            tracing::error!(%error, "cannot find earlier audit logs to send");
            Vec::new()
        });
        for folder in folders.into_iter().filter(|folder| *folder != self.log.folder) {
            self.send_earlier(&folder).await;
        }
        let mut durable = self.log.durable.clone();
        let mut sending = self.begin(&self.log.folder, None).await;
        let (mut orphan, mut look_at) = (None, Instant::now());
        loop {
            let size = *durable.borrow_and_update();
            if sending.next < size {
                self.send_next(&mut sending, size).await;
                continue;
            }
            if closing.is_cancelled() {
                return;
            }
            if orphan.is_none() && look_at <= Instant::now() {
                look_at = Instant::now() + ORPHANS_INTERVAL;
                orphan = self.find_orphan().await;
            }
            if let Some((left, size)) = &mut orphan {
                if left.next < *size && !left.is_ended {
                    self.send_next(left, *size).await;
                } else {
                    (orphan, look_at) = (None, Instant::now());
                }
                continue;
            }
            self.metrics.set_lag(0, None);
            tokio::select! {
                changed = durable.changed() => if changed.is_err() { return },
                () = closing.cancelled() => {}
                () = sleep_until(look_at) => {}
            }
        }
    }

    async fn send_earlier(&self, folder: &Path) {
        let path = folder.to_owned();
        let size = tokio::task::spawn_blocking(move || Backlog::size(&path)).await;
        let size = match size.unwrap_or_else(|error| Err(io::Error::other(error))) {
            Ok(size) => size,
            Err(error) => {
                tracing::error!(%error, "cannot read an earlier audit log to send it");
                return;
            }
        };
        let mut sending = self.begin(folder, None).await;
        while sending.next < size && !sending.is_ended {
            self.send_next(&mut sending, size).await;
        }
    }

    /// What a replica that runs no more has left, with the number of lines of its log.
    async fn find_orphan(&self) -> Option<(Sending, u64)> {
        let (log, sink, to) = (Arc::clone(&self.log), self.name, self.to.clone());
        let found = tokio::task::spawn_blocking(move || orphans::find(&log, sink, &to)).await;
        match found.unwrap_or_else(|error| Err(io::Error::other(error))) {
            Ok(orphan) => {
                let Orphan { folder, size, lock } = orphan?;
                let sending = self.begin(&folder, Some(lock)).await;
                tracing::info!(log = %sending.log, "sending the rest of another replica's audit log");
                Some((sending, size))
            }
            Err(error) => {
                tracing::warn!(%error, "cannot look for audit logs of other replicas to send");
                None
            }
        }
    }

    /// Begins with the first line that is not acknowledged, when no other process sends the log.
    async fn begin(&self, folder: &Path, mut lock: Option<File>) -> Sending {
        while lock.is_none() {
            lock = match orphans::try_lock(folder, self.name) {
                Ok(lock) => lock,
                Err(error) => {
                    tracing::warn!(%error, "cannot lock an audit log that is sent");
                    break;
                }
            };
            if lock.is_none() {
                sleep(DELAYS.0).await;
            }
        }
        let position = Position::new(folder, self.name, &self.to, self.log.is_required);
        let next = position.load().unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot read how far the audit log was sent; it is sent again");
            0
        });
        self.store(position.store(next));
        let (folder, log) = (folder.to_owned(), name_of(folder));
        Sending { log, folder, backlog: None, position, next, is_ended: false, _lock: lock }
    }

    fn store(&self, stored: io::Result<()>) {
        if let Err(error) = stored {
            let sink = self.name;
            tracing::warn!(sink, %error, "cannot store how far the audit log was sent");
        }
    }

    /// Sends the next lines of the first `size` ones, and stores that they are acknowledged.
    async fn send_next(&self, sending: &mut Sending, size: u64) {
        let batch = match sending.read(size).await {
            Ok(batch) => batch,
            Err(error) => {
                tracing::error!(%error, "cannot read the audit log to send it");
                self.condition.set(Err(format!("the log cannot be read: {error}")));
                self.metrics.failed.increment(1);
                sleep(DELAYS.1).await;
                return;
            }
        };
        if batch.deleted > 0 {
            let (sink, lines) = (self.name, batch.deleted);
            tracing::error!(
                sink,
                lines,
                "lines of the audit log were deleted before they were sent"
            );
            self.metrics.deleted.increment(batch.deleted);
        }
        if batch.lines.is_empty() {
            // Lines that were on the disk are not there: someone has removed them.
            sending.is_ended = true;
            sending.next = sending.next.max(batch.first);
            sleep(DELAYS.0).await;
            return;
        }
        let Some(delivered) = self.send(sending, &batch, size).await else { return };
        sending.next = batch.next();
        self.metrics.sent.increment(batch.lines.len() as u64 - delivered.rejected);
        if delivered.rejected > 0 {
            let (sink, lines) = (self.name, delivered.rejected);
            tracing::error!(sink, lines, "a receiver refused lines of the audit log for good");
            self.metrics.rejected.increment(delivered.rejected);
        }
        let (position, next) = (sending.position.clone(), sending.next);
        let stored = tokio::task::spawn_blocking(move || position.store(next)).await;
        self.store(stored.unwrap_or_else(|error| Err(io::Error::other(error))));
    }

    /// Sends a batch until it is acknowledged. `None`: smaller batches are to be sent instead.
    async fn send(&self, sending: &mut Sending, batch: &Batch, size: u64) -> Option<Delivered> {
        let mut delays = ReconnectDelays::new(DELAYS.0, DELAYS.1);
        let mut failures = 0_u32;
        let is_current = sending.folder == self.log.folder;
        loop {
            let size = if is_current { *self.log.durable.borrow() } else { size };
            self.metrics.set_lag(size - batch.first, batch.oldest());
            let error = match self.receiver.send(&sending.log, batch).await {
                Ok(delivered) => {
                    if failures > 0 {
                        tracing::info!(sink = self.name, "the audit log is sent again");
                    }
                    self.condition.set(Ok(()));
                    return Some(delivered);
                }
                Err(error) => error,
            };
            failures += 1;
            self.fail(&error, failures);
            if error.is_too_large && sending.divide(batch) {
                return None;
            }
            match error.retry_after {
                Some(pause) => sleep(pause).await,
                None => delays.wait().await,
            }
        }
    }

    fn fail(&self, error: &SendError, failures: u32) {
        self.metrics.failed.increment(1);
        let (sink, to) = (self.name, &self.to);
        if failures == 1 {
            tracing::warn!(sink, %to, %error, "the audit log cannot be sent; its files retain it");
        }
        if failures >= FAILURES_UNTIL_DOWN {
            self.condition.set(Err(format!("{to}: {error}")));
        }
    }
}

/// A log that is being sent.
struct Sending {
    /// The name of the log.
    log: Arc<str>,
    folder: PathBuf,
    /// Absent: it begins with the line `next`.
    backlog: Option<Backlog>,
    position: Position,
    /// The number of the first line that is not acknowledged.
    next: u64,
    /// Whether lines are missing at the end of its files.
    is_ended: bool,
    /// No other process sends it. Absent: it cannot be locked.
    _lock: Option<File>,
}

impl Sending {
    async fn read(&mut self, size: u64) -> io::Result<Batch> {
        let backlog = self.backlog.take();
        let mut backlog = backlog.unwrap_or_else(|| Backlog::new(&self.folder, self.next));
        let read = tokio::task::spawn_blocking(move || (backlog.read(size), backlog));
        let (batch, backlog) = read.await.map_err(io::Error::other)?;
        self.backlog = batch.is_ok().then_some(backlog);
        batch
    }

    fn divide(&mut self, batch: &Batch) -> bool {
        self.backlog.as_mut().is_some_and(|backlog| backlog.divide(batch))
    }
}
