//! Work that takes a thread: how many jobs there are at once, and when each has to end.

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

/// Why a blocking job gives no result.
#[derive(Debug, thiserror::Error)]
pub enum BlockingError {
    /// The caller's deadline passed.
    #[error("the deadline passed before the work was done")]
    DeadlinePassed,
    /// The caller has gone.
    #[error("the caller no longer waits")]
    Cancelled,
    /// The job panicked, or its runtime ended.
    #[error("the work failed")]
    Failed(#[from] JoinError),
}

/// Whether a caller still waits for a job. Jobs look at it as often as a few milliseconds of work.
#[derive(Clone, Debug)]
pub struct Cancellation {
    token: CancellationToken,
    deadline: Instant,
}

impl Cancellation {
    /// A caller who waits until the deadline or until the token is cancelled.
    #[must_use]
    pub fn new(token: CancellationToken, deadline: Instant) -> Self {
        Self { token, deadline }
    }

    /// The same caller, for a part of the job that may take no longer than `timeout`.
    #[must_use]
    pub fn within(&self, timeout: Duration) -> Self {
        let deadline = self.deadline.min(Instant::now() + timeout);
        Self { token: self.token.clone(), deadline }
    }

    /// Fails when nobody waits any more. It costs about as much as to read the clock.
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

/// A bound on how many blocking jobs run at once. Further ones queue for as long as their callers wait.
#[derive(Clone, Debug)]
pub struct BlockingJobs {
    permits: Arc<Semaphore>,
}

impl BlockingJobs {
    /// At most `jobs_max` at once, and at least one.
    #[must_use]
    pub fn new(jobs_max: usize) -> Self {
        Self { permits: Arc::new(Semaphore::new(jobs_max.clamp(1, Semaphore::MAX_PERMITS))) }
    }

    /// Starts a job on a thread that may block, in the current span. The job has its permit until it
    /// returns, even when its caller has gone before.
    ///
    /// # Errors
    /// [`BlockingError::DeadlinePassed`] when there is no permit in time.
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
        // The semaphore is never closed. No job runs without a permit.
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

/// A job that was started. Dropping it cancels the job.
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

/// Runs a service's `main` in a runtime that, unlike that of `#[tokio::main]`, does not wait in the end for
/// blocking jobs: the end of the process ends them. What went wrong is printed: the operating system gives no threads, or
/// `main` fails.
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

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    #[tokio::test]
    async fn a_job_is_cancelled_when_it_is_dropped() {
        let (cancelled, wait) = tokio::sync::oneshot::channel();
        let jobs = BlockingJobs::new(1);
        let job = jobs.start(soon(), move |cancellation| {
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
        let first = jobs.start(soon(), move |_| ended.recv()).await.unwrap();
        let second = jobs.start(Instant::now(), |_| ()).await.map(drop);
        assert!(matches!(second, Err(BlockingError::DeadlinePassed)), "{second:?}");
        drop(end);
        assert!(first.join().await.unwrap().is_err());
        jobs.start(soon(), |_| ()).await.unwrap().join().await.unwrap();
    }

    #[tokio::test]
    async fn a_job_that_panics_is_an_error() {
        let job = BlockingJobs::new(1).start(soon(), |_| panic!("on purpose")).await.unwrap();
        assert!(matches!(job.join().await, Err(BlockingError::Failed(_))));
    }

    #[test]
    fn the_end_of_main_does_not_wait_for_a_job() {
        let (end, ended) = mpsc::channel::<()>();
        let main = async move {
            let job = BlockingJobs::new(1).start(soon(), move |_| ended.recv()).await.unwrap();
            std::mem::forget(job);
            Ok::<_, std::io::Error>(())
        };
        assert_eq!(run_main(main), ExitCode::SUCCESS);
        // The job still runs: it would have ended only now.
        drop(end);
    }
}
