//! The cost of the edge: the same tool called through the edge and through its parts, in one run.
//!
//!     cargo bench -p drawbridge-tests --bench path -- [--json] [--only NAME] [--log FILTER]
//!
//! Rounds of all paths alternate, so that noise affects all alike; the result is the ratio of two
//! paths in one round. Everything runs in this process, including the load: first on shared
//! processors, then with a separate processor for the HTTP server (the edge or its replacement).
//! The processor time of its threads is the edge's alone.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a benchmark panics on errors and prints its results"
)]

use std::{fs, time::Duration};

use drawbridge_tests::{TestIssuer, TestMesh, serve_conformance};
use mimalloc::MiMalloc;
use tokio::runtime::Runtime;

use crate::{
    baselines::RPC,
    load::Load,
    paths::{Fresh, Path, Tokens},
    report::{Measured, Report},
};

/// The allocator of the services.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

mod baselines;
#[path = "../shared/client.rs"]
mod client;
#[path = "../shared/load.rs"]
mod load;
mod micro;
mod paths;
mod payload;
#[path = "../shared/processor_time.rs"]
mod processor_time;
#[path = "../shared/processors.rs"]
mod processors;
mod report;
mod text;
#[path = "../shared/threads.rs"]
mod threads;
#[path = "../shared/tools.rs"]
mod tools;

/// The number of connections of the throughput rounds, each with one call in flight.
const CONNECTIONS: usize = 16;
const ROUNDS: usize = 5;
const WARM_UP: Duration = Duration::from_millis(300);
const THROUGHPUT: Duration = Duration::from_millis(1000);
/// The HTTP servers whose threads get their own processor.
const HTTP_SERVERS: [&str; 5] = ["edge", "relay", "relay-to-tool", "rmcp", "echo"];
const LATENCY: Duration = Duration::from_millis(400);
/// More than all rounds open.
const SESSIONS_MAX: usize = 10_000;
/// More than all rounds present.
const FRESH_TOKENS: usize = 60_000;
/// Makes the edge call auth for each call of [`baselines::UNCACHED_TOOL`].
const READS_ARGUMENTS: &str = r#"
@id("asked")
forbid (principal, action == Action::"test_who_am_i", resource) when { context.input.secret == "never" };
"#;
/// The worker threads of every runtime, as in a mesh of one process.
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
                // Cargo passes this flag.
                "--bench" => {}
                other => panic!(
                    "unknown argument {other} (expected --json, --only NAME or --log FILTER)"
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
        // Like the baselines; the cost of mTLS is measured as a duty.
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
    let mut baselines =
        baselines::Baselines::start(hosted.running.address.tcp().expect("an address"), &tokens);
    let fresh = Fresh::of(&issuer, mesh.mesh.mcp_url.as_str(), FRESH_TOKENS);
    let all = paths::all(&mesh, &edge, &hosted, &baselines, &tokens, fresh).await;
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
            measured.add_single(Load::new(1, LATENCY).run(async || path.ready().await).await);
        }
        eprint!(".");
    }
    let (micro, payloads) = match args.only {
        Some(_) => (Vec::new(), Vec::new()),
        None => (micro::all(&mesh, &tokens).await, payload::all(&mesh, &mut baselines).await),
    };
    let divided = divided(&mesh, &tokens, &paths).await;
    eprintln!();
    edge.hosted.stop().await;
    hosted.stop().await;
    mesh.stop().await;
    Report { connections: CONNECTIONS, rounds: ROUNDS, measured, divided, micro, payloads }
}

/// Measures throughput again, with a separate processor for the HTTP server.
async fn divided(mesh: &TestMesh, tokens: &Tokens, paths: &[Path]) -> Vec<Measured> {
    processors::divide(&HTTP_SERVERS, &[]);
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

/// Measures one round with all connections, and the processor time by thread.
async fn busy(path: &Path, measured: &mut Measured) {
    let before = processor_time::by_thread("self");
    let sample = Load::new(CONNECTIONS, THROUGHPUT).run(async || path.ready().await).await;
    let taken = processor_time::by_thread("self").into_iter().map(|(name, taken)| {
        let before = before.get(&name).copied().unwrap_or_default();
        (name, taken.saturating_sub(before))
    });
    measured.add(&sample, taken);
}
