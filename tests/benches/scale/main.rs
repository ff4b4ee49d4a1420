//! The cost of scale: the memory of an edge in its own process, idle, with sessions and with
//! subscribers; a large catalog; and sockets between processes of one machine.
//!
//!     cargo bench -p drawbridge-tests --bench scale --
//!         [--json] [--short] [--only memory,streams,catalog,sockets]
//!
//! A row compares two alternating measurements of one run, or reports memory. The load, auth and
//! the tool services run in this process.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a benchmark panics on errors and prints its results"
)]

use drawbridge_tests::TestMesh;
use mimalloc::MiMalloc;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::{
    args::{Args, runtime},
    report::Report,
    tools::Tools,
};

/// The allocator of the services.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

#[path = "../shared/args.rs"]
mod args;
mod catalog;
#[path = "../shared/client.rs"]
mod client;
#[path = "../shared/load.rs"]
mod load;
mod memory;
mod process;
#[path = "../shared/processor_time.rs"]
mod processor_time;
mod report;
mod sockets;
mod streams;
#[path = "../shared/threads.rs"]
mod threads;
#[path = "../shared/tools.rs"]
mod tools;

const ROUNDS: usize = 10;
/// File descriptors in addition to the connections.
const OTHER_FILES: usize = 500;

/// A small and a large tool service.
type Few = Tools<10>;
type Many = Tools<5000>;

/// The number of sessions, and of streams of each kind.
fn many(args: &Args) -> usize {
    if args.short { 500 } else { 10_000 }
}

fn main() {
    let args = Args::parse(ROUNDS);
    raise_open_files(many(&args));
    let report = runtime().block_on(run(&args));
    match args.json {
        true => println!("{:#}", report.json()),
        false => println!("{report}"),
    }
}

/// Raises the limit of open files of this process and its children to the hard limit, which must
/// suffice for these connections.
fn raise_open_files(connections: usize) {
    let limits = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limits.maximum, maximum: limits.maximum };
    setrlimit(Resource::Nofile, raised).expect("a limit of open files");
    let needed = u64::try_from(connections + OTHER_FILES).unwrap_or(u64::MAX);
    assert!(
        limits.maximum.is_none_or(|maximum| maximum >= needed),
        "{needed} open files are needed, and {:?} allowed: raise the hard limit (ulimit -Hn)",
        limits.maximum
    );
}

async fn run(args: &Args) -> Report {
    let mesh = TestMesh::with(|config| {
        config.telemetry.log = "error".to_owned();
        config.mtls = false;
        Few::permit(config);
        Many::permit(config);
    })
    .await;
    let (service, address) = Few::start(mesh.transaction_keys()).await;
    let token = mesh.client("alice").await.token().to_owned();
    let world = World { mesh, few: address, token };
    let mut report = Report::default();
    if args.is_selected("memory") {
        memory::run(&world, args, &mut report).await;
    }
    if args.is_selected("streams") {
        streams::run(&world, args, &mut report).await;
    }
    if args.is_selected("catalog") {
        catalog::run(&world, args, &mut report).await;
    }
    if args.is_selected("sockets") {
        sockets::run(args, &mut report).await;
    }
    assert!(!report.rows.is_empty(), "no part has this name");
    service.stop().await;
    world.mesh.stop().await;
    report
}

/// A mesh with the small tool service, and alice's token.
struct World {
    mesh: TestMesh,
    few: std::net::SocketAddr,
    token: String,
}
