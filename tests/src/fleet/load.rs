//! Calls of many callers at a constant rate, and what became of each.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{sync::watch, task::JoinSet, time::MissedTickBehavior};
use url::Url;

use super::{Report, call::Call, callers::Caller};
use crate::Client;

/// How long a client waits for a response. No scenario takes as long as a call that the mesh lost.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a client keeps an idle connection open: less than the drain delay of an edge, in which
/// each response closes its connection. An edge closes the others after that, and a request that is
/// sent at that moment would be lost.
const IDLE_TIMEOUT: Duration = Duration::from_millis(500);

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
