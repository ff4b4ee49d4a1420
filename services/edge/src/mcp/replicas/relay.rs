//! Relays a stream of one replica to a client of another replica.

use std::{sync::Arc, time::Duration};

use tokio::{select, sync::SemaphorePermit, time::timeout};

use super::{
    READ_TIMEOUT, RemoteItem, RemoteLocation, ReplicaBus,
    messages::{EventBatch, NumberedEvent, Payload, decode_operation, encode_operation},
};
use crate::{
    authorizer::Reauthorizer,
    budget::CallerBudget,
    mcp::events::{EventReader, EventStream, ReadOutcome, StreamEvent},
};

/// The most bytes of one batch, unless one event is larger. The next batch waits until this one is
/// delivered.
const BATCH_BYTES: usize = 64 * 1024;
/// How often a replica without new events sends an empty batch.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(5);
/// How long a replica waits until a batch is delivered. Longer than `SLOW_READER_TIMEOUT`.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(60);
/// How long the replica that has the stream may send nothing before it counts as lost. Shorter than
/// the retention of an ended stream, so that its client can resume it.
const LIVENESS_TIMEOUT: Duration = Duration::from_secs(8);
/// How many times a message is sent while Redis fails.
const ATTEMPTS_MAX: usize = 3;
/// The delay between two attempts. Longer than the pause of the store after a failure.
const ATTEMPT_DELAY: Duration = Duration::from_millis(1100);

impl ReplicaBus {
    /// Sends the events of a reader to another replica, until one of them ends.
    pub(super) async fn relay(self: Arc<Self>, to: u64, number: u64, mut reader: EventReader) {
        let mut replies = self.register(number);
        let stream = Arc::clone(reader.stream());
        loop {
            let changed = stream.changed();
            let events = read_batch(&mut reader);
            if events.events.is_empty() && !events.is_end {
                select! {
                    () = changed => continue,
                    received = replies.messages.recv() => match received {
                        // A message may arrive twice.
                        Some((_, Payload::Delivered(true))) => continue,
                        _ => return,
                    },
                    () = tokio::time::sleep(HEARTBEAT_INTERVAL) => {}
                }
            }
            let is_end = events.is_end;
            let Some(unread) = self.send_with_retry(to, number, Payload::Events(events)).await
            else {
                return;
            };
            let mut delivered = timeout(READ_TIMEOUT, replies.messages.recv()).await;
            drop(unread);
            if delivered.is_err() {
                delivered = timeout(DELIVERY_TIMEOUT, replies.messages.recv()).await;
            }
            if is_end || !matches!(delivered, Ok(Some((_, Payload::Delivered(true))))) {
                return;
            }
        }
    }

    /// Follows a stream of another replica, for the reader of `copy`, whose own token is used to
    /// check the additional permissions of events.
    pub(in crate::mcp) async fn follow(
        self: Arc<Self>,
        location: RemoteLocation,
        item: RemoteItem,
        copy: Arc<EventStream>,
        reader: Reauthorizer,
        budget: CallerBudget,
    ) {
        let mut replies = self.register(rand::random());
        let (to, number) = (location.replica, replies.number);
        let mut sent =
            self.send_with_retry(to, number, Payload::Apply((&item).into())).await.is_some();
        while sent {
            let changed = copy.changed();
            let has_reader = copy.has_reader();
            if !has_reader {
                break;
            }
            let events = select! {
                received = timeout(LIVENESS_TIMEOUT, replies.messages.recv()) => match received {
                    Ok(Some((_, Payload::Events(events)))) => events,
                    _ => break,
                },
                () = changed => continue,
            };
            for NumberedEvent { number, message, operation } in events.events {
                let authorization = operation.as_deref().map(decode_operation);
                // An event whose permission cannot be checked is dropped.
                let Some(authorization) =
                    authorization.map_or(Some(None), |authorization| authorization.map(Some))
                else {
                    continue;
                };
                let authorization = authorization.map(|operation| reader.for_operation(operation));
                let unread = budget.charge(message.len());
                copy.push_at(number, StreamEvent { message, authorization, unread }).await;
            }
            if events.is_end {
                break;
            }
            sent = self.send_with_retry(to, number, Payload::Delivered(true)).await.is_some();
        }
        copy.end();
        // Without effect if the stream has ended there too.
        drop(self.send(Some(to), number, Payload::Delivered(false)).await);
    }

    /// Sends a message as [`Self::send`] does, and retries while Redis fails: delivered events have
    /// no other copy. A message may then arrive twice.
    async fn send_with_retry(
        &self,
        to: u64,
        number: u64,
        payload: Payload,
    ) -> Option<SemaphorePermit<'_>> {
        for _ in 1..ATTEMPTS_MAX {
            if let Some(unread) = self.send(Some(to), number, payload.clone()).await {
                return Some(unread);
            }
            tokio::time::sleep(ATTEMPT_DELAY).await;
        }
        self.send(Some(to), number, payload).await
    }
}

fn read_batch(reader: &mut EventReader) -> EventBatch {
    let (mut batch, mut bytes) = (EventBatch::default(), 0);
    while bytes < BATCH_BYTES {
        match reader.next() {
            ReadOutcome::Event(number, event) => {
                bytes += event.message.len();
                let operation = event.authorization.as_ref().map(encode_operation);
                batch.events.push(NumberedEvent { number, message: event.message, operation });
            }
            ReadOutcome::Empty => break,
            ReadOutcome::End => {
                batch.is_end = true;
                break;
            }
        }
    }
    batch
}
