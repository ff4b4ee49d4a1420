//! Sessions behind round robin: each request reaches another edge than the one before it.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use drawbridge_tests::{Client, Reply};
use http::{HeaderValue, Method, StatusCode};
use serde_json::{Value, json};
use tokio::{sync::watch, task::JoinHandle};

use super::*;

/// Calls in one session.
const CALLS: usize = 6;

/// What became of the sessions of a test.
#[derive(Clone, Debug, Default)]
pub(super) struct Outcomes {
    /// Sessions that their client ended.
    pub(super) ended: usize,
    /// Requests in them.
    pub(super) requests: usize,
    /// How often a listening stream ended and was opened again.
    pub(super) reconnections: usize,
    /// What went wrong.
    pub(super) problems: Vec<String>,
}

impl fmt::Display for Outcomes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ended, requests, reconnections, problems } = self;
        write!(
            formatter,
            "{ended} sessions ended by DELETE, {requests} requests in them, a stream reconnected \
             {reconnections} times, {} problems",
            problems.len()
        )
    }
}

/// Sessions that are opened, used and ended one after another until they are stopped, and one that
/// listens meanwhile.
pub(super) struct Sessions {
    stop: watch::Sender<bool>,
    running: [JoinHandle<()>; 2],
    outcomes: Arc<Mutex<Outcomes>>,
}

impl Sessions {
    pub(super) fn start(fleet: &Fleet) -> Self {
        let (stop, stopped) = watch::channel(false);
        let outcomes: Arc<Mutex<Outcomes>> = Arc::default();
        let [one, other] = ["session-user", "listener"].map(|name| Session {
            client: fleet.client(json!({ "sub": name })),
            stopped: stopped.clone(),
            outcomes: Arc::clone(&outcomes),
        });
        let running = [tokio::spawn(one.use_and_end()), tokio::spawn(other.listen())];
        Self { stop, running, outcomes }
    }

    pub(super) async fn stop(self) -> Outcomes {
        self.stop.send_replace(true);
        for running in self.running {
            running.await.expect("a task");
        }
        self.outcomes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

struct Session {
    client: Client,
    stopped: watch::Receiver<bool>,
    outcomes: Arc<Mutex<Outcomes>>,
}

impl Session {
    async fn use_and_end(self) {
        while !*self.stopped.borrow() {
            match self.one_session().await {
                Ok(requests) => self.record(|outcomes| {
                    outcomes.ended += 1;
                    outcomes.requests += requests;
                }),
                Err(problem) => self.record(|outcomes| outcomes.problems.push(problem)),
            }
        }
    }

    /// Opens a session, uses it, ends it, and tries it afterwards. Returns the number of requests.
    async fn one_session(&self) -> Result<usize, String> {
        let session = self.open().await?;
        let call = json!({ "name": "code_list_files", "arguments": {} });
        let call = json!({ "jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": call });
        for _ in 0..CALLS {
            let reply = self.send(&Method::POST, Some(&session), &call).await?;
            if !reply.json["result"]["content"].is_array() {
                return Err(format!("a call in a session: {reply:?}"));
            }
        }
        let deleted = self.send(&Method::DELETE, Some(&session), &Value::Null).await?;
        if deleted.status != StatusCode::NO_CONTENT {
            return Err(format!("DELETE: {deleted:?}"));
        }
        // Both edges know that it has ended.
        for _ in 0..2 {
            let gone = self.send(&Method::POST, Some(&session), &call).await?;
            if (gone.status, gone.error_code()) != (StatusCode::NOT_FOUND, Some(-32001)) {
                return Err(format!("an ended session: {gone:?}"));
            }
        }
        Ok(CALLS + 3)
    }

    async fn open(&self) -> Result<HeaderValue, String> {
        let params = json!({
            "protocolVersion": "2025-11-25",
            "capabilities": {},
            "clientInfo": { "name": "test", "version": "1" },
        });
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params });
        let reply = self.send(&Method::POST, None, &body).await?;
        let session = reply.headers.get("mcp-session-id").cloned();
        let session = session.ok_or_else(|| format!("no session: {reply:?}"))?;
        let initialized = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
        let reply = self.send(&Method::POST, Some(&session), &initialized).await?;
        match reply.status {
            StatusCode::ACCEPTED => Ok(session),
            _ => Err(format!("notifications/initialized: {reply:?}")),
        }
    }

    async fn send(
        &self,
        method: &Method,
        session: Option<&HeaderValue>,
        body: &Value,
    ) -> Result<Reply, String> {
        let mut request = self.client.post();
        if let Some(session) = session {
            request = request.header("mcp-session-id", session);
        }
        if !body.is_null() {
            request = request.body(body.to_string());
        }
        let mut request = request.build().expect("a request");
        *request.method_mut() = method.clone();
        let reply = self.client.try_send(request).await;
        reply.map_err(|error| format!("{method}: {}", drawbridge_runtime::error_chain(&error)))
    }

    /// Listens in a session, and opens the stream again when it ends.
    async fn listen(mut self) {
        let session = match self.open().await {
            Ok(session) => session,
            Err(problem) => return self.record(|outcomes| outcomes.problems.push(problem)),
        };
        loop {
            let request = self.client.get().header("mcp-session-id", &session);
            let mut stream = match request.send().await {
                Ok(response) if response.status() == StatusCode::OK => response,
                other => {
                    self.record(|outcomes| outcomes.problems.push(format!("GET: {other:?}")));
                    tokio::time::sleep(Duration::from_millis(200)).await;
                    if *self.stopped.borrow() {
                        return;
                    }
                    continue;
                }
            };
            let ended = async { while let Ok(Some(_)) = stream.chunk().await {} };
            tokio::select! {
                () = ended => self.record(|outcomes| outcomes.reconnections += 1),
                _ = self.stopped.changed() => return,
            }
        }
    }

    fn record(&self, change: impl FnOnce(&mut Outcomes)) {
        change(&mut self.outcomes.lock().unwrap_or_else(PoisonError::into_inner));
    }
}
