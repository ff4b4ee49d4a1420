//! The command line of a benchmark whose parts can be chosen.

use tokio::runtime::Runtime;

/// Threads of the load's runtime, as of each service's.
const WORKER_THREADS: usize = 2;

pub(crate) struct Args {
    pub(crate) json: bool,
    /// Only to see whether it runs: one round.
    pub(crate) short: bool,
    pub(crate) rounds: usize,
    /// The parts that are wanted, where not all are.
    only: Option<String>,
}

impl Args {
    /// Reads the command line of a benchmark of so many rounds.
    pub(crate) fn parse(rounds: usize) -> Self {
        let mut args = Self { json: false, short: false, rounds, only: None };
        let mut given = std::env::args().skip(1);
        while let Some(arg) = given.next() {
            match arg.as_str() {
                "--json" => args.json = true,
                "--short" => (args.short, args.rounds) = (true, 1),
                "--only" => {
                    args.only = Some(given.next().unwrap_or_else(|| panic!("{arg} needs names")))
                }
                // Cargo says so.
                "--bench" => {}
                other => {
                    panic!(
                        "unknown argument {other}; there are --json, --short and --only NAME,NAME"
                    );
                }
            }
        }
        args
    }

    pub(crate) fn wants(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|only| only.split(',').any(|only| only == name))
    }
}

/// The load's runtime.
pub(crate) fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKER_THREADS)
        .thread_name("bench")
        .enable_all()
        .build()
        .expect("a runtime")
}
