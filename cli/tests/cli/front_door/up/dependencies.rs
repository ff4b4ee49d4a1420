//! Each dependency is shown as it is.

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::Stdio,
};

use drawbridge_cli::backing::Redis;
use serde_json::Value;

use super::{Running, Up, drawbridge};

fn dependency<'a>(said: &'a Value, name: &str) -> &'a Value {
    let all = said["dependencies"].as_array().unwrap_or_else(|| panic!("{said}"));
    all.iter()
        .find(|dependency| dependency["name"] == name)
        .unwrap_or_else(|| panic!("no {name}: {said}"))
}

fn check(up: &Up, name: &str, state: &str, reason: Option<&str>, which: &str) {
    let is = dependency(&up.said, name);
    assert_eq!(is["state"], state, "{is}");
    let said = is["reason"].as_str();
    assert_eq!(said.is_some(), reason.is_some(), "{is}");
    assert!(reason.is_none_or(|reason| said.is_some_and(|said| said.contains(reason))), "{is}");
    assert!(is["which"].as_str().expect("text").contains(which), "{is}");
}

#[test]
fn what_is_embedded_is_so_for_its_true_reason() {
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

/// All of these were shown as real.
#[test]
fn what_does_not_answer_is_unreachable_and_the_mesh_starts_anyway() {
    // Nobody listens there.
    let nowhere =
        ["--embedded", "--redis-url", "redis://127.0.0.1:1", "--issuer", "http://127.0.0.1:1"];
    let up = Up::with(&[&nowhere[..], &["--otlp-endpoint", "http://127.0.0.1:1"]].concat());
    let refused = Some("Connection refused");
    check(&up, "redis", "unreachable", refused, "--redis-url");
    check(&up, "authorizationServer", "unreachable", refused, "http://127.0.0.1:1");
    check(&up, "traces", "unreachable", refused, "http://127.0.0.1:1");
    let said = up.said.to_string();
    assert!(!said.contains("kind:") && !said.contains("Os {"), "{said}");
    up.stop();
}

#[tokio::test]
async fn a_redis_is_real_only_for_those_who_have_its_password() {
    let redis = Redis::start(Path::new("redis-server"))
        .await
        .expect("redis-server, which `make test` installs");
    let url = redis.url.clone();
    let wrong = format!("redis://:wrong@127.0.0.1:{}", redis.port);
    tokio::task::spawn_blocking(move || {
        let up = Up::with(&["--embedded", "--redis-url", &url]);
        check(&up, "redis", "real", None, "--redis-url");
        assert!(!up.said.to_string().contains(&url), "the password is said");
        up.stop();
        let up = Up::with(&["--embedded", "--redis-url", &wrong]);
        check(&up, "redis", "unreachable", Some("authentication failed"), "--redis-url");
        up.stop();
    })
    .await
    .expect("a thread");
}

#[test]
fn the_table_shows_what_json_says() {
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
    command.args(["--service", "rooms=http://127.0.0.1:1"]).current_dir(crate::REPOSITORY);
    let mut up = Running(command.stdout(Stdio::piped()).spawn().expect("the binary"));
    let lines = BufReader::new(up.0.stdout.take().expect("its output")).lines();
    let said: Vec<String> =
        lines.map_while(Result::ok).take_while(|line| line != "Ctrl-C ends it.").collect();
    let row = |begins: &str| {
        said.iter().find(|line| line.trim_start().starts_with(begins)).expect("a row").clone()
    };
    assert!(row("traces ").contains("unreachable: Connection refused"), "{said:#?}");
    assert!(row("sessions, revocations ").contains("embedded"), "{said:#?}");
    assert!(row("sessions, revocations ").contains("in this process; --embedded"), "{said:#?}");
    assert!(row("rooms ").contains("unreachable: UNAVAILABLE: "), "{said:#?}");
    let advice =
        "rooms: start it, then `drawbridge policy schema --service-url http://127.0.0.1:1`";
    assert!(row("rooms:").starts_with(advice), "{said:#?}");
    super::signal("-TERM", up.0.id());
    assert_eq!(up.0.wait().expect("an end").code(), Some(0));
}
