//! Where programs run: a short one where it is wanted, any other on a thread of its own. A program ends by itself or is
//! ended, so that no thread is lost to one.

use std::{
    io,
    sync::{Arc, Mutex, OnceLock, PoisonError, mpsc},
    thread,
    time::Duration,
};

use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::jq::{Failure, Program, STACK_BYTES};

/// How long a call waits for a thread.
const PATIENCE: Duration = Duration::from_secs(10);
/// How many threads there are at most.
const THREADS_MAX: usize = 8;

/// Threads of their own, because an evaluation takes the processor for as long as it lasts, and a deep stack. They
/// start with the first run, and end when nobody has this any more.
#[derive(Debug, Default)]
pub(crate) struct Workers(OnceLock<Pool>);

#[derive(Debug)]
struct Pool {
    jobs: mpsc::Sender<Job>,
    /// As many as there are threads, so that no job waits behind another.
    free: Arc<Semaphore>,
}

#[derive(Debug)]
struct Job {
    program: Arc<Program>,
    input: Value,
    principal: Value,
    done: oneshot::Sender<Result<Value, Failure>>,
    /// Held until the run has ended, though its caller may have gone.
    _free: OwnedSemaphorePermit,
}

impl Workers {
    pub(super) async fn run(
        &self,
        program: &Arc<Program>,
        input: Value,
        principal: Value,
    ) -> Result<Value, Failure> {
        if let Some(outcome) = program.run_briefly(&input, &principal) {
            return outcome;
        }
        let pool = self.pool()?;
        let waiting = tokio::time::timeout(PATIENCE, Arc::clone(&pool.free).acquire_owned());
        let free = waiting.await.map_err(|_| Failure::Busy)?.map_err(|_| Failure::Broken)?;
        let (done, outcome) = oneshot::channel();
        let job = Job { program: Arc::clone(program), input, principal, done, _free: free };
        pool.jobs.send(job).map_err(|_| Failure::Broken)?;
        outcome.await.unwrap_or(Err(Failure::Broken))
    }

    fn pool(&self) -> Result<&Pool, Failure> {
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
        let (jobs, waiting) = mpsc::channel();
        let waiting = Arc::new(Mutex::new(waiting));
        for _ in 0..threads {
            start(Arc::clone(&waiting))?;
        }
        Ok(Self { jobs, free: Arc::new(Semaphore::new(threads)) })
    }
}

fn start(waiting: Arc<Mutex<mpsc::Receiver<Job>>>) -> io::Result<()> {
    let thread = thread::Builder::new().name("transform".to_owned()).stack_size(STACK_BYTES);
    thread.spawn(move || work(&waiting)).map(drop)
}

fn work(waiting: &Arc<Mutex<mpsc::Receiver<Job>>>) {
    loop {
        let job = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Job { program, input, principal, done, _free }) = job else { return };
        if done.is_closed() {
            // Its caller has gone.
            continue;
        }
        let outcome = program.run(&input, &principal);
        let stopped = matches!(outcome, Err(Failure::Spent(_) | Failure::Broken));
        // Nobody waits for it when the caller has gone.
        let _ = done.send(outcome);
        // Whatever stack was used stays in memory until the thread ends.
        if stopped && start(Arc::clone(waiting)).is_ok() {
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
    async fn programs_that_do_not_end_cost_no_thread() {
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
                    0 => assert!(matches!(outcome, Err(Failure::Spent(_))), "{outcome:?}"),
                    _ => assert_eq!(outcome.unwrap(), json!(number + 1)),
                }
            });
        }
        running.join_all().await;
        assert_eq!(workers.run(&good, json!({ "n": 1 }), json!({})).await.unwrap(), json!(2));
    }
}
