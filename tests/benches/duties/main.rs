//! The cost of each duty of the edge per call: an edge with the duty compared with one without, in
//! one run.
//!
//!     cargo bench -p drawbridge-tests --bench duties -- [--json] [--short] [--only NAME,NAME]
//!
//! A row runs right after its baseline, repeatedly, so that noise affects both alike; the result is
//! their ratio. For calls of a tool that does nothing, the edge has its own processor, which
//! measures the edge's capacity independent of the load, the tool and Redis. Where the tool's work
//! matters, everything shares the processors. Everything except Redis runs in this process,
//! including the load. To measure another duty, add a row in `rows.rs`.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a benchmark panics on errors and prints its results"
)]

use std::time::Duration;

use drawbridge_tests::{Redis, TestAuthority};
use mimalloc::MiMalloc;

use crate::{
    args::{Args, runtime},
    edges::{MeasuredEdge, World},
    report::{Measured, Report},
    rows::{Call, Duties},
};

/// The allocator of the services.
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

/// The number of connections, each with one call in flight.
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
        rows::all().into_iter().filter(|duties| args.is_selected(duties.row.name)).collect();
    assert!(!rows.is_empty(), "no row has this name");
    let (redis, authority) = (Redis::start().await, TestAuthority::new());
    let common = World::start(None).await;
    let mut edges = Vec::new();
    for duties in &rows {
        let world = match duties.row.mesh {
            None => common.clone(),
            Some(change) => World::start(Some(change)).await,
        };
        edges.push(MeasuredEdge::start(world, duties, &redis, &authority).await);
    }
    let (isolated, joint): (Vec<_>, Vec<_>) =
        pairs(&rows).into_iter().partition(|(_, with)| rows[*with].row.call == Call::Text);
    let shared = measure(args, &edges, joint).await;
    processors::divide(&["edge"], &[redis.process_id()]);
    let divided = measure(args, &edges, isolated).await;
    let overloaded = match rows.iter().position(|duties| duties.row.name == "none") {
        Some(baseline) => Some(overload::run(&edges[baseline]).await),
        None => None,
    };
    for edge in edges {
        edge.stop().await;
    }
    common.stop().await;
    Report { connections: CONNECTIONS, rounds: args.rounds, divided, shared, overloaded }
}

/// Each row with its baseline. A baseline runs with the rows that refer to it.
fn pairs(rows: &[Duties]) -> Vec<(Option<usize>, usize)> {
    let without = |with: usize| {
        let without = rows.iter().position(|other| other.row.name == rows[with].row.against);
        without.filter(|without| *without != with)
    };
    let pairs: Vec<_> = (0..rows.len()).map(|with| (without(with), with)).collect();
    let is_baseline = |row: usize| pairs.iter().any(|(without, _)| *without == Some(row));
    pairs
        .iter()
        .copied()
        .filter(|&(without, with)| without.is_some() || !is_baseline(with))
        .collect()
}

async fn measure(
    args: &Args,
    edges: &[MeasuredEdge],
    pairs: Vec<(Option<usize>, usize)>,
) -> Vec<Measured> {
    let mut measured: Vec<_> = edges.iter().map(|edge| Measured::new(&edge.row)).collect();
    for round in 0..=args.rounds {
        for &(without, with) in &pairs {
            let mut before = None;
            if let Some(without) = without {
                let sample = edges[without].sample(ROUND).await;
                measured[without].add(&sample);
                before = Some(sample);
            }
            let sample = edges[with].sample(ROUND).await;
            measured[with].add(&sample);
            if let Some(before) = before {
                measured[with].compare(&sample, &before);
            }
        }
        // The first round is a warm-up.
        if round == 0 {
            measured.iter_mut().for_each(Measured::clear);
        }
        eprint!(".");
    }
    eprintln!();
    measured.retain(Measured::has_samples);
    measured
}
