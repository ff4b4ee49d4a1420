//! Services as processes: what goes wrong is said as the command line says it.

use std::process::Command;

/// Ends with this code, and says this alone.
fn check(binary: &str, arguments: &[&str], code: i32, problem: &str) {
    let mut command = Command::new(binary);
    let output = command.args(arguments).env("DRAWBRIDGE_LOG", "off").output().expect("the binary");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
    assert!(said.starts_with("error: ") && said.contains(problem), "{arguments:?}: {said}");
    // Causes stand behind what they caused, and not below it in a form of their own.
    assert!(!said.contains("Caused by") && !said.contains("Error: "), "{arguments:?}: {said}");
    assert!(code != 1 || said.lines().count() == 1, "{arguments:?}: {said}");
}

#[test]
fn a_service_that_cannot_start_says_an_error_and_its_causes_on_one_line() {
    let code = env!("CARGO_BIN_EXE_code-process");
    check(code, &["--root", "/nowhere"], 1, "cannot open the source tree /nowhere: No such file");
    check(code, &["--auth-jwks-url", "localhost:7111"], 2, "write `http://localhost:7111`");
    check(code, &["--listen", "nonsense"], 2, "invalid value 'nonsense' for '--listen");
    let invoices = env!("CARGO_BIN_EXE_invoices-process");
    check(invoices, &["--database-url", "db.internal"], 1, "must be postgres://host/database");
    check(invoices, &[], 2, "--database-url <DATABASE_URL>");
}

#[test]
fn a_switch_of_a_service_is_turned_on_by_its_variable() {
    let code = env!("CARGO_BIN_EXE_code-process");
    let help = Command::new(code).arg("--help").output().expect("the binary");
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    assert!(help.starts_with("Searches and reads one source tree\n\nUsage: "), "{help}");
    assert!(help.contains("[env: DRAWBRIDGE_CODE_ALLOW_PLAINTEXT="), "{help}");
    let mut command = Command::new(code);
    command.args(["--listen", "0.0.0.0:0", "--admin-listen", "nonsense"]);
    let output =
        command.env("DRAWBRIDGE_CODE_ALLOW_PLAINTEXT", "perhaps").output().expect("the binary");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("invalid value"), "{said}");
}
