//! The auth service as a process.

use std::process::ExitCode;

use drawbridge_auth::start;
use drawbridge_runtime::run_service;
use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

const ABOUT: &str =
    "Validates access tokens, evaluates Cedar policies and signs transaction tokens";

fn main() -> ExitCode {
    run_service("auth", ABOUT, start)
}
