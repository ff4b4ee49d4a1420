//! The code service as a process.

use std::process::ExitCode;

use drawbridge_code::start;
use drawbridge_sdk::run_service;
use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

const ABOUT: &str = "Searches and reads one source tree";

fn main() -> ExitCode {
    run_service("code", ABOUT, start)
}
