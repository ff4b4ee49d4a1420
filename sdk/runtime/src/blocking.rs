//! Blocking work on threads: bounds its concurrency and its duration.

use std::{
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    runtime,
    sync::Semaphore,
    task::{JoinError, JoinHandle},
    time::timeout_at,
};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::Span;

use crate::args::{exit_code, print_error};

/// Why a blocking job has no result.
#[derive(Debug, thiserror::Error)]
pub enum BlockingError {
    /// The caller's deadline passed.
    #[error("the deadline passed before the work was done")]
    DeadlinePassed,
    /// The caller dropped the job.
    #[error("the caller cancelled the work")]
    Cancelled,
    /// The job panicked, or its runtime ended.
    #[error("the work failed")]
    Failed(#[from] JoinError),
}

/// Whether a caller still waits for a job. Jobs check it every few milliseconds of work.
#[derive(Clone, Debug)]
pub struct Cancellation {
    token: CancellationToken,
    deadline: Instant,
}

impl Cancellation {
    /// Cancelled at the deadline or when the token is cancelled.
    #[must_use]
    pub fn new(token: CancellationToken, deadline: Instant) -> Self {
        Self { token, deadline }
    }

    /// The same cancellation, for a part of the job that may take at most `timeout`.
    #[must_use]
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        let deadline = self.deadline.min(Instant::now() + timeout);
        Self { token: self.token.clone(), deadline }
    }

    /// Fails when the caller no longer waits. It costs about as much as reading the clock.
    ///
    /// # Errors
    /// [`BlockingError::Cancelled`] or [`BlockingError::DeadlinePassed`].
    pub fn check(&self) -> Result<(), BlockingError> {
        if self.token.is_cancelled() {
            return Err(BlockingError::Cancelled);
        }
        if Instant::now() >= self.deadline {
            return Err(BlockingError::DeadlinePassed);
        }
        Ok(())
    }
}

/// Bounds how many blocking jobs run at once. Further jobs queue until their deadlines.
#[derive(Clone, Debug)]
pub struct BlockingJobs {
    permits: Arc<Semaphore>,
}

impl BlockingJobs {
    /// At most `jobs_max` at once, but at least one.
    #[must_use]
    pub fn new(jobs_max: usize) -> Self {
        Self { permits: Arc::new(Semaphore::new(jobs_max.clamp(1, Semaphore::MAX_PERMITS))) }
    }

    /// Starts a job on a blocking thread, in the current span. The job holds its permit until it
    /// returns, even if the caller cancels it earlier.
    ///
    /// # Errors
    /// [`BlockingError::DeadlinePassed`] when no permit is available in time.
    pub async fn start<T, W>(
        &self,
        deadline: Instant,
        work: W,
    ) -> Result<BlockingJob<T>, BlockingError>
    where
        T: Send + 'static,
        W: FnOnce(&Cancellation) -> T + Send + 'static,
    {
        let acquiring = timeout_at(deadline.into(), Arc::clone(&self.permits).acquire_owned());
        let permit = acquiring.await.map_err(|_| BlockingError::DeadlinePassed)?;
        // INVARIANT: the semaphore is never closed. No job runs without a permit.
        let permit = permit.map_err(|_| BlockingError::Cancelled)?;
        let token = CancellationToken::new();
        let guard = token.clone().drop_guard();
        let cancellation = Cancellation { token, deadline };
        let span = Span::current();
        let handle = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            span.in_scope(|| work(&cancellation))
        });
        Ok(BlockingJob { handle, deadline, _guard: guard })
    }
}

/// A started job. Dropping it cancels the job.
#[derive(Debug)]
pub struct BlockingJob<T> {
    handle: JoinHandle<T>,
    deadline: Instant,
    _guard: DropGuard,
}

impl<T> BlockingJob<T> {
    /// Waits for the job until its deadline.
    ///
    /// # Errors
    /// When the deadline passes or the job panics.
    pub async fn join(self) -> Result<T, BlockingError> {
        let joined = timeout_at(self.deadline.into(), self.handle).await;
        Ok(joined.map_err(|_| BlockingError::DeadlinePassed)??)
    }
}

/// Runs a service's `main` in a runtime that, unlike that of `#[tokio::main]`, does not wait for
/// blocking jobs at the end: they end with the process. Prints the error when the runtime cannot be
/// created or when `main` fails.
pub fn run_main<E>(main: impl Future<Output = Result<(), E>>) -> ExitCode
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let runtime = match runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            print_error(&error);
            return ExitCode::FAILURE;
        }
    };
    let ended = runtime.block_on(main);
    runtime.shutdown_background();
    exit_code(ended)
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread::sleep};

    use super::*;

    fn deadline() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    #[tokio::test]
    async fn a_job_is_cancelled_when_it_is_dropped() {
        let (cancelled, wait) = tokio::sync::oneshot::channel();
        let jobs = BlockingJobs::new(1);
        let job = jobs.start(deadline(), move |cancellation| {
            while cancellation.check().is_ok() {
                sleep(Duration::from_millis(1));
            }
            let _ = cancelled.send(());
        });
        drop(job.await.unwrap());
        wait.await.unwrap();
    }

    #[tokio::test]
    async fn a_job_without_a_permit_waits_no_longer_than_its_deadline() {
        let jobs = BlockingJobs::new(1);
        let (end, ended) = mpsc::channel::<()>();
        let first = jobs.start(deadline(), move |_| ended.recv()).await.unwrap();
        let second = jobs.start(Instant::now(), |_| ()).await.map(drop);
        assert!(matches!(second, Err(BlockingError::DeadlinePassed)), "{second:?}");
        drop(end);
        assert!(first.join().await.unwrap().is_err());
        jobs.start(deadline(), |_| ()).await.unwrap().join().await.unwrap();
    }

    #[tokio::test]
    async fn a_panicking_job_returns_an_error() {
        let job = BlockingJobs::new(1).start(deadline(), |_| panic!("on purpose")).await.unwrap();
        assert!(matches!(job.join().await, Err(BlockingError::Failed(_))));
    }

    #[test]
    fn run_main_does_not_wait_for_a_blocking_job() {
        let (end, ended) = mpsc::channel::<()>();
        let main = async move {
            let job = BlockingJobs::new(1).start(deadline(), move |_| ended.recv()).await.unwrap();
            std::mem::forget(job);
            Ok::<_, std::io::Error>(())
        };
        assert_eq!(run_main(main), ExitCode::SUCCESS);
        // The job is still running; it could end only now.
        drop(end);
    }
}
