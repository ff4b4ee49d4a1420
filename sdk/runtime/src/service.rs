use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use crate::{
    admin::Admin,
    args::COMMIT,
    listen::{Address, BindError, Listen, local_address},
    metric, metrics,
    readiness::Readiness,
    serve::{self, HttpOptions, HttpService},
};

/// How long load balancers have to notice that a service is no longer ready.
const UNREADY_DELAY: Duration = Duration::from_millis(100);
/// How long calls in flight may take to finish once the service has stopped accepting.
const DRAIN_DEADLINE: Duration = Duration::from_secs(5);

/// How long calls in flight keep the resources they use: releasing them must fit into the drain
/// deadline.
const CALLS_DEADLINE: Duration = Duration::from_secs(3);

/// A service under construction: its servers and background tasks share one shutdown. If it is
/// dropped before it is complete, what was started stops.
#[derive(Debug)]
pub struct ServiceBuilder {
    readiness: Readiness,
    unfinished: DropGuard,
    tasks: ServiceTasks,
}

impl Default for ServiceBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl ServiceBuilder {
    /// A service that is not ready yet. Its metrics go to the current recorder.
    #[must_use]
    pub fn new() -> Self {
        metric::describe(metrics::METRICS);
        let build = [env!("CARGO_PKG_VERSION").into(), COMMIT.unwrap_or("unknown").into()];
        metrics::BUILD_INFO.with(build).set(1);
        let tasks = ServiceTasks::default();
        let unfinished = tasks.stopping().drop_guard();
        Self { readiness: Readiness::default(), unfinished, tasks }
    }

    /// The readiness of the service.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        self.readiness.clone()
    }

    /// Cancelled when the service stops accepting work.
    #[must_use]
    pub fn stopping(&self) -> CancellationToken {
        self.tasks.stopping()
    }

    /// Runs tasks while the service runs.
    #[must_use]
    pub fn tasks(&self) -> ServiceTasks {
        self.tasks.clone()
    }

    /// Runs a task for the service's life. It must end when `stopping` is cancelled.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }

    /// Releases the resources of calls when the service stops: once the guard is dropped, which the
    /// code that serves the calls holds, or after a deadline of some seconds.
    #[must_use = "without the guard calls in flight lose their resources"]
    pub fn on_drained(&self, release: impl Future<Output = ()> + Send + 'static) -> DropGuard {
        let (stopping, ended) = (self.stopping(), CancellationToken::new());
        let guard = ended.clone().drop_guard();
        self.spawn(async move {
            stopping.cancelled().await;
            if tokio::time::timeout(CALLS_DEADLINE, ended.cancelled()).await.is_err() {
                tracing::warn!("the drain deadline passed; calls in flight lose their resources");
            }
            release.await;
        });
        guard
    }

    /// Serves HTTP.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub fn http(
        &self,
        listen: &Listen,
        service: impl HttpService,
    ) -> Result<SocketAddr, BindError> {
        self.http_with(listen, service, HttpOptions::default())
    }

    /// Serves HTTP with its own limits, or with TLS.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub fn http_with(
        &self,
        listen: &Listen,
        service: impl HttpService,
        options: HttpOptions,
    ) -> Result<SocketAddr, BindError> {
        let listener = listen.listener()?;
        let address = local_address(&listener);
        if let Some(certificate) = &options.certificate {
            self.tasks.spawn(Arc::clone(certificate).follow(self.readiness(), self.stopping()));
        }
        self.tasks.spawn(serve::serve(listener, service, options, self.stopping()));
        Ok(address)
    }

    /// Serves the admin port and completes the service, whose main address is `address`.
    ///
    /// # Errors
    /// When the admin address cannot be bound.
    pub fn finish(
        self,
        address: impl Into<Address>,
        admin: Admin,
    ) -> Result<RunningService, BindError> {
        self.spawn(admin.upkeep(self.stopping()));
        let (listen, router) = admin.into_router(self.readiness());
        let admin = self.http(&listen, router)?;
        self.unfinished.disarm();
        Ok(RunningService {
            address: address.into(),
            admin,
            readiness: self.readiness,
            tasks: self.tasks,
        })
    }
}

/// The tasks of a service, which end with it.
#[derive(Clone, Debug, Default)]
pub struct ServiceTasks {
    tracker: TaskTracker,
    stopping: CancellationToken,
    /// Cancelled at the drain deadline.
    expired: CancellationToken,
}

impl ServiceTasks {
    /// Cancelled when the service stops accepting work.
    #[must_use]
    pub fn stopping(&self) -> CancellationToken {
        self.stopping.clone()
    }

    /// Runs a task. When the service stops, it waits for the task until the drain deadline, which
    /// drops it.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let expired = self.expired.clone();
        self.tracker.spawn(async move {
            expired.run_until_cancelled(task).await;
        });
    }

    /// Runs a task that is dropped when the service stops accepting work.
    pub fn spawn_until_stopping(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stopping = self.stopping.clone();
        self.tracker.spawn(async move {
            stopping.run_until_cancelled(task).await;
        });
    }

    /// Ends all tasks, those that do not end by themselves at the drain deadline.
    async fn stop(&self) {
        self.stopping.cancel();
        self.tracker.close();
        if tokio::time::timeout(DRAIN_DEADLINE, self.tracker.wait()).await.is_err() {
            tracing::warn!(
                left = self.tracker.len(),
                "the drain deadline passed; dropping the remaining tasks"
            );
            self.expired.cancel();
        }
    }
}

/// A running service.
#[derive(Debug)]
pub struct RunningService {
    /// Its main address, as bound.
    pub address: Address,
    /// Its admin port, as bound: `/healthz`, `/readyz`, `/metrics`.
    pub admin: SocketAddr,
    readiness: Readiness,
    tasks: ServiceTasks,
}

impl RunningService {
    /// The readiness of the service.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        self.readiness.clone()
    }

    /// Stops the service: not ready, a short delay, no new work, and calls in flight finish within
    /// a deadline.
    pub async fn stop(self) {
        self.readiness.set_not_ready("stopping");
        tokio::time::sleep(UNREADY_DELAY).await;
        self.tasks.stop().await;
    }
}

/// Listens for Ctrl-C and SIGTERM from this call on; the future waits for one of them.
pub fn shutdown_signal() -> impl Future<Output = ()> + Send {
    #[cfg(unix)]
    let (interrupt, terminate) = {
        use tokio::signal::unix::SignalKind;
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    };
    #[cfg(not(unix))]
    let (interrupt, terminate) =
        (async { drop(tokio::signal::ctrl_c().await) }, std::future::pending::<()>());
    async move {
        tokio::select! {
            () = interrupt => {}
            () = terminate => {}
        }
    }
}

/// The handler is installed by this call, so that no signal is lost before the future is polled.
#[cfg(unix)]
fn signal(kind: tokio::signal::unix::SignalKind) -> impl Future<Output = ()> + Send {
    let signal = tokio::signal::unix::signal(kind);
    async move {
        match signal {
            Ok(mut signal) => {
                signal.recv().await;
            }
            Err(error) => {
                tracing::error!(%error, ?kind, "cannot listen for a signal");
                std::future::pending::<()>().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    /// A task that never ends by itself. The receiver fails once the task is dropped.
    fn endless() -> (impl Future<Output = ()> + Send, oneshot::Receiver<()>) {
        let (held, dropped) = oneshot::channel::<()>();
        let task = async move {
            let _held = held;
            std::future::pending::<()>().await;
        };
        (task, dropped)
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_waits_for_tasks_until_the_deadline_and_drops_the_rest() {
        let tasks = ServiceTasks::default();
        let ((late, late_dropped), (watch, watch_dropped)) = (endless(), endless());
        let (done, is_done) = oneshot::channel();
        tasks.spawn(late);
        tasks.spawn_until_stopping(watch);
        tasks.spawn(async move {
            tokio::time::sleep(DRAIN_DEADLINE / 2).await;
            let _ = done.send(());
        });
        tokio::task::yield_now().await;
        let began = tokio::time::Instant::now();
        tasks.stop().await;
        assert_eq!(began.elapsed(), DRAIN_DEADLINE);
        assert_eq!(is_done.await, Ok(()), "it had time to end");
        assert!(watch_dropped.await.is_err() && late_dropped.await.is_err());
        let (another, dropped) = endless();
        tasks.spawn(another);
        assert!(dropped.await.is_err(), "a task that begins afterwards ends too");
    }
}
