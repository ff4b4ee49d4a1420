//! Requests that are counted together. Whoever asks while Redis is asked goes with the next script, so that many requests
//! cost little more than one, and one waits for nobody.

use std::{collections::HashMap, sync::Arc, time::Duration};

use drawbridge_sdk::{Redis, RedisBreaker};
use redis::{ErrorKind, RedisError, RedisResult};
use tokio::sync::{mpsc, oneshot};

use super::{Counter, PREFIX};
use crate::traffic::limits::{gcra::Answer, limit::Ask};

/// How many requests one script counts at most: Redis does nothing else meanwhile.
const REQUESTS_MAX: usize = 64;
/// How many more may wait for the next one.
const WAITING_MAX: usize = 4096;

/// One request, and who waits for its answers.
#[derive(Debug)]
struct Request {
    asks: Vec<Ask>,
    connection: Arc<Redis>,
    within: Duration,
    tell: oneshot::Sender<Vec<Answer>>,
}

/// Where requests ask. The task behind it ends with it.
#[derive(Clone, Debug)]
pub(super) struct Asking(mpsc::Sender<Request>);

impl Asking {
    pub(super) fn start(counter: Arc<Counter>) -> Self {
        let (asking, asked) = mpsc::channel(WAITING_MAX);
        tokio::spawn(count(counter, asked));
        Self(asking)
    }

    /// Takes from every bucket, or from none, over this connection or a later one.
    pub(super) async fn take(
        &self,
        connection: &Arc<Redis>,
        asks: &[Ask],
        within: Duration,
    ) -> RedisResult<Vec<Answer>> {
        let (tell, told) = oneshot::channel();
        let request =
            Request { asks: asks.to_vec(), connection: Arc::clone(connection), within, tell };
        let ended = || RedisError::from((ErrorKind::Io, "nobody counts any more"));
        self.0.send(request).await.map_err(|_| ended())?;
        told.await.map_err(|_| ended())
    }
}

async fn count(counter: Arc<Counter>, mut asked: mpsc::Receiver<Request>) {
    let mut requests = Vec::with_capacity(REQUESTS_MAX);
    while asked.recv_many(&mut requests, REQUESTS_MAX).await > 0 {
        // Who is about to ask comes along.
        tokio::task::yield_now().await;
        while requests.len() < REQUESTS_MAX
            && let Ok(request) = asked.try_recv()
        {
            requests.push(request);
        }
        // Who has given up waits no more, and who asks over a connection that was given up need not.
        requests
            .retain(|request| !request.tell.is_closed() && counter.is_current(&request.connection));
        let within = requests.iter().map(|request| request.within).max();
        let (Some(last), Some(within)) = (requests.last(), within) else { continue };
        let (connection, batch) = (Arc::clone(&last.connection), Batch::of(&requests));
        let said = counter.invoke(&connection, &batch.keys, &batch.numbers);
        let said = RedisBreaker::wait(within, said).await;
        let answers = said.and_then(|said| Ok(batch.answers(&said, &requests)?));
        match answers {
            Ok(answers) => {
                for (request, answers) in requests.drain(..).zip(answers) {
                    // Who has given up is not told.
                    let _ = request.tell.send(answers);
                }
            }
            Err(error) => {
                counter.give_up(&connection, &error);
                requests.clear();
            }
        }
    }
}

/// What `take.lua` is given.
#[derive(Debug, Default)]
struct Batch {
    keys: Vec<String>,
    numbers: Vec<u64>,
}

impl Batch {
    fn of(requests: &[Request]) -> Self {
        let (mut keys, mut fills, mut takes) = (Vec::new(), Vec::new(), Vec::new());
        let mut places = HashMap::new();
        for request in requests {
            takes.push(request.asks.len() as u64);
            for Ask { limit, bucket, cost } in &request.asks {
                let key = format!("{PREFIX}{}:{}", limit.name, bucket.text());
                let place = *places.entry(key.clone()).or_insert_with(|| {
                    keys.push(key);
                    fills.push(limit.quota.fill_micros());
                    keys.len() as u64
                });
                takes.extend([place, limit.quota.micros(*cost)]);
            }
        }
        fills.append(&mut takes);
        Self { keys, numbers: fills }
    }

    /// Two numbers for each ask, in the order of the asks.
    fn answers(&self, said: &[u64], requests: &[Request]) -> RedisResult<Vec<Vec<Answer>>> {
        let mut said = said.chunks_exact(2);
        let mut answer = |ask: &Ask| match said.next()? {
            [wait_micros, lack_micros] => Some(Answer {
                quota: ask.limit.quota,
                wait_micros: *wait_micros,
                lack_micros: *lack_micros,
            }),
            _ => None,
        };
        let answers = requests.iter().map(|request| request.asks.iter().map(&mut answer).collect());
        let answers: Option<Vec<_>> = answers.collect();
        answers.ok_or_else(|| {
            RedisError::from((ErrorKind::UnexpectedReturnType, "a limit without an answer"))
        })
    }
}
