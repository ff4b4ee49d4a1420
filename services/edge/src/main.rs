//! The edge service as a process.

use std::process::ExitCode;

use drawbridge_edge::start;
use drawbridge_runtime::run_service;
use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

const ABOUT: &str = "Serves MCP to AI clients and calls tool services over gRPC";

fn main() -> ExitCode {
    run_service("edge", ABOUT, start)
}
