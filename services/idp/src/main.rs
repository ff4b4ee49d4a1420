//! The development authorization server as a process.

use std::process::ExitCode;

use drawbridge_idp::start;
use drawbridge_runtime::run_service;
use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

const ABOUT: &str = "A small OAuth 2.1 authorization server for development";

fn main() -> ExitCode {
    run_service("idp", ABOUT, start)
}
