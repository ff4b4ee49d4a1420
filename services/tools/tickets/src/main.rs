//! The tickets service as a process.

use std::process::ExitCode;

use drawbridge_sdk::run_service;
use drawbridge_tickets::start;
use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

const ABOUT: &str = "Finds, reads, summarizes and answers support tickets";

fn main() -> ExitCode {
    run_service("tickets", ABOUT, start)
}
