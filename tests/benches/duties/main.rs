//! What each duty of the edge costs a call: an edge that does it beside one that does not, in one run.
//!
//!     cargo bench -p drawbridge-tests --bench duties -- [--json] [--short] [--only NAME,NAME]
//!
//! A row runs right after the one that it is compared with, again and again, so that noise hits both alike. What counts is
//! the ratio of the two.
//! Everything but Redis runs in this process, the load too. To measure another duty is a line in `rows.rs`.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a benchmark that cannot go on says so, and prints what it has measured"
)]

use std::time::Duration;

use drawbridge_tests::{Redis, TestAuthority};

use crate::{
    edges::{Stand, World},
    report::{Measured, Report},
};

mod edges;
#[path = "../shared/load.rs"]
mod load;
mod overload;
mod report;
mod rows;

/// Connections, and calls at once.
const CONNECTIONS: usize = 16;
/// Threads of the load's runtime, as of each service's.
const WORKER_THREADS: usize = 2;

struct Args {
    json: bool,
    /// Rows that are wanted, where not all are.
    only: Option<String>,
    rounds: usize,
    round: Duration,
}

impl Args {
    fn parse() -> Self {
        let mut args = Self { json: false, only: None, rounds: 9, round: Duration::from_millis(400) };
        let mut given = std::env::args().skip(1);
        while let Some(arg) = given.next() {
            match arg.as_str() {
                "--json" => args.json = true,
                // To see whether it runs.
                "--short" => (args.rounds, args.round) = (1, Duration::from_millis(100)),
                "--only" => args.only = Some(given.next().unwrap_or_else(|| panic!("{arg} needs names"))),
                // Cargo says so.
                "--bench" => {}
                other => {
                    panic!("unknown argument {other}; there are --json, --short and --only NAME,NAME");
                }
            }
        }
        args
    }

    fn wants(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|only| only.split(',').any(|only| only == name))
    }
}

fn main() {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKER_THREADS)
        .thread_name("bench")
        .enable_all()
        .build()
        .expect("a runtime");
    let report = runtime.block_on(run(&args));
    match args.json {
        true => println!("{:#}", report.json()),
        false => println!("{report}"),
    }
}

async fn run(args: &Args) -> Report {
    let rows: Vec<_> = rows::all().into_iter().filter(|duties| args.wants(duties.row.name)).collect();
    assert!(!rows.is_empty(), "no row has this name");
    let (redis, authority) = (Redis::start().await, TestAuthority::new());
    let common = World::start(None).await;
    let mut stands = Vec::new();
    for duties in &rows {
        let world = match duties.row.mesh {
            None => common.clone(),
            Some(change) => World::start(Some(change)).await,
        };
        stands.push(Stand::start(world, duties, &redis, &authority).await);
    }
    let mut measured: Vec<_> = rows.iter().map(|duties| Measured::new(&duties.row)).collect();
    for round in 0..=args.rounds {
        for (with, duties) in rows.iter().enumerate() {
            let without = rows.iter().position(|other| other.row.name == duties.row.against);
            let before = match without.filter(|without| *without != with) {
                Some(without) => {
                    let sample = stands[without].sample(args.round).await;
                    measured[without].add(&sample);
                    Some(sample)
                }
                // Whatever is compared with it runs it.
                None if rows.iter().any(|other| {
                    other.row.name != duties.row.name && other.row.against == duties.row.name
                }) =>
                {
                    continue;
                }
                None => None,
            };
            let sample = stands[with].sample(args.round).await;
            measured[with].add(&sample);
            if let Some(before) = before {
                measured[with].compare(&sample, &before);
            }
        }
        // The first is for warming up.
        if round == 0 {
            measured.iter_mut().for_each(Measured::forget);
        }
        eprint!(".");
    }
    eprintln!();
    let overloaded = match rows.iter().position(|duties| duties.row.name == "none") {
        Some(plain) => Some(overload::run(&stands[plain], args.round).await),
        None => None,
    };
    for stand in stands {
        stand.stop().await;
    }
    common.stop().await;
    Report { connections: CONNECTIONS, rounds: args.rounds, measured, overloaded }
}
