//! What each duty of the edge costs a call: an edge that does it beside one that does not, in one run.
//!
//!     cargo bench -p drawbridge-tests --bench duties -- [--json] [--short] [--only NAME,NAME]
//!
//! A row runs right after the one that it is compared with, again and again, so that noise hits both alike. What counts is
//! the ratio of the two. Where a tool that does nothing is called, the edge has a processor of its own: how much one carries,
//! whatever the load, the tool and Redis take. Where the tool's work counts, all share the processors.
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
use mimalloc::MiMalloc;

use crate::{
    args::{Args, runtime},
    edges::{Stand, World},
    report::{Measured, Report},
    rows::{Call, Duties},
};

/// As in the services.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

#[path = "../shared/args.rs"]
mod args;
mod edges;
#[path = "../shared/load.rs"]
mod load;
mod overload;
#[path = "../shared/processors.rs"]
mod processors;
mod report;
mod rows;
#[path = "../shared/threads.rs"]
mod threads;

/// Connections, and calls at once.
const CONNECTIONS: usize = 16;
const ROUNDS: usize = 40;
const ROUND: Duration = Duration::from_millis(100);

fn main() {
    let args = Args::parse(ROUNDS);
    let report = runtime().block_on(run(&args));
    match args.json {
        true => println!("{:#}", report.json()),
        false => println!("{report}"),
    }
}

async fn run(args: &Args) -> Report {
    let rows: Vec<_> =
        rows::all().into_iter().filter(|duties| args.wants(duties.row.name)).collect();
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
    let (by_edge, by_all): (Vec<_>, Vec<_>) =
        pairs(&rows).into_iter().partition(|(_, with)| rows[*with].row.call == Call::Text);
    let shared = measure(args, &stands, by_all).await;
    processors::divide(&["edge"], &[redis.process_id()]);
    let divided = measure(args, &stands, by_edge).await;
    let overloaded = match rows.iter().position(|duties| duties.row.name == "none") {
        Some(plain) => Some(overload::run(&stands[plain]).await),
        None => None,
    };
    for stand in stands {
        stand.stop().await;
    }
    common.stop().await;
    Report { connections: CONNECTIONS, rounds: args.rounds, divided, shared, overloaded }
}

/// Each row, after the one that it is compared with. Those that others are compared with run with these.
fn pairs(rows: &[Duties]) -> Vec<(Option<usize>, usize)> {
    let without = |with: usize| {
        let without = rows.iter().position(|other| other.row.name == rows[with].row.against);
        without.filter(|without| *without != with)
    };
    let pairs: Vec<_> = (0..rows.len()).map(|with| (without(with), with)).collect();
    let runs_anyway = |row: usize| pairs.iter().any(|(without, _)| *without == Some(row));
    pairs
        .iter()
        .copied()
        .filter(|&(without, with)| without.is_some() || !runs_anyway(with))
        .collect()
}

async fn measure(
    args: &Args,
    stands: &[Stand],
    pairs: Vec<(Option<usize>, usize)>,
) -> Vec<Measured> {
    let mut measured: Vec<_> = stands.iter().map(|stand| Measured::new(&stand.row)).collect();
    for round in 0..=args.rounds {
        for &(without, with) in &pairs {
            let mut before = None;
            if let Some(without) = without {
                let sample = stands[without].sample(ROUND).await;
                measured[without].add(&sample);
                before = Some(sample);
            }
            let sample = stands[with].sample(ROUND).await;
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
    measured.retain(Measured::is_any);
    measured
}
