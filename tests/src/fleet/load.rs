//! Calls of many callers at a constant rate, and what became of each.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use http::StatusCode;
use serde_json::json;
use tokio::{sync::watch, task::JoinSet, time::MissedTickBehavior};
use url::Url;

use super::{Report, callers::Caller};
use crate::{Client, Reply};

/// How long a client waits for a response. No scenario takes as long as a call that the mesh lost.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a client keeps an idle connection open. The edge closes it after `--idle-timeout-ms`,
/// 30 seconds, and a request that is sent at that moment would be lost.
const IDLE_TIMEOUT: Duration = Duration::from_secs(5);

/// What became of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It has a result.
    Allowed,
    /// Policy denied it: the tool does not exist for the caller, or not with these arguments.
    Denied,
    /// Its token was not accepted.
    Unauthenticated,
    /// It has another error.
    Failed {
        /// The HTTP status; absent if there was no response.
        status: Option<u16>,
        /// Whether the error says that a retry makes sense.
        is_retryable: bool,
        /// What the client was sent, or how the connection ended.
        text: String,
    },
}

/// A call and its outcome.
#[derive(Clone, Debug)]
pub struct Call {
    /// What it called.
    pub tool: &'static str,
    /// Whether policy permits it.
    pub is_permitted: bool,
    /// When it began.
    pub began: Instant,
    /// How long it took.
    pub took: Duration,
    /// The id that the edge gave it. Absent if there was no response.
    pub request_id: Option<String>,
    /// What became of it.
    pub outcome: Outcome,
}

impl Call {
    /// Makes a call, without any retry.
    pub async fn make(client: &Client, caller: &Caller) -> Self {
        let began = Instant::now();
        let reply = client.try_call_tool(caller.tool, (caller.arguments)()).await;
        Self {
            tool: caller.tool,
            is_permitted: caller.is_permitted,
            began,
            took: began.elapsed(),
            request_id: reply.as_ref().ok().map(|reply| reply.request_id().to_owned()),
            outcome: outcome(reply),
        }
    }

    /// Whether it was answered with 503.
    pub fn is_unavailable(&self) -> bool {
        matches!(self.outcome, Outcome::Failed { status: Some(503), .. })
    }

    /// Whether it should have had another outcome.
    pub fn is_unexpected(&self) -> bool {
        let expected = if self.is_permitted { Outcome::Allowed } else { Outcome::Denied };
        self.outcome != expected
    }

    /// Whether it failed with an error that invites to retry.
    pub fn is_retryable(&self) -> bool {
        matches!(self.outcome, Outcome::Failed { is_retryable: true, .. })
    }
}

/// What became of a call with this response.
pub(super) fn outcome(reply: reqwest::Result<Reply>) -> Outcome {
    let reply = match reply {
        Ok(reply) => reply,
        Err(error) => {
            let text = drawbridge_runtime::error_chain(&error);
            return Outcome::Failed { status: None, is_retryable: false, text };
        }
    };
    let data = &reply.json["error"]["data"];
    match reply.status {
        StatusCode::OK if reply.json["result"]["content"].is_array() => {
            if reply.json["result"]["isError"] != json!(true) {
                return Outcome::Allowed;
            }
        }
        StatusCode::OK if reply.is_hidden() => return Outcome::Denied,
        StatusCode::FORBIDDEN if data["reason"] == "policy_denied" => return Outcome::Denied,
        StatusCode::UNAUTHORIZED => return Outcome::Unauthenticated,
        _ => {}
    }
    let is_retryable = reply.headers.contains_key("retry-after") || data["retryable"] == true;
    Outcome::Failed { status: Some(reply.status.as_u16()), is_retryable, text: reply.text }
}

/// A load that runs until it is stopped.
#[derive(Debug)]
pub struct Load {
    stop: watch::Sender<bool>,
    running: tokio::task::JoinHandle<()>,
    calls: Arc<Mutex<Vec<Call>>>,
}

impl Load {
    /// Begins to call this URL with each caller in turn, whatever becomes of the calls.
    pub fn start(url: &Url, callers: Vec<Caller>, calls_per_second: u32) -> Self {
        let (stop, stopped) = watch::channel(false);
        let calls: Arc<Mutex<Vec<Call>>> = Arc::default();
        let running = tokio::spawn(run(
            Connections::new(url),
            callers,
            Duration::from_secs(1) / calls_per_second,
            stopped,
            Arc::clone(&calls),
        ));
        Self { stop, running, calls }
    }

    /// What became of the calls that have ended so far.
    pub fn so_far(&self) -> Report {
        Report::new(self.calls.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// Stops, waits for the calls in progress, and reports all of them.
    pub async fn stop(self) -> Report {
        self.stop.send_replace(true);
        self.running.await.expect("a load");
        let calls = std::mem::take(&mut *self.calls.lock().unwrap_or_else(PoisonError::into_inner));
        Report::new(calls)
    }
}

/// Clients of both kinds: those with connections that stay open, and those without.
struct Connections {
    url: Url,
    kinds: [reqwest::Client; 2],
}

impl Connections {
    fn new(url: &Url) -> Self {
        let builder =
            || reqwest::Client::builder().timeout(CALL_TIMEOUT).retry(reqwest::retry::never());
        let kinds =
            [builder().pool_idle_timeout(IDLE_TIMEOUT), builder().pool_max_idle_per_host(0)]
                .map(|builder| builder.build().expect("a client"));
        Self { url: url.clone(), kinds }
    }

    fn client(&self, number: usize, caller: &Caller) -> Client {
        let http = self.kinds[number % self.kinds.len()].clone();
        Client::with_http(http, self.url.clone(), Some(caller.token.clone()))
    }
}

async fn run(
    connections: Connections,
    callers: Vec<Caller>,
    interval: Duration,
    mut stopped: watch::Receiver<bool>,
    calls: Arc<Mutex<Vec<Call>>>,
) {
    let mut ticks = tokio::time::interval(interval);
    // After a pause of this process the missed calls are left out: they would be a burst.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut running = JoinSet::new();
    for number in 0.. {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = stopped.changed() => break,
        }
        let caller = callers[number % callers.len()].clone();
        // Each caller uses both kinds, one after the other.
        let client = connections.client(number / callers.len() + number, &caller);
        let calls = Arc::clone(&calls);
        running.spawn(async move {
            let call = Call::make(&client, &caller).await;
            calls.lock().unwrap_or_else(PoisonError::into_inner).push(call);
        });
        while running.try_join_next().is_some() {}
    }
    running.join_all().await;
}
