//! The service as a process.

use std::process::ExitCode;

fn main() -> ExitCode {
    drawbridge_sdk::run_service("{{name}}", "Finds and books meeting rooms", {{name}}::start)
}
