//! The messages of one response stream, in order: a bounded buffer of events. Events of a session
//! are retained for some seconds, so that a client can resume a broken stream.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::StatusCode;
use tokio::sync::{Notify, futures::Notified};

use crate::{authorizer::Reauthorizer, budget::UnreadResponse};

/// How long the events of an ended stream can be resumed, at least.
pub(super) const RETAINED_FOR: Duration = Duration::from_secs(10);

/// How long a writer waits for a client that reads slowly. Then the oldest events are dropped.
const SLOW_READER_TIMEOUT: Duration = Duration::from_secs(30);

/// The bounds of the buffers of all streams.
#[derive(Debug)]
pub(super) struct BufferLimits {
    pub(super) events_max: usize,
    pub(super) bytes_max: usize,
    /// The total of all streams, for clients that may resume.
    pub(super) retained_bytes_max: usize,
    pub(super) retained_bytes: AtomicUsize,
}

/// One message of a stream.
#[derive(Clone, Debug)]
pub(super) struct StreamEvent {
    pub(super) message: Bytes,
    /// A permission that its reader needs in addition.
    pub(super) authorization: Option<Reauthorizer>,
    /// Counts the event as unread until it is delivered. `None`: it is small.
    pub(super) unread: Option<Arc<UnreadResponse>>,
}

impl StreamEvent {
    pub(super) fn new(message: Bytes, authorization: Option<Reauthorizer>) -> Self {
        Self { message, authorization, unread: None }
    }
}

/// The events of one request, or of one session's standalone stream.
#[derive(Debug)]
pub(super) struct EventStream {
    /// By which a client names the stream. `None`: it cannot be resumed.
    id: Option<u64>,
    /// Whether delivered events are retained for a client that resumes.
    is_retained: bool,
    bounds: Arc<BufferLimits>,
    buffer: Mutex<Buffer>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Buffer {
    /// The latest events. Events are numbered from 1.
    events: VecDeque<StreamEvent>,
    bytes: usize,
    /// The number of events that have left the buffer.
    dropped: u64,
    /// The number of delivered events.
    delivered: u64,
    /// The open readers, oldest first. The last one receives new events.
    readers: Vec<u64>,
    readers_opened: u64,
    /// Whether the response has begun as a stream.
    is_open: bool,
    ended: Option<(Instant, StatusCode)>,
}

/// How a response starts.
#[derive(Debug)]
pub(super) enum ResponseStart {
    /// One message is the whole response.
    Complete(StatusCode, Bytes),
    Stream,
}

/// The outcome of a read.
#[derive(Debug)]
pub(super) enum ReadOutcome {
    Event(u64, StreamEvent),
    Empty,
    End,
}

/// A reader of a stream.
#[derive(Debug)]
pub(super) struct EventReader {
    stream: Arc<EventStream>,
    number: u64,
    /// The last event that it has, while it replays delivered events.
    replay_after: Option<u64>,
}

impl Buffer {
    fn last(&self) -> u64 {
        self.dropped + self.events.len() as u64
    }

    fn get(&self, after: u64) -> Option<(u64, StreamEvent)> {
        let after = after.max(self.dropped);
        let at = usize::try_from(after - self.dropped).ok()?;
        Some((after + 1, self.events.get(at)?.clone()))
    }
}

impl EventStream {
    pub(super) fn new(bounds: &Arc<BufferLimits>, id: Option<u64>) -> Arc<Self> {
        Self::with_retention(bounds, id, id.is_some())
    }

    /// A copy of another replica's stream, for one client that resumes it.
    pub(super) fn copy(bounds: &Arc<BufferLimits>, id: u64) -> Arc<Self> {
        Self::with_retention(bounds, Some(id), false)
    }

    fn with_retention(bounds: &Arc<BufferLimits>, id: Option<u64>, is_retained: bool) -> Arc<Self> {
        let bounds = Arc::clone(bounds);
        Arc::new(Self { id, is_retained, bounds, buffer: Mutex::default(), changed: Notify::new() })
    }

    pub(super) fn id(&self) -> Option<u64> {
        self.id
    }

    fn lock(&self) -> MutexGuard<'_, Buffer> {
        self.buffer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends an event once the buffer has space. Without a reader it does not wait: the oldest
    /// events are dropped.
    pub(super) async fn push(&self, message: Bytes) {
        self.push_event(None, StreamEvent::new(message, None)).await;
    }

    /// Appends an event of the original stream, under its number there.
    pub(super) async fn push_at(&self, number: u64, event: StreamEvent) {
        self.push_event(Some(number), event).await;
    }

    async fn push_event(&self, number: Option<u64>, event: StreamEvent) {
        let until = Instant::now() + SLOW_READER_TIMEOUT;
        loop {
            let changed = self.changed();
            {
                let mut buffer = self.lock();
                let pending = buffer.last() - buffer.delivered;
                let waits_for_reader = !buffer.is_open || !buffer.readers.is_empty();
                // A gap before it is skipped once all earlier events have been delivered.
                let is_gap = number.is_some_and(|number| number != buffer.last() + 1);
                let is_full = pending >= self.bounds.events_max as u64
                    || pending > 0
                        && (is_gap || buffer.bytes + event.message.len() > self.bounds.bytes_max);
                // An event may arrive twice.
                if buffer.ended.is_some() || number.is_some_and(|number| number <= buffer.last()) {
                    return;
                }
                if !(waits_for_reader && is_full) || until <= Instant::now() {
                    if is_gap && let Some(number) = number {
                        while self.drop_oldest(&mut buffer) {}
                        (buffer.dropped, buffer.delivered) = (number - 1, number - 1);
                    }
                    return self.append(&mut buffer, event);
                }
            }
            drop(tokio::time::timeout_at(until.into(), changed).await);
        }
    }

    /// Appends an event unless an equal one is pending.
    pub(super) fn push_unless_pending(&self, event: StreamEvent) {
        let mut buffer = self.lock();
        let pending = usize::try_from(buffer.last() - buffer.delivered).unwrap_or(usize::MAX);
        let is_pending =
            buffer.events.iter().rev().take(pending).any(|other| other.message == event.message);
        if buffer.ended.is_none() && !is_pending {
            self.append(&mut buffer, event);
        }
    }

    /// Appends the response, which is the last event.
    pub(super) fn finish(
        &self,
        status: StatusCode,
        message: Bytes,
        unread: Option<Arc<UnreadResponse>>,
    ) {
        let mut buffer = self.lock();
        if buffer.ended.is_none() {
            self.append(&mut buffer, StreamEvent { message, authorization: None, unread });
            buffer.ended = Some((Instant::now(), status));
        }
    }

    /// Ends the stream without a response.
    pub(super) fn end(&self) {
        self.lock().ended.get_or_insert((Instant::now(), StatusCode::OK));
        self.changed.notify_waiters();
    }

    fn append(&self, buffer: &mut Buffer, event: StreamEvent) {
        buffer.bytes += event.message.len();
        self.bounds.retained_bytes.fetch_add(event.message.len(), Ordering::Relaxed);
        buffer.events.push_back(event);
        self.trim(buffer);
        self.changed.notify_waiters();
    }

    /// Drops the oldest events beyond the bounds; the last one stays for a client that resumes.
    fn trim(&self, buffer: &mut Buffer) {
        loop {
            let retained = self.bounds.retained_bytes.load(Ordering::Relaxed);
            let is_retained = self.is_retained && retained <= self.bounds.retained_bytes_max;
            let was_delivered = buffer.delivered > buffer.dropped;
            // It has no reader, and no client has resumed it yet.
            let is_abandoned = buffer.is_open && buffer.readers.is_empty();
            let is_oversized = buffer.events.len() > self.bounds.events_max
                || buffer.bytes > self.bounds.bytes_max;
            if !((was_delivered || is_abandoned) && !is_retained
                || is_oversized && buffer.events.len() > 1)
            {
                return;
            }
            if !self.drop_oldest(buffer) {
                return;
            }
        }
    }

    fn drop_oldest(&self, buffer: &mut Buffer) -> bool {
        let Some(event) = buffer.events.pop_front() else { return false };
        buffer.bytes -= event.message.len();
        self.bounds.retained_bytes.fetch_sub(event.message.len(), Ordering::Relaxed);
        buffer.dropped += 1;
        buffer.delivered = buffer.delivered.max(buffer.dropped);
        true
    }

    /// Waits until it is known how the response starts. It becomes a stream with the first event
    /// before the response, or after a quiet period.
    pub(super) async fn response_start(&self, quiet: Option<Duration>) -> ResponseStart {
        // A waiter that gives up never reads the stream.
        let _open = OpenOnDrop(self);
        let quiet_until = quiet.map(|quiet| Instant::now() + quiet);
        loop {
            let changed = self.changed();
            {
                let mut buffer = self.lock();
                match buffer.ended {
                    Some((_, status)) if buffer.last() <= 1 && !buffer.is_open => {
                        let event = buffer.events.front_mut();
                        let message = event.map(|event| {
                            UnreadResponse::track(event.unread.take(), event.message.clone())
                        });
                        return ResponseStart::Complete(status, message.unwrap_or_default());
                    }
                    _ => {}
                }
                let is_due = quiet_until.is_some_and(|until| until <= Instant::now());
                if is_due || buffer.last() > 0 {
                    buffer.is_open = true;
                    return ResponseStart::Stream;
                }
            }
            match quiet_until {
                Some(until) => drop(tokio::time::timeout_at(until.into(), changed).await),
                None => changed.await,
            }
        }
    }

    /// Opens a reader that replays delivered events after `last`, and then reads new ones. `None`:
    /// the stream never had that event.
    pub(super) fn open_reader(self: &Arc<Self>, last: Option<u64>) -> Option<EventReader> {
        let mut buffer = self.lock();
        if last.is_some_and(|last| last > buffer.last()) {
            return None;
        }
        buffer.is_open = true;
        buffer.readers_opened += 1;
        let number = buffer.readers_opened;
        buffer.readers.push(number);
        drop(buffer);
        self.changed.notify_waiters();
        Some(EventReader { stream: Arc::clone(self), number, replay_after: last })
    }

    /// Whether no client can resume it any more.
    pub(super) fn is_expired(&self) -> bool {
        let buffer = self.lock();
        buffer.readers.is_empty()
            && buffer.ended.is_some_and(|(since, _)| since.elapsed() > RETAINED_FOR)
    }

    /// Whether the stream ever had this event.
    pub(super) fn has(&self, number: u64) -> bool {
        number <= self.lock().last()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lock().last() == 0
    }

    pub(super) fn has_response(&self) -> bool {
        self.lock().ended.is_some()
    }

    pub(super) fn has_reader(&self) -> bool {
        !self.lock().readers.is_empty()
    }

    /// Resolves with the next change after this call.
    pub(super) fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }
}

/// Opens a stream when this is dropped: without a reader, its writer does not wait for one.
struct OpenOnDrop<'a>(&'a EventStream);

impl Drop for OpenOnDrop<'_> {
    fn drop(&mut self) {
        self.0.lock().is_open = true;
        self.0.changed.notify_waiters();
    }
}

impl Drop for EventStream {
    fn drop(&mut self) {
        let bytes = self.buffer.get_mut().unwrap_or_else(PoisonError::into_inner).bytes;
        self.bounds.retained_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl EventReader {
    pub(super) fn stream(&self) -> &Arc<EventStream> {
        &self.stream
    }

    /// Reads the next event, if there is one.
    pub(super) fn next(&mut self) -> ReadOutcome {
        let mut buffer = self.stream.lock();
        if let Some(after) = self.replay_after {
            if after.max(buffer.dropped) < buffer.delivered
                && let Some((number, event)) = buffer.get(after)
            {
                self.replay_after = Some(number);
                return ReadOutcome::Event(number, event);
            }
            self.replay_after = None;
        }
        if buffer.delivered == buffer.last() {
            return if buffer.ended.is_some() { ReadOutcome::End } else { ReadOutcome::Empty };
        }
        // Each event is delivered to one reader.
        if buffer.readers.last() != Some(&self.number) {
            return ReadOutcome::Empty;
        }
        let Some((number, event)) = buffer.get(buffer.delivered) else { return ReadOutcome::Empty };
        buffer.delivered = number;
        // Retained events have a bound of their own.
        if let Some(event) = usize::try_from(number - 1 - buffer.dropped)
            .ok()
            .and_then(|at| buffer.events.get_mut(at))
        {
            event.unread = None;
        }
        self.stream.trim(&mut buffer);
        drop(buffer);
        self.stream.changed.notify_waiters();
        ReadOutcome::Event(number, event)
    }
}

impl Drop for EventReader {
    fn drop(&mut self) {
        self.stream.lock().readers.retain(|number| *number != self.number);
        self.stream.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests;
