//! A stream of one replica that another one's client reads.

use std::{sync::Arc, time::Duration};

use tokio::{select, sync::SemaphorePermit, time::timeout};

use super::{
    Place, READ_WITHIN, Replicas, Subject,
    messages::{Events, Kind, Numbered, decoded, operation},
};
use crate::{
    admission::CallerBudget,
    admission::authorizer::Reauthorizer,
    mcp::events::{Event, EventStream, Next, Reader},
};

/// How much is sent at once, in bytes, unless one event is larger. Nothing more is sent before that was passed on.
const BATCH_BYTES: usize = 64 * 1024;
/// How often a replica that has nothing to send shows that it is there.
const SIGN_OF_LIFE: Duration = Duration::from_secs(5);
/// For how long a replica waits until what it has sent was passed on. Longer than a client may read slowly.
const PASSED_WITHIN: Duration = Duration::from_secs(60);
/// After how long without a sign of life the replica that has the stream counts as gone. Shorter than a stream that has
/// ended is retained, so that its client can take it up again.
const GONE_AFTER: Duration = Duration::from_secs(8);
/// How often a message is sent that Redis does not take.
const ATTEMPTS_MAX: usize = 3;
/// Redis is not asked before, once it gave no answer.
const ATTEMPT_PAUSE: Duration = Duration::from_millis(1100);

impl Replicas {
    /// Sends what a reader finds to another replica, until one of them ends.
    pub(super) async fn relay(self: Arc<Self>, to: u64, number: u64, mut reader: Reader) {
        let mut waiting = self.wait(number);
        let stream = Arc::clone(reader.stream());
        loop {
            let changed = stream.changed();
            let events = batch(&mut reader);
            if events.events.is_empty() && !events.is_end {
                select! {
                    () = changed => continue,
                    received = waiting.messages.recv() => match received {
                        // Of a message that arrived twice.
                        Some((_, Kind::Passed(true))) => continue,
                        _ => return,
                    },
                    () = tokio::time::sleep(SIGN_OF_LIFE) => {}
                }
            }
            let is_end = events.is_end;
            let Some(unread) = self.send_again(to, number, Kind::Events(events)).await else {
                return;
            };
            let mut passed = timeout(READ_WITHIN, waiting.messages.recv()).await;
            drop(unread);
            if passed.is_err() {
                passed = timeout(PASSED_WITHIN, waiting.messages.recv()).await;
            }
            if is_end || !matches!(passed, Ok(Some((_, Kind::Passed(true))))) {
                return;
            }
        }
    }

    /// Follows a stream of another replica, for the reader of `copy`. What an event needs besides is asked with the
    /// reader's own token.
    pub(in crate::mcp) async fn follow(
        self: Arc<Self>,
        place: Place,
        subject: Subject,
        copy: Arc<EventStream>,
        reader: Reauthorizer,
        budget: CallerBudget,
    ) {
        let mut waiting = self.wait(rand::random());
        let (to, number) = (place.replica, waiting.number);
        let mut sent = self.send_again(to, number, Kind::Do((&subject).into())).await.is_some();
        while sent {
            let changed = copy.changed();
            let is_read = copy.is_read();
            if !is_read {
                break;
            }
            let events = select! {
                received = timeout(GONE_AFTER, waiting.messages.recv()) => match received {
                    Ok(Some((_, Kind::Events(events)))) => events,
                    _ => break,
                },
                () = changed => continue,
            };
            for Numbered { number, message, operation } in events.events {
                let needs = operation.as_deref().map(decoded);
                // What cannot be asked about is not shown.
                let Some(needs) = needs.map_or(Some(None), |needs| needs.map(Some)) else {
                    continue;
                };
                let needs = needs.map(|operation| reader.of(operation));
                let unsent = budget.charge(message.len());
                copy.push_at(number, Event { message, needs, unsent }).await;
            }
            if events.is_end {
                break;
            }
            sent = self.send_again(to, number, Kind::Passed(true)).await.is_some();
        }
        copy.end();
        // Without effect where the stream has ended there, too.
        drop(self.send(Some(to), number, Kind::Passed(false)).await);
    }

    /// Sends a message as [`Self::send`] does, more than once where Redis does not take it: what a stream's reader was
    /// given is nowhere else. A message may then arrive twice.
    async fn send_again(&self, to: u64, number: u64, kind: Kind) -> Option<SemaphorePermit<'_>> {
        for _ in 1..ATTEMPTS_MAX {
            if let Some(unread) = self.send(Some(to), number, kind.clone()).await {
                return Some(unread);
            }
            tokio::time::sleep(ATTEMPT_PAUSE).await;
        }
        self.send(Some(to), number, kind).await
    }
}

fn batch(reader: &mut Reader) -> Events {
    let (mut batch, mut bytes) = (Events::default(), 0);
    while bytes < BATCH_BYTES {
        match reader.next() {
            Next::Event(number, event) => {
                bytes += event.message.len();
                let operation = event.needs.as_ref().map(operation);
                batch.events.push(Numbered { number, message: event.message, operation });
            }
            Next::Nothing => break,
            Next::End => {
                batch.is_end = true;
                break;
            }
        }
    }
    batch
}
