//! Tool services of one's own in the mesh, by flags, variables and the edge's config file.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Stdio},
};

use serde_json::{Value, json};

use super::{Running, Up, client::Client, first_port, text, tool};
use crate::{REPOSITORY, new_state, policy::Folder};

const PERMIT: &str = r#"
@id("greeter-everybody")
permit (principal, action in [Action::"read_tool"], resource in Service::"greeter");
"#;

/// The tool service in Python, and its URL. It believes the auth of the mesh whose first port this
/// is.
fn greeter(first_port: u16) -> (Running, String) {
    let mut command = Command::new(tool("python/bin/python"));
    let clients = Path::new(REPOSITORY).join("tests/clients/python");
    command.arg(clients.join("service.py")).arg(Path::new(REPOSITORY).join("proto/proto"));
    command.arg(format!("http://127.0.0.1:{}/.well-known/jwks.json", first_port + 11));
    let mut service = Running(command.stdout(Stdio::piped()).spawn().expect("the service"));
    let mut port = String::new();
    BufReader::new(service.0.stdout.take().expect("its output"))
        .read_line(&mut port)
        .expect("a port");
    (service, format!("http://127.0.0.1:{}", port.trim()))
}

/// Runs a command that `up` advises, word by word.
fn run_advice(up: &Up, sentence: &Value) {
    let sentence = sentence.as_str().unwrap_or_else(|| panic!("no advice: {}", up.said));
    let (_, rest) =
        sentence.split_once("`drawbridge ").unwrap_or_else(|| panic!("no command: {sentence}"));
    let command: Vec<_> = rest.split_once('`').expect("its end").0.split(' ').collect();
    let output = up.run(command[0], &command[1..]);
    assert!(output.status.success(), "{command:?}: {}", text(&output.stderr));
}

async fn sign_in(up: &Up) -> Client {
    let text = |field: &str| up.said[field].as_str().expect("a text");
    Client::sign_in(text("mcpUrl"), text("issuer"), "alice").await
}

async fn greets(alice: &Client) {
    alice.until_it_sees("greeter_greet").await;
    let arguments = json!({ "name": "greeter_greet", "arguments": { "name": "you" } });
    let (status, answer) = alice.call("tools/call", arguments).await;
    assert_eq!(
        answer["result"]["structuredContent"]["greeting"], "Hello, you!",
        "{status} {answer}"
    );
    assert_eq!(answer["result"]["structuredContent"]["caller"], "alice", "{answer}");
}

#[tokio::test]
async fn a_service_that_a_flag_names_is_offered_after_the_steps_that_up_names() {
    let (port, policies) = (first_port(), Folder::new());
    let (service, url) = greeter(port);
    let (folder, first_port) = (policies.0.path().display().to_string(), port);
    let port = port.to_string();
    let named = format!("greeter={url}");
    let start = ["--embedded", "--first-port", &port, "--policies", &folder];
    let up = Up::again(new_state(), &[&start[..], &["--service", &named]].concat());
    let said = &up.said["services"]["greeter"];
    assert_eq!(said["state"], "real", "{said}");
    let advice = &said["toDo"][0];
    assert!(
        advice.as_str().is_some_and(|said| said.contains("policies do not know what it offers")),
        "{advice}"
    );
    let alice = sign_in(&up).await;
    assert!(!alice.tools().await.iter().any(|name| name.starts_with("greeter_")));
    run_advice(&up, advice);
    fs::write(policies.0.path().join("greeter.cedar"), PERMIT).expect("a file");
    greets(&alice).await;
    // The command line knows it too.
    let state: Value =
        serde_json::from_slice(&fs::read(up.state_file()).expect("a file")).expect("JSON");
    assert_eq!(
        state["services"]["greeter"].as_str().map(|url| url.trim_end_matches('/')),
        Some(url.as_str())
    );
    up.stop();
    drop(service);

    // Everything is known now, and by a variable it is the same.
    let (_service, url) = greeter(first_port);
    let named = format!("greeter={url}");
    let state = new_state();
    let mut command = super::drawbridge(state.path());
    command
        .args(["up", "--json", "--log", "warn"])
        .args(start)
        .env("DRAWBRIDGE_EDGE_SERVICE", &named);
    let up = Up::spawn(state, command);
    assert_eq!(up.said["services"]["greeter"]["toDo"], json!([]), "{}", up.said);
    greets(&sign_in(&up).await).await;
    up.stop();
}

#[tokio::test]
async fn a_config_file_names_services_limits_and_the_lock() {
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
    let up = Up::again(new_state(), &start);
    let to_do = up.said["services"]["greeter"]["toDo"].as_array().expect("a list");
    let [advice] = &to_do[..] else { panic!("{to_do:?}") };
    let said = advice.as_str().expect("a sentence");
    assert!(
        said.contains("catalog.lock does not have ") && said.contains("tool greeter_greet"),
        "{said}"
    );
    let alice = sign_in(&up).await;
    let tools = alice.tools().await;
    assert!(!tools.iter().any(|name| name.starts_with("greeter_")), "{tools:?}");
    run_advice(&up, advice);
    greets(&alice).await;
    assert!(
        alice.tools().await.contains(&"code_search".to_owned()),
        "what was locked before is so still"
    );
    // The virtual server of the file has an endpoint, and tokens of its own.
    let endpoint = format!("{}/reading", up.said["mcpUrl"].as_str().expect("a URL"));
    let issuer = up.said["issuer"].as_str().expect("an issuer");
    let reading = Client::sign_in(&endpoint, issuer, "alice").await.tools().await;
    assert!(
        !reading.is_empty() && reading.iter().all(|name| name.starts_with("code_")),
        "{reading:?}"
    );
    up.stop();
}

#[test]
fn variables_of_the_services_count_and_those_that_the_mesh_sets_are_said_to_change_nothing() {
    let state = tempfile::tempdir().expect("a folder");
    let up = |variables: &[(&str, &str)]| {
        let mut command = super::drawbridge(state.path());
        command.args(["up", "--free-ports", "--embedded", "--json", "--log", "error"]);
        command.envs(variables.iter().copied()).current_dir(REPOSITORY);
        command
    };
    let wrong = up(&[("DRAWBRIDGE_EDGE_SESSIONS_MAX", "many")]).output().expect("the binary");
    assert_eq!(wrong.status.code(), Some(1));
    let said = text(&wrong.stderr);
    assert!(said.contains("invalid value 'many' for 'DRAWBRIDGE_EDGE_SESSIONS_MAX"), "{said}");

    let mut command = up(&[
        ("DRAWBRIDGE_EDGE_SCOPES", "mcp,more"),
        ("DRAWBRIDGE_EDGE_AUTH_URL", "http://127.0.0.1:1"),
        ("DRAWBRIDGE_INVOICES_DOCUMENTS_MAX", "10"),
        ("DRAWBRIDGE_TICKETS_JOBS_MAX", "3"),
    ]);
    let mut up = Running(
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary"),
    );
    let mut line = String::new();
    BufReader::new(up.0.stdout.take().expect("its output")).read_line(&mut line).expect("a line");
    let said: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
    let origin = said["mcpUrl"].as_str().expect("a URL").trim_end_matches("/mcp");
    let url = format!("{origin}/.well-known/oauth-protected-resource/mcp");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let metadata = runtime.block_on(async { reqwest::get(url).await?.json::<Value>().await });
    assert_eq!(metadata.expect("metadata")["scopes_supported"], json!(["mcp", "more"]));
    super::signal("-TERM", up.0.id());
    up.0.wait().expect("an end");
    let said = std::io::read_to_string(up.0.stderr.take().expect("its output")).expect("text");
    assert!(
        said.contains("DRAWBRIDGE_EDGE_AUTH_URL changes nothing here: the mesh sets it itself"),
        "{said}"
    );
}

#[test]
fn a_service_that_has_the_name_of_one_of_the_mesh_is_refused() {
    let state = tempfile::tempdir().expect("a folder");
    let mut command = super::drawbridge(state.path());
    command.args(["up", "--free-ports", "--embedded", "--service", "code=http://127.0.0.1:1"]);
    let refused = command.current_dir(REPOSITORY).output().expect("the binary");
    assert_eq!(refused.status.code(), Some(1));
    let said = text(&refused.stderr);
    assert!(
        said.contains("the mesh has a service code of its own: give yours another namespace"),
        "{said}"
    );
}
