//! The reported status of each dependency.

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::Stdio,
};

use drawbridge_mesh::dependencies::Redis;
use serde_json::Value;

use super::{ChildGuard, Up, drawbridge};

fn dependency<'a>(output: &'a Value, name: &str) -> &'a Value {
    let all = output["dependencies"].as_array().unwrap_or_else(|| panic!("{output}"));
    all.iter()
        .find(|dependency| dependency["name"] == name)
        .unwrap_or_else(|| panic!("no {name}: {output}"))
}

fn check(up: &Up, name: &str, state: &str, reason: Option<&str>, which: &str) {
    let entry = dependency(&up.report, name);
    assert_eq!(entry["state"], state, "{entry}");
    let output = entry["reason"].as_str();
    assert_eq!(output.is_some(), reason.is_some(), "{entry}");
    assert!(
        reason.is_none_or(|reason| output.is_some_and(|output| output.contains(reason))),
        "{entry}"
    );
    assert!(entry["which"].as_str().expect("text").contains(which), "{entry}");
}

#[test]
fn an_embedded_dependency_is_reported_with_its_reason() {
    let up = Up::with(&["--embedded"]);
    for name in ["redis", "credentials", "invoices"] {
        check(&up, name, "embedded", None, "; --embedded");
    }
    check(&up, "authorizationServer", "embedded", None, "for development");
    check(&up, "traces", "none", None, "OTEL_EXPORTER_OTLP_ENDPOINT");
    up.stop();

    let nothing = tempfile::tempdir().expect("a folder");
    let up = Up::with_env(&[], &[("PATH", nothing.path().to_str().expect("a path"))]);
    check(&up, "redis", "embedded", None, "; redis-server is not on PATH");
    check(&up, "credentials", "embedded", None, "; neither bao nor vault is on PATH");
    check(&up, "invoices", "embedded", None, "SQLite in memory; PostgreSQL ");
    up.stop();
}

/// Regression: all of these were reported as real.
#[test]
fn a_dependency_that_does_not_answer_is_unreachable_and_the_mesh_starts() {
    // A port without a listener.
    let nowhere =
        ["--embedded", "--redis-url", "redis://127.0.0.1:1", "--issuer", "http://127.0.0.1:1"];
    let up = Up::with(&[&nowhere[..], &["--otlp-endpoint", "http://127.0.0.1:1"]].concat());
    let refused = Some("Connection refused");
    check(&up, "redis", "unreachable", refused, "--redis-url");
    check(&up, "authorizationServer", "unreachable", refused, "http://127.0.0.1:1");
    check(&up, "traces", "unreachable", refused, "http://127.0.0.1:1");
    let output = up.report.to_string();
    assert!(!output.contains("kind:") && !output.contains("Os {"), "{output}");
    up.stop();
}

#[tokio::test]
async fn a_redis_with_a_wrong_password_is_unreachable() {
    let redis = Redis::start(Path::new("redis-server"))
        .await
        .expect("redis-server, which `make test` installs");
    let url = redis.url.clone();
    let wrong = format!("redis://:wrong@127.0.0.1:{}", redis.port);
    tokio::task::spawn_blocking(move || {
        let up = Up::with(&["--embedded", "--redis-url", &url]);
        check(&up, "redis", "real", None, "--redis-url");
        assert!(!up.report.to_string().contains(&url), "the report contains the password");
        up.stop();
        let up = Up::with(&["--embedded", "--redis-url", &wrong]);
        check(&up, "redis", "unreachable", Some("authentication failed"), "--redis-url");
        up.stop();
    })
    .await
    .expect("a thread");
}

#[test]
fn the_table_agrees_with_the_json_report() {
    let state = tempfile::tempdir().expect("a folder");
    let mut command = drawbridge(state.path());
    command.args([
        "up",
        "--free-ports",
        "--embedded",
        "--log",
        "error",
        "--otlp-endpoint",
        "http://127.0.0.1:1",
    ]);
    command.args(["--service", "venues=http://127.0.0.1:1"]).current_dir(crate::REPOSITORY);
    let mut up = ChildGuard(command.stdout(Stdio::piped()).spawn().expect("the binary"));
    let lines = BufReader::new(up.0.stdout.take().expect("its output")).lines();
    let output: Vec<String> =
        lines.map_while(Result::ok).take_while(|line| line != "Press Ctrl-C to stop.").collect();
    let row = |begins: &str| {
        output.iter().find(|line| line.trim_start().starts_with(begins)).expect("a row").clone()
    };
    assert!(row("traces ").contains("unreachable: Connection refused"), "{output:#?}");
    assert!(row("sessions, revocations ").contains("embedded"), "{output:#?}");
    assert!(row("sessions, revocations ").contains("in this process; --embedded"), "{output:#?}");
    assert!(row("venues ").contains("unreachable: UNAVAILABLE: "), "{output:#?}");
    let advice =
        "venues: start it, run `drawbridge policy schema --service-url http://127.0.0.1:1`";
    assert!(row("venues:").starts_with(advice), "{output:#?}");
    super::signal("-TERM", up.0.id());
    assert_eq!(up.0.wait().expect("an end").code(), Some(0));
}
