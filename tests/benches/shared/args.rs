//! The command line of a benchmark with selectable parts.

use tokio::runtime::Runtime;

/// The worker threads of the load's runtime, as in each service.
const WORKER_THREADS: usize = 2;

pub(crate) struct Args {
    pub(crate) json: bool,
    /// A smoke test with one round.
    pub(crate) short: bool,
    pub(crate) rounds: usize,
    /// The selected parts; all if absent.
    only: Option<String>,
}

impl Args {
    /// Parses the command line of a benchmark with this default number of rounds.
    pub(crate) fn parse(rounds: usize) -> Self {
        let mut args = Self { json: false, short: false, rounds, only: None };
        let mut given = std::env::args().skip(1);
        while let Some(arg) = given.next() {
            match arg.as_str() {
                "--json" => args.json = true,
                "--short" => (args.short, args.rounds) = (true, 1),
                "--only" => {
                    args.only = Some(given.next().unwrap_or_else(|| panic!("{arg} needs names")));
                }
                // Cargo passes this flag.
                "--bench" => {}
                other => {
                    panic!(
                        "unknown argument {other} (expected --json, --short or --only NAME,NAME)"
                    );
                }
            }
        }
        args
    }

    pub(crate) fn is_selected(&self, name: &str) -> bool {
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
