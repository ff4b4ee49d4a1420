//! Batches requests: those that arrive while a script runs are counted by the next one. Many
//! requests then cost little more than one, and a single request is not delayed.

use std::{collections::HashMap, sync::Arc, time::Duration};

use drawbridge_runtime::{Redis, RedisConnection};
use redis::{ErrorKind, RedisError, RedisResult};
use tokio::sync::{mpsc, oneshot};

use super::{Counter, PREFIX};
use crate::traffic::limits::{gcra::BucketStatus, limit::Charge};

/// How many requests one script counts at most: Redis is blocked while it runs.
const BATCH_MAX: usize = 64;
/// How many requests may wait for the next script.
const WAITING_MAX: usize = 4096;

/// The charges of one request, and where to send the reply.
#[derive(Debug)]
struct PendingRequest {
    charges: Vec<Charge>,
    connection: Arc<Redis>,
    timeout: Duration,
    reply: oneshot::Sender<Vec<BucketStatus>>,
}

/// A handle of the batching task, which ends when the last handle is dropped.
#[derive(Clone, Debug)]
pub(super) struct Batcher(mpsc::Sender<PendingRequest>);

impl Batcher {
    pub(super) fn start(counter: Arc<Counter>) -> Self {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        tokio::spawn(run(counter, receiver));
        Self(sender)
    }

    /// Charges every bucket or none, over this connection or a later one.
    pub(super) async fn take(
        &self,
        connection: &Arc<Redis>,
        charges: &[Charge],
        timeout: Duration,
    ) -> RedisResult<Vec<BucketStatus>> {
        let (reply, replied) = oneshot::channel();
        let charges = charges.to_vec();
        let connection = Arc::clone(connection);
        let request = PendingRequest { charges, connection, timeout, reply };
        let stopped = || RedisError::from((ErrorKind::Io, "the rate limit was not counted"));
        self.0.send(request).await.map_err(|_| stopped())?;
        replied.await.map_err(|_| stopped())
    }
}

async fn run(counter: Arc<Counter>, mut receiver: mpsc::Receiver<PendingRequest>) {
    let mut requests = Vec::with_capacity(BATCH_MAX);
    while receiver.recv_many(&mut requests, BATCH_MAX).await > 0 {
        // Requests that are about to be sent join this batch.
        tokio::task::yield_now().await;
        while requests.len() < BATCH_MAX
            && let Ok(request) = receiver.try_recv()
        {
            requests.push(request);
        }
        // Skip requests that were dropped, or that were sent over a connection given up since.
        requests.retain(|request| {
            !request.reply.is_closed() && counter.is_current(&request.connection)
        });
        let timeout = requests.iter().map(|request| request.timeout).max();
        let (Some(last), Some(timeout)) = (requests.last(), timeout) else { continue };
        let (connection, batch) = (Arc::clone(&last.connection), Batch::new(&requests));
        let invoking = counter.invoke(&connection, &batch.keys, &batch.numbers);
        let reply = RedisConnection::wait_for_reply(timeout, invoking).await;
        match reply.and_then(|numbers| Ok(parse_reply(&numbers, &requests)?)) {
            Ok(replies) => {
                for (request, statuses) in requests.drain(..).zip(replies) {
                    // The receiver is gone if the request timed out.
                    let _ = request.reply.send(statuses);
                }
            }
            Err(error) => {
                counter.give_up(&connection, &error);
                requests.clear();
            }
        }
    }
}

/// The input of `take.lua`.
#[derive(Debug, Default)]
struct Batch {
    keys: Vec<String>,
    numbers: Vec<u64>,
}

impl Batch {
    fn new(requests: &[PendingRequest]) -> Self {
        let (mut keys, mut fills, mut takes) = (Vec::new(), Vec::new(), Vec::new());
        let mut indexes = HashMap::new();
        for request in requests {
            takes.push(request.charges.len() as u64);
            for Charge { limit, bucket, cost } in &request.charges {
                let key = format!("{PREFIX}{}:{}", limit.name, bucket.text());
                let index = *indexes.entry(key.clone()).or_insert_with(|| {
                    keys.push(key);
                    fills.push(limit.quota.fill_micros());
                    keys.len() as u64
                });
                takes.extend([index, limit.quota.micros(*cost)]);
            }
        }
        fills.append(&mut takes);
        Self { keys, numbers: fills }
    }
}

/// Parses the reply of `take.lua`: two numbers for each charge, in their order.
fn parse_reply(
    numbers: &[u64],
    requests: &[PendingRequest],
) -> RedisResult<Vec<Vec<BucketStatus>>> {
    let mut numbers = numbers.chunks_exact(2);
    let mut status = |charge: &Charge| match numbers.next()? {
        [wait_micros, deficit_micros] => Some(BucketStatus {
            quota: charge.limit.quota,
            wait_micros: *wait_micros,
            deficit_micros: *deficit_micros,
        }),
        _ => None,
    };
    let statuses = requests.iter().map(|request| request.charges.iter().map(&mut status).collect());
    statuses.collect::<Option<Vec<_>>>().ok_or_else(|| {
        RedisError::from((ErrorKind::UnexpectedReturnType, "a charge without a reply"))
    })
}
