//! Services as processes: errors have the format of the command line.

use std::process::Command;

/// Asserts that the binary exits with this code and reports only this problem.
fn check(binary: &str, arguments: &[&str], code: i32, problem: &str) {
    let mut command = Command::new(binary);
    let output = command.args(arguments).env("DRAWBRIDGE_LOG", "off").output().expect("the binary");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {stderr}");
    assert!(stderr.starts_with("error: ") && stderr.contains(problem), "{arguments:?}: {stderr}");
    // The error chain is on one line, not in anyhow's multi-line format.
    assert!(
        !stderr.contains("Caused by") && !stderr.contains("Error: "),
        "{arguments:?}: {stderr}"
    );
    assert!(code != 1 || stderr.lines().count() == 1, "{arguments:?}: {stderr}");
}

#[test]
fn a_service_that_cannot_start_prints_its_error_chain_on_one_line() {
    let code = env!("CARGO_BIN_EXE_code-process");
    check(code, &["--root", "/nowhere"], 1, "cannot open the source tree /nowhere: No such file");
    check(code, &["--auth-jwks-url", "localhost:7111"], 2, "write `http://localhost:7111`");
    check(code, &["--listen", "nonsense"], 2, "invalid value 'nonsense' for '--listen");
    let invoices = env!("CARGO_BIN_EXE_invoices-process");
    check(invoices, &["--database-url", "db.internal"], 1, "must be postgres://host/database");
    check(invoices, &[], 2, "--database-url <DATABASE_URL>");
}

#[test]
fn a_boolean_flag_of_a_service_can_be_set_by_its_variable() {
    let code = env!("CARGO_BIN_EXE_code-process");
    let help = Command::new(code).arg("--help").output().expect("the binary");
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    assert!(help.starts_with("Searches and reads one source tree\n\nUsage: "), "{help}");
    assert!(help.contains("[env: DRAWBRIDGE_CODE_ALLOW_PLAINTEXT="), "{help}");
    let mut command = Command::new(code);
    command.args(["--listen", "0.0.0.0:0", "--admin-listen", "nonsense"]);
    let output =
        command.env("DRAWBRIDGE_CODE_ALLOW_PLAINTEXT", "perhaps").output().expect("the binary");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("invalid value"), "{stderr}");
}
