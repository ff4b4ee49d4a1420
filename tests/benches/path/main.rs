//! What the edge costs: the same tool called through it and through what it is made of, in one run.
//!
//!     cargo bench -p drawbridge-tests --bench path -- [--json] [--only NAME] [--log FILTER]
//!
//! Rounds of all paths alternate, so that noise affects all alike, and what counts is the ratio of two paths in
//! one round. Everything runs in this process, the load too: first all on the same processors, then what serves HTTP
//! (the edge, or what stands in its place) on one of its own. Its threads' processor time is that of the edge alone.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a benchmark that cannot go on says so, and prints what it has measured"
)]

use std::{fs, time::Duration};

use drawbridge_tests::{TestIssuer, TestMesh, serve_conformance};
use mimalloc::MiMalloc;
use tokio::runtime::Runtime;

use crate::{
    bare::RPC,
    load::Load,
    paths::{Fresh, Path, Tokens},
    report::{Measured, Report},
};

/// As in the services.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

mod bare;
#[path = "../shared/client.rs"]
mod client;
#[path = "../shared/load.rs"]
mod load;
mod micro;
mod paths;
mod payload;
#[path = "../shared/processors.rs"]
mod processors;
mod report;
#[path = "../shared/taken.rs"]
mod taken;
mod text;
#[path = "../shared/threads.rs"]
mod threads;
#[path = "../shared/tools.rs"]
mod tools;

/// Connections, and calls at once, of the throughput rounds.
const CONNECTIONS: usize = 16;
const ROUNDS: usize = 5;
const WARM_UP: Duration = Duration::from_millis(300);
const THROUGHPUT: Duration = Duration::from_millis(1000);
/// Whose threads get a processor of their own: the edge, and what is compared with it.
const FRONTS: [&str; 5] = ["edge", "relay", "relay-to-tool", "rmcp", "echo"];
const LATENCY: Duration = Duration::from_millis(400);
/// More than are opened in all rounds.
const SESSIONS_MAX: usize = 10_000;
/// More than are shown in all rounds.
const FRESH_TOKENS: usize = 60_000;
/// Makes the edge ask auth at each call of [`bare::ASKED_FOR`].
const READS_ARGUMENTS: &str = r#"
@id("asked")
forbid (principal, action == Action::"test_who_am_i", resource) when { context.input.secret == "never" };
"#;
/// Threads of every runtime, as in a mesh of one process.
const WORKER_THREADS: usize = 2;

struct Args {
    json: bool,
    only: Option<String>,
    log: String,
}

impl Args {
    fn parse() -> Self {
        let mut args = Self { json: false, only: None, log: "error".to_owned() };
        let mut given = std::env::args().skip(1);
        while let Some(arg) = given.next() {
            let mut value = || given.next().unwrap_or_else(|| panic!("{arg} needs a value"));
            match arg.as_str() {
                "--json" => args.json = true,
                "--only" => args.only = Some(value()),
                "--log" => args.log = value(),
                // Cargo says so.
                "--bench" => {}
                other => panic!(
                    "unknown argument {other}; there are --json, --only NAME and --log FILTER"
                ),
            }
        }
        args
    }
}

fn main() {
    let args = Args::parse();
    let runtime = runtime("bench");
    let report = runtime.block_on(run(&args));
    match args.json {
        true => println!("{}", report.json()),
        false => println!("{report}"),
    }
}

fn runtime(name: &str) -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKER_THREADS)
        .thread_name(name)
        .enable_all()
        .build()
        .expect("a runtime")
}

async fn run(args: &Args) -> Report {
    let issuer = TestIssuer::start().await;
    let mesh = TestMesh::with(|config| {
        config.telemetry.log.clone_from(&args.log);
        // As the shorter ways beside it; what mTLS costs is one of the duties.
        config.mtls = false;
        serve_conformance(config);
        fs::write(config.policies.join("asked.cedar"), READS_ARGUMENTS).expect("a file");
        let issuers = config.policies.join("issuers.toml");
        let text =
            format!("[[issuers]]\nissuer = {:?}\nallow_private_addresses = true\n", issuer.name());
        fs::write(&issuers, text).expect("a file");
        config.issuers = Some(issuers);
        payload::Service::permit(config);
    })
    .await;
    let many_sessions =
        |config: &mut drawbridge_edge::Config| config.sessions_per_principal_max = SESSIONS_MAX;
    let (_service, hosted, edge) = mesh.conformance(many_sessions).await;
    let tokens = Tokens::of(&mesh, RPC.to_owned()).await;
    let mut bare = bare::Bare::start(hosted.running.address.tcp().expect("an address"), &tokens);
    let fresh = Fresh::of(&issuer, mesh.mesh.mcp_url.as_str(), FRESH_TOKENS);
    let all = paths::all(&mesh, &edge, &hosted, &bare, &tokens, fresh).await;
    let wanted = |path: &Path| args.only.as_deref().is_none_or(|only| path.name == only);
    let paths: Vec<_> = all.into_iter().filter(wanted).collect();
    assert!(!paths.is_empty(), "no path has this name");

    let mut measured: Vec<_> = paths.iter().map(|path| Measured::new(path.name)).collect();
    for round in 0..=ROUNDS {
        tokens.renew(&mesh).await;
        for (path, measured) in paths.iter().zip(&mut measured) {
            if round == 0 {
                Load::new(CONNECTIONS, WARM_UP).run(async || path.ready().await).await;
                continue;
            }
            busy(path, measured).await;
            measured.add_alone(Load::new(1, LATENCY).run(async || path.ready().await).await);
        }
        eprint!(".");
    }
    let (micro, payloads) = match args.only {
        Some(_) => (Vec::new(), Vec::new()),
        None => (micro::all(&mesh, &tokens).await, payload::all(&mesh, &mut bare).await),
    };
    let divided = divided(&mesh, &tokens, &paths).await;
    eprintln!();
    edge.hosted.stop().await;
    hosted.stop().await;
    mesh.stop().await;
    Report { connections: CONNECTIONS, rounds: ROUNDS, measured, divided, micro, payloads }
}

/// Measures throughput again, with a processor for what serves HTTP alone.
async fn divided(mesh: &TestMesh, tokens: &Tokens, paths: &[Path]) -> Vec<Measured> {
    processors::divide(&FRONTS, &[]);
    let paths: Vec<_> = paths.iter().filter(|path| path.is_http()).collect();
    let mut measured: Vec<_> = paths.iter().map(|path| Measured::new(path.name)).collect();
    for _ in 0..ROUNDS {
        tokens.renew(mesh).await;
        for (path, measured) in paths.iter().zip(&mut measured) {
            busy(path, measured).await;
        }
        eprint!(".");
    }
    measured
}

/// Measures one round with all connections, and whose threads do the work.
async fn busy(path: &Path, measured: &mut Measured) {
    let before = taken::by_thread("self");
    let sample = Load::new(CONNECTIONS, THROUGHPUT).run(async || path.ready().await).await;
    let taken = taken::by_thread("self").into_iter().map(|(name, taken)| {
        let before = before.get(&name).copied().unwrap_or_default();
        (name, taken.saturating_sub(before))
    });
    measured.add(&sample, taken);
}
