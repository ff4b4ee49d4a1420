//! User-supplied tool services, named by flags, variables and the edge's config file.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Stdio},
};

use serde_json::{Value, json};

use super::{ChildGuard, Up, client::Client, first_port, text, tool};
use crate::{REPOSITORY, new_state, policy::Folder};

const PERMIT: &str = r#"
@id("greeter-for-all")
permit (principal, action in [Action::"read_tool"], resource in Service::"greeter");
"#;

/// The tool service in Python, and its URL. It trusts auth of the mesh with this first port.
fn greeter(first_port: u16) -> (ChildGuard, String) {
    let mut command = Command::new(tool("python-sdk/bin/python"));
    command.arg(Path::new(REPOSITORY).join("tests/services/python/greeter_service.py"));
    command.args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
    let keys = format!("http://127.0.0.1:{}/.well-known/jwks.json", first_port + 11);
    command.args(["--auth-jwks-url", &keys]);
    let mut service = ChildGuard(command.stderr(Stdio::piped()).spawn().expect("the service"));
    let mut log = BufReader::new(service.0.stderr.take().expect("its log")).lines();
    let serving = log.by_ref().find_map(|line| {
        let event: Value = serde_json::from_str(&line.expect("a line")).ok()?;
        (event["message"] == "serving").then_some(event)
    });
    std::thread::spawn(move || log.for_each(drop));
    let serving = serving.expect("it serves");
    (service, format!("http://{}", serving["address"].as_str().expect("an address")))
}

/// Runs a command that `up` advises.
fn run_advice(up: &Up, sentence: &Value) {
    let sentence = sentence.as_str().unwrap_or_else(|| panic!("no advice: {}", up.report));
    let (_, rest) =
        sentence.split_once("`drawbridge ").unwrap_or_else(|| panic!("no command: {sentence}"));
    let command: Vec<_> = rest.split_once('`').expect("its end").0.split(' ').collect();
    let output = up.run(command[0], &command[1..]);
    assert!(output.status.success(), "{command:?}: {}", text(&output.stderr));
}

async fn sign_in(up: &Up) -> Client {
    let text = |field: &str| up.report[field].as_str().expect("a text");
    Client::sign_in(text("mcpUrl"), text("issuer"), "alice").await
}

async fn greets(alice: &Client) {
    alice.until_it_sees("greeter_greet").await;
    let arguments = json!({ "name": "greeter_greet", "arguments": { "name": "you" } });
    let (status, response) = alice.call("tools/call", arguments).await;
    assert_eq!(
        response["result"]["structuredContent"]["greeting"], "Hello, you!",
        "{status} {response}"
    );
    assert_eq!(response["result"]["structuredContent"]["caller"], "alice", "{response}");
}

#[tokio::test]
async fn a_service_from_a_flag_is_offered_after_the_advised_steps() {
    let (port, policies) = (first_port(), Folder::new());
    let (service, url) = greeter(port);
    let (folder, first_port) = (policies.0.path().display().to_string(), port);
    let port = port.to_string();
    let named = format!("greeter={url}");
    let start = ["--embedded", "--first-port", &port, "--policies", &folder];
    let up = Up::restart(new_state(), &[&start[..], &["--service", &named]].concat());
    let entry = &up.report["services"]["greeter"];
    assert_eq!(entry["state"], "real", "{entry}");
    let advice = &entry["toDo"][0];
    assert!(
        advice.as_str().is_some_and(|entry| entry.contains("the policy catalog is out of date")),
        "{advice}"
    );
    let alice = sign_in(&up).await;
    assert!(!alice.tools().await.iter().any(|name| name.starts_with("greeter_")));
    run_advice(&up, advice);
    fs::write(policies.0.path().join("greeter.cedar"), PERMIT).expect("a file");
    greets(&alice).await;
    // The state file lists it too.
    let state: Value =
        serde_json::from_slice(&fs::read(up.state_file()).expect("a file")).expect("JSON");
    assert_eq!(
        state["services"]["greeter"].as_str().map(|url| url.trim_end_matches('/')),
        Some(url.as_str())
    );
    up.stop();
    drop(service);

    // Nothing is left to do, and a variable works like the flag.
    let (_service, url) = greeter(first_port);
    let named = format!("greeter={url}");
    let state = new_state();
    let mut command = super::drawbridge(state.path());
    command
        .args(["up", "--json", "--log", "warn"])
        .args(start)
        .env("DRAWBRIDGE_EDGE_SERVICE", &named);
    let up = Up::spawn(state, command);
    assert_eq!(up.report["services"]["greeter"]["toDo"], json!([]), "{}", up.report);
    greets(&sign_in(&up).await).await;
    up.stop();
}

#[tokio::test]
async fn a_config_file_may_name_services_virtual_servers_and_the_lock() {
    let (port, policies) = (first_port(), Folder::new());
    let (_service, url) = greeter(port);
    let config = policies.0.path().join("edge.toml");
    let text = format!(
        "[catalog]\nlock = \"catalog.lock\"\n\
         [[services]]\nnamespace = \"greeter\"\nurls = [\"{url}\"]\n\
         [[server]]\nname = \"reading\"\ntools = [\"code_*\"]\n"
    );
    fs::write(&config, text).expect("a file");
    fs::write(policies.0.path().join("greeter.cedar"), PERMIT).expect("a file");
    let schema = ["policy", "schema", "--service-url", &url, "--out"];
    let state = tempfile::tempdir().expect("a folder");
    let mut command = super::drawbridge(state.path());
    let written =
        command.args(schema).arg(policies.0.path().join("catalog")).output().expect("the binary");
    assert!(written.status.success(), "{}", super::text(&written.stderr));

    let (folder, port) = (policies.0.path().display().to_string(), port.to_string());
    let config = config.display().to_string();
    let start = ["--embedded", "--first-port", &port, "--policies", &folder, "--config", &config];
    let up = Up::restart(new_state(), &start);
    let to_do = up.report["services"]["greeter"]["toDo"].as_array().expect("a list");
    let [advice] = &to_do[..] else { panic!("{to_do:?}") };
    let entry = advice.as_str().expect("a sentence");
    assert!(
        entry.contains("catalog.lock lacks ") && entry.contains("tool greeter_greet"),
        "{entry}"
    );
    let alice = sign_in(&up).await;
    let tools = alice.tools().await;
    assert!(!tools.iter().any(|name| name.starts_with("greeter_")), "{tools:?}");
    run_advice(&up, advice);
    greets(&alice).await;
    assert!(
        alice.tools().await.contains(&"code_search".to_owned()),
        "items that were locked before remain"
    );
    // The file's virtual server has its own endpoint and token audience.
    let endpoint = format!("{}/reading", up.report["mcpUrl"].as_str().expect("a URL"));
    let issuer = up.report["issuer"].as_str().expect("an issuer");
    let reading = Client::sign_in(&endpoint, issuer, "alice").await.tools().await;
    assert!(
        !reading.is_empty() && reading.iter().all(|name| name.starts_with("code_")),
        "{reading:?}"
    );
    up.stop();
}

#[test]
fn service_variables_apply_and_a_warning_names_those_that_the_mesh_overrides() {
    let state = tempfile::tempdir().expect("a folder");
    let up = |variables: &[(&str, &str)]| {
        let mut command = super::drawbridge(state.path());
        command.args(["up", "--free-ports", "--embedded", "--json", "--log", "error"]);
        command.envs(variables.iter().copied()).current_dir(REPOSITORY);
        command
    };
    let wrong = up(&[("DRAWBRIDGE_EDGE_SESSIONS_MAX", "many")]).output().expect("the binary");
    assert_eq!(wrong.status.code(), Some(1));
    let entry = text(&wrong.stderr);
    assert!(entry.contains("invalid value 'many' for 'DRAWBRIDGE_EDGE_SESSIONS_MAX"), "{entry}");

    let mut command = up(&[
        ("DRAWBRIDGE_EDGE_SCOPES", "mcp,more"),
        ("DRAWBRIDGE_EDGE_AUTH_URL", "http://127.0.0.1:1"),
        ("DRAWBRIDGE_INVOICES_DOCUMENTS_MAX", "10"),
        ("DRAWBRIDGE_TICKETS_JOBS_MAX", "3"),
    ]);
    let mut up = ChildGuard(
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary"),
    );
    let mut line = String::new();
    BufReader::new(up.0.stdout.take().expect("its output")).read_line(&mut line).expect("a line");
    let entry: Value =
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
    let origin = entry["mcpUrl"].as_str().expect("a URL").trim_end_matches("/mcp");
    let url = format!("{origin}/.well-known/oauth-protected-resource/mcp");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let metadata = runtime.block_on(async { reqwest::get(url).await?.json::<Value>().await });
    assert_eq!(metadata.expect("metadata")["scopes_supported"], json!(["mcp", "more"]));
    super::signal("-TERM", up.0.id());
    up.0.wait().expect("an end");
    let entry = std::io::read_to_string(up.0.stderr.take().expect("its output")).expect("text");
    assert!(
        entry.contains("DRAWBRIDGE_EDGE_AUTH_URL is ignored: the mesh sets this option itself"),
        "{entry}"
    );
}

#[test]
fn a_service_with_the_namespace_of_a_built_in_one_is_rejected() {
    let state = tempfile::tempdir().expect("a folder");
    let mut command = super::drawbridge(state.path());
    command.args(["up", "--free-ports", "--embedded", "--service", "code=http://127.0.0.1:1"]);
    let refused = command.current_dir(REPOSITORY).output().expect("the binary");
    assert_eq!(refused.status.code(), Some(1));
    let entry = text(&refused.stderr);
    assert!(
        entry
            .contains("the namespace code belongs to a built-in service: choose another namespace"),
        "{entry}"
    );
}
