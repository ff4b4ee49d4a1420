//! Errors have one form: `error: ` and the error chain.

use std::process::Command;

use crate::{REPOSITORY, drawbridge, text};

fn check(arguments: &[&str], code: i32, problem: &str) {
    let state = tempfile::tempdir().expect("a folder");
    let mut command = drawbridge(state.path());
    let failed = command.args(arguments).current_dir(REPOSITORY).output().expect("the binary");
    let stderr = text(&failed.stderr);
    assert_eq!(failed.status.code(), Some(code), "{arguments:?}: {stderr}");
    assert!(stderr.starts_with("error: ") && stderr.contains(problem), "{arguments:?}: {stderr}");
    let errors = stderr.lines().filter(|line| line.to_lowercase().starts_with("error"));
    assert_eq!(errors.count(), 1, "{arguments:?}: {stderr}");
}

#[test]
fn every_command_reports_errors_in_one_form() {
    check(&["call", "code", "Search"], 1, "unknown service code");
    check(&["revoke", "--subject", "alice"], 1, "the URL of auth is unknown");
    check(&["up", "--policies", "/nowhere"], 1, "no policy folder /nowhere");
    check(&["policy", "check", "--issuers", "/nowhere"], 2, "cannot read /nowhere: No such file");
    check(&["policy", "who-can", "nonsense"], 2, "nonsense");
    check(
        &["catalog", "lock", "--config", "/nowhere", "--check"],
        2,
        "cannot read /nowhere: No such file",
    );
    check(
        &[
            "vault",
            "bootstrap",
            "--setup",
            "/nowhere",
            "--vault-url",
            "http://127.0.0.1:1",
            "--vault-token",
            "t",
        ],
        1,
        "cannot read /nowhere: No such file",
    );
    let sample = ["transform", "try", "--config", "/nowhere", "--tool", "t", "--input", "-"];
    check(&sample, 1, "cannot read /nowhere: No such file");
    check(&["man", "/proc/nowhere"], 1, "cannot create the folder /proc/nowhere");
    check(&["nonsense"], 2, "unrecognized subcommand");
}

#[test]
fn every_option_reports_a_url_without_a_scheme() {
    let lacks = "the scheme is missing: write `http://localhost:7450`";
    check(&["policy", "schema", "--service-url", "localhost:7450"], 2, lacks);
    check(&["catalog", "lock", "--service-url", "localhost:7450"], 2, lacks);
    check(&["call", "venues", "Find", "--service-url", "localhost:7450"], 2, lacks);
    check(&["call", "venues", "Find", "--issuer", "localhost:7450"], 2, lacks);
    check(&["revoke", "--subject", "alice", "--auth-url", "localhost:7450"], 2, lacks);
    check(&["up", "--issuer", "localhost:7450"], 2, lacks);
    check(&["up", "--otlp-endpoint", "localhost:7450"], 2, lacks);
    check(&["vault", "bootstrap", "--vault-token", "t", "--vault-url", "localhost:7450"], 2, lacks);
}

/// The error of a service's command line for this value.
fn parse_error(service: &str, option: &str, value: &str) -> String {
    let (_, command) =
        super::help::services().into_iter().find(|(name, _)| *name == service).expect(service);
    command.try_get_matches_from([service, option, value]).expect_err(option).to_string()
}

#[test]
fn every_service_option_reports_a_url_without_a_scheme() {
    for (service, option) in [
        ("edge", "--public-url"),
        ("edge", "--auth-url"),
        ("edge", "--authorization-server"),
        ("auth", "--issuer"),
        ("idp", "--issuer"),
        ("idp", "--auth-url"),
        ("code", "--auth-jwks-url"),
        ("invoices", "--vault-url"),
        ("tickets", "--otlp-endpoint"),
    ] {
        let stderr = parse_error(service, option, "localhost:7450");
        assert!(stderr.contains("write `http://localhost:7450`"), "{service} {option}: {stderr}");
    }
    let stderr = parse_error("edge", "--service", "venues=localhost:7450");
    assert!(stderr.contains("write `http://localhost:7450`"), "{stderr}");
}

#[test]
fn auth_names_both_options_that_give_an_issuer() {
    let (_, auth) =
        super::help::services().into_iter().find(|(name, _)| *name == "auth").expect("auth");
    let error = auth
        .try_get_matches_from(["auth", "--audience", "http://127.0.0.1:7180/mcp"])
        .expect_err("none");
    assert!(error.to_string().contains("<--issuer <ISSUER>|--issuers <FILE>>"), "{error}");
}

#[test]
fn a_variable_turns_its_switch_on_and_off() {
    let run = |value: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_drawbridge"));
        command.current_dir(REPOSITORY).args(["policy", "check"]);
        let output =
            command.env("DRAWBRIDGE_POLICY_CHECK_JSON", value).output().expect("the binary");
        (
            output.status.code(),
            text(&output.stdout).starts_with('{'),
            text(&output.stderr).to_owned(),
        )
    };
    for yes in ["true", "1", "yes", "on"] {
        assert_eq!(run(yes), (Some(0), true, String::new()), "{yes}");
    }
    for no in ["false", "0", "no", "off", ""] {
        assert_eq!(run(no), (Some(0), false, String::new()), "{no}");
    }
    let (code, _, stderr) = run("perhaps");
    assert!(code == Some(2) && stderr.contains("invalid value 'perhaps' for '--json'"), "{stderr}");
    // A switch set to false counts as absent: it conflicts with nothing and requires nothing.
    let mut command = Command::new(env!("CARGO_BIN_EXE_drawbridge"));
    command.current_dir(REPOSITORY).args(["catalog", "lock", "--check"]);
    let checked =
        command.env("DRAWBRIDGE_CATALOG_LOCK_REMOVE", "false").output().expect("the binary");
    assert!(checked.status.success(), "{}", text(&checked.stderr));
}
