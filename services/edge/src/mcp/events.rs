//! What goes to a client before and with an answer, in its order: a bounded buffer of events, of which those
//! of a session are retained for some seconds, so that a client can take a broken stream up again.

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

use crate::{admission::Unsent, admission::authorizer::Reauthorizer};

/// How long the events of a stream that has ended can be fetched, at least.
pub(super) const RETAINED_FOR: Duration = Duration::from_secs(10);

/// How long work waits for a client that reads slowly. Then the oldest events go.
const SLOW_READER: Duration = Duration::from_secs(30);

/// What the buffers of all streams may hold.
#[derive(Debug)]
pub(super) struct Bounds {
    pub(super) events_max: usize,
    pub(super) bytes_max: usize,
    /// Of what is retained for clients that may come back, in all.
    pub(super) retained_bytes_max: usize,
    pub(super) retained_bytes: AtomicUsize,
}

/// One message of a stream.
#[derive(Clone, Debug)]
pub(super) struct Event {
    pub(super) message: Bytes,
    /// What whoever reads it must be allowed, besides.
    pub(super) needs: Option<Reauthorizer>,
    /// Counts it as unread until it is delivered. Absent: it is small.
    pub(super) unsent: Option<Arc<Unsent>>,
}

impl Event {
    pub(super) fn new(message: Bytes, needs: Option<Reauthorizer>) -> Self {
        Self { message, needs, unsent: None }
    }
}

/// The events of one request, or of one session's standalone stream.
#[derive(Debug)]
pub(super) struct EventStream {
    /// By which a client names it. None: it cannot be taken up again.
    id: Option<u64>,
    /// Whether what was delivered is retained for a client that comes back.
    retains: bool,
    bounds: Arc<Bounds>,
    inner: Mutex<Inner>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    /// Events are numbered from 1; this holds the latest of them.
    events: VecDeque<Event>,
    bytes: usize,
    /// How many have left the buffer.
    gone: u64,
    /// How many have been delivered.
    delivered: u64,
    /// Who reads, in their order. The last is given what is new.
    readers: Vec<u64>,
    readers_ever: u64,
    /// Whether the response has begun as a stream.
    is_open: bool,
    ended: Option<(Instant, StatusCode)>,
}

/// How a response begins.
#[derive(Debug)]
pub(super) enum Opening {
    /// The answer is all there is.
    Whole(StatusCode, Bytes),
    Stream,
}

/// What a reader finds.
#[derive(Debug)]
pub(super) enum Next {
    Event(u64, Event),
    Nothing,
    End,
}

/// Who reads a stream.
#[derive(Debug)]
pub(super) struct Reader {
    stream: Arc<EventStream>,
    number: u64,
    /// How many it has, while it is behind what was delivered.
    behind: Option<u64>,
}

impl Inner {
    fn last(&self) -> u64 {
        self.gone + self.events.len() as u64
    }

    fn get(&self, after: u64) -> Option<(u64, Event)> {
        let after = after.max(self.gone);
        let at = usize::try_from(after - self.gone).ok()?;
        Some((after + 1, self.events.get(at)?.clone()))
    }
}

impl EventStream {
    pub(super) fn new(bounds: &Arc<Bounds>, id: Option<u64>) -> Arc<Self> {
        Self::retaining(bounds, id, id.is_some())
    }

    /// A copy of another replica's stream, for one client that takes it up again.
    pub(super) fn copy(bounds: &Arc<Bounds>, id: u64) -> Arc<Self> {
        Self::retaining(bounds, Some(id), false)
    }

    fn retaining(bounds: &Arc<Bounds>, id: Option<u64>, retains: bool) -> Arc<Self> {
        let bounds = Arc::clone(bounds);
        Arc::new(Self { id, retains, bounds, inner: Mutex::default(), changed: Notify::new() })
    }

    pub(super) fn id(&self) -> Option<u64> {
        self.id
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an event, once there is room. Without anybody who reads there is always room: the oldest go.
    pub(super) async fn push(&self, message: Bytes) {
        self.push_event(None, Event::new(message, None)).await;
    }

    /// Adds an event of the stream that this one is a copy of, under its number there.
    pub(super) async fn push_at(&self, number: u64, event: Event) {
        self.push_event(Some(number), event).await;
    }

    async fn push_event(&self, number: Option<u64>, event: Event) {
        let until = Instant::now() + SLOW_READER;
        loop {
            let changed = self.changed();
            {
                let mut inner = self.lock();
                let waiting = inner.last() - inner.delivered;
                let is_read = !inner.is_open || !inner.readers.is_empty();
                // Events that are missing before it are skipped once all others have been delivered.
                let skips = number.is_some_and(|number| number != inner.last() + 1);
                let is_full = waiting >= self.bounds.events_max as u64
                    || waiting > 0
                        && (skips || inner.bytes + event.message.len() > self.bounds.bytes_max);
                // What is there already has arrived twice.
                if inner.ended.is_some() || number.is_some_and(|number| number <= inner.last()) {
                    return;
                }
                if !(is_read && is_full) || until <= Instant::now() {
                    if skips && let Some(number) = number {
                        while self.drop_oldest(&mut inner) {}
                        (inner.gone, inner.delivered) = (number - 1, number - 1);
                    }
                    return self.add(&mut inner, event);
                }
            }
            drop(tokio::time::timeout_at(until.into(), changed).await);
        }
    }

    /// Adds an event. One that waits to be read already is not added again.
    pub(super) fn push_now(&self, event: Event) {
        let mut inner = self.lock();
        let waiting = usize::try_from(inner.last() - inner.delivered).unwrap_or(usize::MAX);
        let is_known =
            inner.events.iter().rev().take(waiting).any(|other| other.message == event.message);
        if inner.ended.is_none() && !is_known {
            self.add(&mut inner, event);
        }
    }

    /// Adds the answer, which is the last event.
    pub(super) fn finish(&self, status: StatusCode, message: Bytes, unsent: Option<Arc<Unsent>>) {
        let mut inner = self.lock();
        if inner.ended.is_none() {
            self.add(&mut inner, Event { message, needs: None, unsent });
            inner.ended = Some((Instant::now(), status));
        }
    }

    /// Ends it without an answer.
    pub(super) fn end(&self) {
        self.lock().ended.get_or_insert((Instant::now(), StatusCode::OK));
        self.changed.notify_waiters();
    }

    fn add(&self, inner: &mut Inner, event: Event) {
        inner.bytes += event.message.len();
        self.bounds.retained_bytes.fetch_add(event.message.len(), Ordering::Relaxed);
        inner.events.push_back(event);
        self.trim(inner);
        self.changed.notify_waiters();
    }

    /// Lets go what there is no room for, from the oldest; the last stays for a client that comes back.
    fn trim(&self, inner: &mut Inner) {
        loop {
            let retained = self.bounds.retained_bytes.load(Ordering::Relaxed);
            let retains = self.retains && retained <= self.bounds.retained_bytes_max;
            let was_delivered = inner.delivered > inner.gone;
            // Nobody reads it, and nobody has come back for it yet.
            let is_abandoned = inner.is_open && inner.readers.is_empty();
            let is_over =
                inner.events.len() > self.bounds.events_max || inner.bytes > self.bounds.bytes_max;
            if !((was_delivered || is_abandoned) && !retains || is_over && inner.events.len() > 1) {
                return;
            }
            if !self.drop_oldest(inner) {
                return;
            }
        }
    }

    fn drop_oldest(&self, inner: &mut Inner) -> bool {
        let Some(event) = inner.events.pop_front() else { return false };
        inner.bytes -= event.message.len();
        self.bounds.retained_bytes.fetch_sub(event.message.len(), Ordering::Relaxed);
        inner.gone += 1;
        inner.delivered = inner.delivered.max(inner.gone);
        true
    }

    /// Waits until it is known how the response begins. It becomes a stream with the first event before the
    /// answer, or after a time in which nothing came.
    pub(super) async fn opening(&self, quiet: Option<Duration>) -> Opening {
        // Whoever stops waiting here never reads it.
        let _opens = Opens(self);
        let quiet_until = quiet.map(|quiet| Instant::now() + quiet);
        loop {
            let changed = self.changed();
            {
                let mut inner = self.lock();
                match inner.ended {
                    Some((_, status)) if inner.last() <= 1 && !inner.is_open => {
                        let event = inner.events.front_mut();
                        let message = event
                            .map(|event| Unsent::bytes(event.unsent.take(), event.message.clone()));
                        return Opening::Whole(status, message.unwrap_or_default());
                    }
                    _ => {}
                }
                let is_time = quiet_until.is_some_and(|until| until <= Instant::now());
                if is_time || inner.last() > 0 {
                    inner.is_open = true;
                    return Opening::Stream;
                }
            }
            match quiet_until {
                Some(until) => drop(tokio::time::timeout_at(until.into(), changed).await),
                None => changed.await,
            }
        }
    }

    /// Reads what has not been delivered, after what was, from the event after `last` on. None: there never
    /// was such an event.
    pub(super) fn read(self: &Arc<Self>, last: Option<u64>) -> Option<Reader> {
        let mut inner = self.lock();
        if last.is_some_and(|last| last > inner.last()) {
            return None;
        }
        inner.is_open = true;
        inner.readers_ever += 1;
        let number = inner.readers_ever;
        inner.readers.push(number);
        drop(inner);
        self.changed.notify_waiters();
        Some(Reader { stream: Arc::clone(self), number, behind: last })
    }

    /// Whether nobody can want anything of it any more.
    pub(super) fn is_over(&self) -> bool {
        let inner = self.lock();
        inner.readers.is_empty()
            && inner.ended.is_some_and(|(since, _)| since.elapsed() > RETAINED_FOR)
    }

    /// Whether there ever was this event.
    pub(super) fn has(&self, number: u64) -> bool {
        number <= self.lock().last()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lock().last() == 0
    }

    pub(super) fn is_answered(&self) -> bool {
        self.lock().ended.is_some()
    }

    pub(super) fn is_read(&self) -> bool {
        !self.lock().readers.is_empty()
    }

    /// Resolves with the next change, of those from now on.
    pub(super) fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }
}

/// Opens a stream at the latest when this goes: without a reader, its work no longer waits for one.
struct Opens<'a>(&'a EventStream);

impl Drop for Opens<'_> {
    fn drop(&mut self) {
        self.0.lock().is_open = true;
        self.0.changed.notify_waiters();
    }
}

impl Drop for EventStream {
    fn drop(&mut self) {
        let bytes = self.inner.get_mut().unwrap_or_else(PoisonError::into_inner).bytes;
        self.bounds.retained_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Reader {
    pub(super) fn stream(&self) -> &Arc<EventStream> {
        &self.stream
    }

    /// The next event, if there is one.
    pub(super) fn next(&mut self) -> Next {
        let mut inner = self.stream.lock();
        if let Some(has) = self.behind {
            if has.max(inner.gone) < inner.delivered
                && let Some((number, event)) = inner.get(has)
            {
                self.behind = Some(number);
                return Next::Event(number, event);
            }
            self.behind = None;
        }
        if inner.delivered == inner.last() {
            return if inner.ended.is_some() { Next::End } else { Next::Nothing };
        }
        // Each message goes to one of those who read.
        if inner.readers.last() != Some(&self.number) {
            return Next::Nothing;
        }
        let Some((number, event)) = inner.get(inner.delivered) else { return Next::Nothing };
        inner.delivered = number;
        // What is retained has a bound of its own.
        if let Some(event) =
            usize::try_from(number - 1 - inner.gone).ok().and_then(|at| inner.events.get_mut(at))
        {
            event.unsent = None;
        }
        self.stream.trim(&mut inner);
        drop(inner);
        self.stream.changed.notify_waiters();
        Next::Event(number, event)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.stream.lock().readers.retain(|number| *number != self.number);
        self.stream.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests;
