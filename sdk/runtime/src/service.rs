use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::time::{sleep, timeout};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::{TaskTracker, task_tracker::TaskTrackerToken},
};

use crate::{
    admin::Admin,
    args::COMMIT,
    drain::{DrainConfig, OVERDUE_GRACE, RELEASE_TIMEOUT},
    listen::{Address, BindError, Listen, local_address},
    metrics,
    operator_acts::{OperatorActKind, OperatorActs},
    readiness::Readiness,
    serve::{self, HttpOptions, HttpService, ServerShutdown},
};

/// A service under construction: its servers and background tasks share one shutdown. If it is
/// dropped before it is complete, what was started stops.
#[derive(Debug)]
pub struct ServiceBuilder {
    readiness: Readiness,
    tasks: ServiceTasks,
    acts: OperatorActs,
    unfinished: [DropGuard; 3],
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
        metrics::register();
        let build = [env!("CARGO_PKG_VERSION").into(), COMMIT.unwrap_or("unknown").into()];
        metrics::BUILD_INFO.with(build).set(1);
        let tasks = ServiceTasks::default();
        let phases = [tasks.draining(), tasks.overdue(), tasks.stopping()];
        let unfinished = phases.map(CancellationToken::drop_guard);
        Self { readiness: Readiness::default(), tasks, acts: OperatorActs::default(), unfinished }
    }

    /// The readiness of the service.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        self.readiness.clone()
    }

    /// What operators do to the service while it runs.
    #[must_use]
    pub fn acts(&self) -> OperatorActs {
        self.acts.clone()
    }

    /// See [`ServiceTasks::draining`].
    #[must_use]
    pub fn draining(&self) -> CancellationToken {
        self.tasks.draining()
    }

    /// See [`ServiceTasks::stopping`].
    #[must_use]
    pub fn stopping(&self) -> CancellationToken {
        self.tasks.stopping()
    }

    /// Runs tasks while the service runs.
    #[must_use]
    pub fn tasks(&self) -> ServiceTasks {
        self.tasks.clone()
    }

    /// See [`ServiceTasks::spawn`].
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }

    /// Runs a server. It must accept no more work when `draining` is cancelled, and end when its
    /// last call has ended.
    pub fn spawn_server(&self, server: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn_call(server);
    }

    /// Releases the resources of calls once the calls have ended, or the drain timeout has passed.
    /// It may take five seconds.
    pub fn on_drained(&self, release: impl Future<Output = ()> + Send + 'static) {
        let stopping = self.stopping();
        self.spawn(async move {
            stopping.cancelled().await;
            release.await;
        });
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
            let certificate = Arc::clone(certificate);
            self.spawn(certificate.follow(self.acts(), self.readiness(), self.stopping()));
        }
        let shutdown =
            ServerShutdown { leaving: self.tasks.leaving.clone(), draining: self.draining() };
        self.spawn_server(serve::serve(listener, service, options, shutdown));
        Ok(address)
    }

    /// Serves the admin port and completes the service, whose main address is `address`. The admin
    /// port is served until the calls have ended.
    ///
    /// # Errors
    /// When the admin address cannot be bound.
    pub fn finish(
        self,
        address: impl Into<Address>,
        admin: Admin,
    ) -> Result<RunningService, BindError> {
        self.spawn(admin.upkeep(self.stopping()));
        if let Some(export) = admin.export(self.stopping()) {
            self.spawn(export);
        }
        let (listen, router) = admin.into_router(self.readiness());
        let listener = listen.listener()?;
        let admin = local_address(&listener);
        let options = HttpOptions::default();
        // Its probes see the drain, and tool services fetch keys from it.
        let shutdown =
            ServerShutdown { leaving: CancellationToken::new(), draining: self.stopping() };
        self.spawn(serve::serve(listener, router, options, shutdown));
        drop(self.unfinished.map(DropGuard::disarm));
        Ok(RunningService {
            address: address.into(),
            admin,
            readiness: self.readiness,
            acts: self.acts,
            tasks: self.tasks,
        })
    }
}

/// The tasks of a service, which end with it: first its calls, then its background tasks, which
/// calls need.
#[derive(Clone, Debug, Default)]
pub struct ServiceTasks {
    calls: TaskTracker,
    background: TaskTracker,
    /// Cancelled when the service is asked to stop.
    leaving: CancellationToken,
    draining: CancellationToken,
    overdue: CancellationToken,
    stopping: CancellationToken,
    /// Cancelled when what is left is dropped.
    dropped: CancellationToken,
}

impl ServiceTasks {
    /// Cancelled when the service accepts no more work. Calls in flight go on; streams that would
    /// never end by themselves end.
    #[must_use]
    pub fn draining(&self) -> CancellationToken {
        self.draining.clone()
    }

    /// Cancelled when the drain timeout has passed: calls in flight end with a retryable error.
    #[must_use]
    pub fn overdue(&self) -> CancellationToken {
        self.overdue.clone()
    }

    /// Cancelled when the calls have ended: nothing needs the background tasks any more.
    #[must_use]
    pub fn stopping(&self) -> CancellationToken {
        self.stopping.clone()
    }

    /// Runs a background task, on which calls may depend. It must end when `stopping` is cancelled,
    /// and is dropped some seconds later.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.track(&self.background, task);
    }

    /// Runs the work of a call. A stopping service waits for it until the drain timeout has passed.
    pub fn spawn_call(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.track(&self.calls, work);
    }

    /// Counts as a call in flight until it is dropped, for work that outlives its call.
    #[must_use]
    pub fn call_in_flight(&self) -> CallInFlight {
        CallInFlight { _token: self.calls.token() }
    }

    /// Runs a background task that is dropped when `stopping` is cancelled.
    pub fn spawn_until_stopping(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stopping = self.stopping();
        self.spawn(async move {
            stopping.run_until_cancelled(task).await;
        });
    }

    fn track(&self, tracker: &TaskTracker, task: impl Future<Output = ()> + Send + 'static) {
        let dropped = self.dropped.clone();
        tracker.spawn(async move {
            dropped.run_until_cancelled(task).await;
        });
    }

    /// Ends the calls, then the background tasks.
    async fn end(&self, drain_timeout: Duration) {
        self.draining.cancel();
        self.calls.close();
        if timeout(drain_timeout, self.calls.wait()).await.is_err() {
            tracing::warn!("the drain timeout passed; calls in flight end with an error");
            self.overdue.cancel();
            let _ = timeout(OVERDUE_GRACE, self.calls.wait()).await;
        }
        self.stopping.cancel();
        self.background.close();
        if timeout(RELEASE_TIMEOUT, self.background.wait()).await.is_err() {
            tracing::warn!(left = self.background.len(), "dropping the remaining tasks");
        }
        self.dropped.cancel();
    }
}

/// A call that a stopping service waits for.
#[derive(Debug)]
pub struct CallInFlight {
    _token: TaskTrackerToken,
}

/// A running service.
#[derive(Debug)]
pub struct RunningService {
    /// Its main address, as bound.
    pub address: Address,
    /// Its admin port, as bound: `/healthz`, `/readyz`, `/metrics`.
    pub admin: SocketAddr,
    readiness: Readiness,
    acts: OperatorActs,
    tasks: ServiceTasks,
}

impl RunningService {
    /// The readiness of the service.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        self.readiness.clone()
    }

    /// Stops the service: not ready, a delay in which it still accepts requests, no new work, calls
    /// in flight end, and then the background tasks.
    pub async fn drain(self, config: &DrainConfig) {
        self.acts.report_change(OperatorActKind::Drain, "", Ok(()));
        self.readiness.set_draining();
        self.tasks.leaving.cancel();
        sleep(config.delay()).await;
        self.tasks.end(config.timeout()).await;
    }

    /// As [`Self::drain`], for a service in one process with its callers.
    pub async fn stop(self) {
        self.drain(&DrainConfig::IN_PROCESS).await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::{sync::oneshot, time::Instant};

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(10);

    /// A task that never ends by itself. The receiver fails once the task is dropped.
    fn endless() -> (impl Future<Output = ()> + Send, oneshot::Receiver<()>) {
        let (held, dropped) = oneshot::channel::<()>();
        let task = async move {
            let _held = held;
            std::future::pending::<()>().await;
        };
        (task, dropped)
    }

    /// A task that ends when this is cancelled, and reports when.
    fn until(
        token: CancellationToken,
    ) -> (impl Future<Output = ()> + Send, oneshot::Receiver<Instant>) {
        let (ended, when) = oneshot::channel();
        let task = async move {
            token.cancelled().await;
            let _ = ended.send(Instant::now());
        };
        (task, when)
    }

    #[tokio::test(start_paused = true)]
    async fn background_tasks_run_until_the_last_call_has_ended() {
        let tasks = ServiceTasks::default();
        let (server, closed) = until(tasks.draining());
        let (background, released) = until(tasks.stopping());
        let ((watch, watch_dropped), token) = (endless(), tasks.stopping());
        tasks.spawn_call(server);
        tasks.spawn(background);
        tasks.spawn_until_stopping(watch);
        let (done, is_needed) = oneshot::channel();
        tasks.spawn_call(async move {
            sleep(TIMEOUT / 2).await;
            let _ = done.send(!token.is_cancelled());
        });
        let began = Instant::now();
        tasks.end(TIMEOUT).await;
        assert_eq!(closed.await.unwrap(), began, "it accepts no more work at once");
        assert!(is_needed.await.unwrap(), "the call had what it needs");
        assert_eq!(released.await.unwrap(), began + TIMEOUT / 2);
        assert!(watch_dropped.await.is_err());
        assert_eq!(began.elapsed(), TIMEOUT / 2, "nothing is waited for but the call");
    }

    #[tokio::test(start_paused = true)]
    async fn calls_that_are_overdue_end_with_an_error_and_what_is_left_is_dropped() {
        let tasks = ServiceTasks::default();
        let (call, failed) = until(tasks.overdue());
        let ((stuck, stuck_dropped), (late, late_dropped)) = (endless(), endless());
        tasks.spawn_call(call);
        tasks.spawn_call(stuck);
        tasks.spawn(late);
        let began = Instant::now();
        tasks.end(TIMEOUT).await;
        assert_eq!(failed.await.unwrap(), began + TIMEOUT);
        assert_eq!(began.elapsed(), TIMEOUT + OVERDUE_GRACE + RELEASE_TIMEOUT);
        assert!(stuck_dropped.await.is_err() && late_dropped.await.is_err());
        let (another, dropped) = endless();
        tasks.spawn(another);
        assert!(dropped.await.is_err(), "a task that begins afterwards ends too");
    }

    #[tokio::test]
    async fn a_service_that_is_not_completed_stops() {
        let builder = ServiceBuilder::new();
        let (draining, stopping) = (builder.draining(), builder.stopping());
        drop(builder);
        assert!(draining.is_cancelled() && stopping.is_cancelled());
    }
}
