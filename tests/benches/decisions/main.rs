//! The cost of a decision and of a list with few and with many policies: the index compared with
//! the evaluation of every policy, in one run.
//!
//!     cargo bench -p drawbridge-tests --bench decisions -- [--json]
//!
//! *warm*: a decision on this caller and item is cached. *cold*: the caller is new.

#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a benchmark panics on errors, prints its results, and has small counts"
)]

use std::{
    hint::black_box,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use drawbridge_audit::AuditLog;
use drawbridge_auth::{
    Identity,
    policy::{DecisionOutcome, Policies, PolicyStore},
};
use drawbridge_proto::auth::v1::{self as pb, operation::Kind};
use drawbridge_runtime::Readiness;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::{folder::Folder, foreign::Foreign};

mod folder;
mod foreign;

const POLICIES: [usize; 4] = [10, 100, 1_000, 10_000];
/// The number of tools in the decisions.
const TOOLS: usize = 50;
const LISTS: [usize; 2] = [200, 1_000];
/// The number of policies for the lists.
const LIST_POLICIES: usize = 1_000;
/// The minimum duration of each measurement.
const MEASURED: Duration = Duration::from_millis(200);
const BATCHES: usize = 5;

fn main() {
    let as_json = std::env::args().any(|arg| arg == "--json");
    let decisions: Vec<_> = POLICIES.into_iter().map(Decisions::measure).collect();
    let lists: Vec<_> = LISTS.into_iter().map(Lists::measure).collect();
    let foreign = Foreign::measure();
    if as_json {
        let report = json!({
            "decisions": decisions.iter().map(Decisions::json).collect::<Vec<_>>(),
            "lists": lists.iter().map(Lists::json).collect::<Vec<_>>(),
            "foreign_tools": foreign.json(),
        });
        println!("{report:#}");
    } else {
        print(&decisions, &lists);
        foreign.print();
    }
}

/// Microseconds: the median of some batches.
fn time(mut step: impl FnMut()) -> f64 {
    step();
    let mut batches: Vec<_> = (0..BATCHES)
        .map(|_| {
            let (started, mut times) = (Instant::now(), 0_u32);
            while times == 0 || started.elapsed() < MEASURED / 5 {
                step();
                times += 1;
            }
            started.elapsed().as_secs_f64() * 1e6 / f64::from(times)
        })
        .collect();
    batches.sort_by(f64::total_cmp);
    batches[BATCHES / 2]
}

/// A caller with some groups, one of which has a permission. Each number is another caller.
fn caller(number: usize) -> Identity {
    Identity {
        principal: pb::Principal {
            issuer: "https://idp.example".to_owned(),
            subject: format!("caller-{number}"),
            client_id: "client".to_owned(),
            tenant: "acme".to_owned(),
            scopes: vec!["mcp".to_owned()],
            ..pb::Principal::default()
        },
        groups: ["group-1", "group-2", "staff", "employees"].map(str::to_owned).to_vec(),
        mfa: true,
        ..Identity::default()
    }
}

/// Decisions with this number of policies, in microseconds.
struct Decisions {
    policies: usize,
    load_ms: f64,
    edit_ms: f64,
    flat: f64,
    cold: f64,
    warm: f64,
    /// Warm, where a policy reads the arguments.
    reading: f64,
}

impl Decisions {
    fn measure(policies: usize) -> Self {
        let folder = Folder::new(policies, TOOLS);
        let started = Instant::now();
        let loaded = Policies::load(folder.path()).expect("policies");
        let load_ms = started.elapsed().as_secs_f64() * 1e3;
        let arguments = json!({ "amount": 7, "note": "a note", "draft": false }).to_string();
        let arguments = Some(arguments.as_bytes());
        let (quiet, reading) = (folder.tool(1), folder.tool(0));
        let known = caller(0);
        let decide = |tool: &pb::CatalogItem| {
            let outcome = loaded.decide(&known, Kind::CallTool, tool, arguments);
            let flat = loaded.decide_flat(&known, Kind::CallTool, tool, arguments);
            assert_eq!(
                (outcome.outcome, flat.outcome),
                (DecisionOutcome::Allow, DecisionOutcome::Allow),
                "{outcome:?} {flat:?}"
            );
            outcome
        };
        assert!(!decide(&quiet).reads_arguments && decide(&reading).reads_arguments);
        let mut new_callers = 0;
        Self {
            policies,
            load_ms,
            edit_ms: edit(folder.path(), || folder.edit()),
            flat: time(|| {
                black_box(loaded.decide_flat(&known, Kind::CallTool, &quiet, arguments));
            }),
            cold: time(|| {
                new_callers += 1;
                black_box(loaded.decide(&caller(new_callers), Kind::CallTool, &quiet, arguments));
            }),
            warm: time(|| {
                black_box(loaded.decide(&known, Kind::CallTool, &quiet, arguments));
            }),
            reading: time(|| {
                black_box(loaded.decide(&known, Kind::CallTool, &reading, arguments));
            }),
        }
    }

    fn json(&self) -> Value {
        let Self { policies, load_ms, edit_ms, flat, cold, warm, reading } = self;
        json!({
            "policies": policies, "load_ms": load_ms, "edit_to_effect_ms": edit_ms, "flat_us": flat,
            "cold_us": cold, "warm_us": warm, "warm_reading_arguments_us": reading,
        })
    }
}

/// The milliseconds from an edit of a folder until it takes effect.
fn edit(folder: &Path, edit: impl FnOnce()) -> f64 {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let store = Arc::new(PolicyStore::open(folder).expect("policies"));
        let mut changes = store.subscribe();
        let stopping = CancellationToken::new();
        let audit = AuditLog::off().expect("random bytes");
        tokio::spawn(store.follow(audit, Readiness::default(), stopping.clone()));
        // Wait for the first poll of the files.
        tokio::time::sleep(Duration::from_millis(500)).await;
        edit();
        let started = Instant::now();
        changes.changed().await.expect("a change");
        stopping.cancel();
        started.elapsed().as_secs_f64() * 1e3
    })
}

/// The cost of listing this number of tools, in microseconds.
struct Lists {
    tools: usize,
    flat: f64,
    cold: f64,
    warm: f64,
}

impl Lists {
    fn measure(tools: usize) -> Self {
        let folder = Folder::new(LIST_POLICIES, tools);
        let loaded = Policies::load(folder.path()).expect("policies");
        let items: Vec<_> = (0..tools).map(|number| folder.tool(number)).collect();
        let list = |caller: &Identity| {
            let visible = |item: &&pb::CatalogItem| {
                let outcome = loaded.decide(caller, Kind::CallTool, item, None).outcome;
                matches!(outcome, DecisionOutcome::Allow | DecisionOutcome::Conditional)
            };
            items.iter().filter(visible).count()
        };
        let known = caller(0);
        assert!(list(&known) > 0 && list(&known) < tools, "{}", list(&known));
        let mut new_callers = 0;
        // Evaluating every policy for every tool takes too long, so the result is extrapolated from
        // some tools.
        let some = items.iter().step_by(tools / 10);
        let sample_us = time(|| {
            for item in some.clone() {
                black_box(loaded.decide_flat(&known, Kind::CallTool, item, None));
            }
        });
        Self {
            tools,
            flat: sample_us / some.count() as f64 * tools as f64,
            cold: time(|| {
                new_callers += 1;
                black_box(list(&caller(new_callers)));
            }),
            warm: time(|| {
                black_box(list(&known));
            }),
        }
    }

    fn json(&self) -> Value {
        let Self { tools, flat, cold, warm } = self;
        json!({ "tools": tools, "flat_us": flat, "cold_us": cold, "warm_us": warm })
    }
}

fn print(decisions: &[Decisions], lists: &[Lists]) {
    println!("One decision, in microseconds; 4 % of the policies have no scope\n");
    println!(
        "{:>9} {:>10} {:>9} {:>9} {:>15} {:>11} {:>10} {:>13}",
        "policies", "flat", "cold", "warm", "warm, reading", "flat/warm", "load, ms", "an edit, ms"
    );
    for Decisions { policies, load_ms, edit_ms, flat, cold, warm, reading } in decisions {
        println!(
            "{policies:>9} {flat:>10.1} {cold:>9.1} {warm:>9.1} {reading:>15.1} {:>11.1} {load_ms:>10.0} {edit_ms:>13.0}",
            flat / warm
        );
    }
    if let (Some(few), Some(many)) = (decisions.first(), decisions.last()) {
        println!("\n{} policies compared with {}, as a ratio", many.policies, few.policies);
        let ratios = [
            ("flat", many.flat / few.flat),
            ("cold", many.cold / few.cold),
            ("warm", many.warm / few.warm),
            ("warm, reading arguments", many.reading / few.reading),
        ];
        for (name, ratio) in ratios {
            println!("{name:<24} {ratio:>8.2}");
        }
    }
    println!("\nListing for one caller with {LIST_POLICIES} policies, in microseconds\n");
    println!("{:>9} {:>12} {:>10} {:>10} {:>11}", "tools", "flat", "cold", "warm", "flat/warm");
    for Lists { tools, flat, cold, warm } in lists {
        println!("{tools:>9} {flat:>12.0} {cold:>10.0} {warm:>10.0} {:>11.0}", flat / warm);
    }
}
