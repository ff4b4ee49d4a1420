//! A new service in Go, called by `drawbridge tools` through a mesh of its own.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use serde_json::{Value, json};

use super::{ChildGuard, check, json_of, lines_of, run_as};
use crate::{Up, drawbridge, text, up::tool};

/// Runs a command in a folder.
fn run(command: &mut Command, folder: &Path) {
    let output = command.current_dir(folder).stdin(Stdio::null()).output().expect("the program");
    assert!(output.status.success(), "{command:?}: {}", text(&output.stderr));
}

/// Writes the service `rooms` and builds it.
fn build(folder: &Path) {
    let state = folder.join("state");
    run(drawbridge(&state).args(["new", "service", "rooms", "--lang", "go"]), folder);
    for arguments in [&["generate", "./..."][..], &["build"]] {
        let mut go = Command::new("go");
        go.args(arguments).env("GOPROXY", "off").env("GOMODCACHE", tool("go-modules"));
        run(&mut go, &folder.join("rooms"));
    }
}

/// Starts the service, and returns its address.
fn start(folder: &Path, auth: &str) -> (ChildGuard, String) {
    let jwks_url = format!("http://{auth}/.well-known/jwks.json");
    let mut command = Command::new(folder.join("rooms/rooms"));
    command.args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
    command.args(["--auth-jwks-url", &jwks_url, "--log-format", "json"]).stderr(Stdio::piped());
    let mut service = ChildGuard(command.spawn().expect("the service"));
    let mut line = String::new();
    let stderr = service.0.stderr.take().expect("its log");
    let mut log = BufReader::new(stderr);
    log.read_line(&mut line).expect("a line");
    std::thread::spawn(move || log.lines().count());
    let serving: Value =
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
    assert_eq!(serving["message"], "serving", "{line}");
    (service, serving["address"].as_str().expect("an address").to_owned())
}

#[test]
fn tools_call_answers_the_questions_of_a_new_service_and_shows_its_progress() {
    let home = tempfile::tempdir().expect("a folder");
    build(home.path());
    run(drawbridge(&home.path().join("state")).args(["init", "mesh"]), home.path());
    let mesh = home.path().join("mesh");
    let up = Up::outside_a_checkout(&mesh, &[]);
    let auth = up.report["services"]["auth"]["admin"].as_str().expect("an address");
    let (_service, address) = start(home.path(), auth);

    let url = format!("http://{address}");
    run(drawbridge(up.state.path()).args(["policy", "schema", "--service-url", &url]), &mesh);
    let policy = home.path().join("rooms/policies/rooms.cedar");
    fs::copy(policy, mesh.join("policies/rooms.cedar")).expect("the policy");
    let config = mesh.join("edge.toml");
    let services = format!("\n[[services]]\nnamespace = \"rooms\"\nurls = [\"{url}\"]\n");
    let text_before = fs::read_to_string(&config).expect("a file");
    fs::write(&config, text_before + &services).expect("a file");
    while !lines_of(&run_as(&up, "alice", &["tools", "list", "--json"]))
        .iter()
        .any(|tool| tool["name"] == "rooms_book")
    {
        std::thread::sleep(Duration::from_millis(100));
    }

    let search = ["tools", "call", "--json", "rooms_search", r#"{"filter":{"seats_min":8}}"#];
    let found = json_of(&run_as(&up, "bob", &search));
    assert_eq!(found["structuredContent"]["rooms"][0]["id"], "ada", "{found}");
    let booking = r#"{"room_id":"ada","purpose":"stand-up"}"#;
    let book = |user: &str, more: &[&str]| {
        run_as(&up, user, &[&["tools", "call", "rooms_book", booking], more].concat())
    };
    check(&book("alice", &[]), 1, "this client cannot ask for it");
    check(&book("alice", &["--answer", "confirm=decline"]), 1, "did not confirm the booking");
    check(&book("alice", &["--answer", "other=x"]), 2, "Book Ada (8 seats) for: stand-up?");
    let booked = book("alice", &["--answer", "confirm=accept", "--progress", "--json"]);
    check(&booked, 0, "1 of 2 checking the calendar\n2 of 2 booked\n");
    assert_eq!(json_of(&booked)["structuredContent"]["booked_by"], json!("alice"));
    check(&book("alice", &["--answer", "confirm=accept"]), 1, "room `ada` is already booked");
    check(&book("bob", &["--answer", "confirm=accept"]), 3, "no tool rooms_book");
}
