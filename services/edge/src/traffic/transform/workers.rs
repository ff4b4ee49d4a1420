//! Runs programs: a short run on the calling thread, any other on a worker thread. Every run ends
//! or is stopped, so no thread is lost.

use std::{
    io,
    sync::{Arc, Mutex, OnceLock, PoisonError, mpsc},
    thread,
    time::Duration,
};

use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::jq::{Program, ProgramError, STACK_BYTES};

/// How long a call waits for a thread.
const QUEUE_TIMEOUT: Duration = Duration::from_secs(10);
/// The most threads.
const THREADS_MAX: usize = 8;

/// Separate threads, because an evaluation occupies its thread and needs a deep stack. They start
/// with the first run, and end when this is dropped.
#[derive(Debug, Default)]
pub(crate) struct Workers(OnceLock<Pool>);

#[derive(Debug)]
struct Pool {
    jobs: mpsc::Sender<TransformJob>,
    /// One permit per thread, so that no job queues behind another.
    permits: Arc<Semaphore>,
}

#[derive(Debug)]
struct TransformJob {
    program: Arc<Program>,
    input: Value,
    principal: Value,
    done: oneshot::Sender<Result<Value, ProgramError>>,
    /// Held until the run has ended, even without its caller.
    _permit: OwnedSemaphorePermit,
}

impl Workers {
    pub(super) async fn run(
        &self,
        program: &Arc<Program>,
        input: Value,
        principal: Value,
    ) -> Result<Value, ProgramError> {
        if let Some(outcome) = program.run_short(&input, &principal) {
            return outcome;
        }
        let pool = self.pool()?;
        let permit = tokio::time::timeout(QUEUE_TIMEOUT, Arc::clone(&pool.permits).acquire_owned());
        let permit =
            permit.await.map_err(|_| ProgramError::Busy)?.map_err(|_| ProgramError::Panic)?;
        let (done, outcome) = oneshot::channel();
        let job =
            TransformJob { program: Arc::clone(program), input, principal, done, _permit: permit };
        pool.jobs.send(job).map_err(|_| ProgramError::Panic)?;
        outcome.await.unwrap_or(Err(ProgramError::Panic))
    }

    fn pool(&self) -> Result<&Pool, ProgramError> {
        if let Some(pool) = self.0.get() {
            return Ok(pool);
        }
        let pool = Pool::start()?;
        Ok(self.0.get_or_init(|| pool))
    }
}

impl Pool {
    fn start() -> io::Result<Self> {
        let threads = thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
        let (jobs, receiver) = mpsc::channel();
        let receiver = Arc::new(Mutex::new(receiver));
        for _ in 0..threads {
            start_worker(Arc::clone(&receiver))?;
        }
        Ok(Self { jobs, permits: Arc::new(Semaphore::new(threads)) })
    }
}

fn start_worker(receiver: Arc<Mutex<mpsc::Receiver<TransformJob>>>) -> io::Result<()> {
    let thread = thread::Builder::new().name("transform".to_owned()).stack_size(STACK_BYTES);
    thread.spawn(move || work(&receiver)).map(drop)
}

fn work(receiver: &Arc<Mutex<mpsc::Receiver<TransformJob>>>) {
    loop {
        let job = receiver.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(TransformJob { program, input, principal, done, _permit }) = job else { return };
        if done.is_closed() {
            // The caller no longer waits.
            continue;
        }
        let outcome = program.run(&input, &principal);
        let is_aborted = matches!(outcome, Err(ProgramError::Limit(_) | ProgramError::Panic));
        // Fails when the caller no longer waits.
        let _ = done.send(outcome);
        // Stack memory that a run has used is only freed at the end of the thread.
        if is_aborted && start_worker(Arc::clone(receiver)).is_ok() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::task::JoinSet;

    use super::*;

    #[tokio::test]
    async fn an_endless_program_does_not_occupy_a_thread() {
        let workers = Arc::<Workers>::default();
        let program = |text: &str| Arc::new(Program::compile(text).unwrap());
        let (endless, good) = (program("def f: 1 + f; f"), program(".n + 1"));
        let mut running = JoinSet::new();
        for number in 0..12 {
            let workers = Arc::clone(&workers);
            let program = Arc::clone(if number % 2 == 0 { &endless } else { &good });
            running.spawn(async move {
                let outcome = workers.run(&program, json!({ "n": number }), json!({})).await;
                match number % 2 {
                    0 => assert!(matches!(outcome, Err(ProgramError::Limit(_))), "{outcome:?}"),
                    _ => assert_eq!(outcome.unwrap(), json!(number + 1)),
                }
            });
        }
        running.join_all().await;
        assert_eq!(workers.run(&good, json!({ "n": 1 }), json!({})).await.unwrap(), json!(2));
    }
}
