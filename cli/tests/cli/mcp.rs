//! `drawbridge token`, `tools`, `resources` and `prompts`, through the edge of a real mesh.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
};

use serde_json::{Value, json};

use super::{Up, drawbridge, new_state, text};

mod new_service;

/// Runs a command with `DRAWBRIDGE_CLIENT_USER`.
fn run_as(up: &Up, user: &str, arguments: &[&str]) -> Output {
    let mut command = drawbridge(up.state.path());
    command.env("DRAWBRIDGE_CLIENT_USER", user).args(arguments);
    command.stdin(Stdio::null()).output().expect("the binary")
}

#[track_caller]
fn check(output: &Output, code: i32, stderr: &str) {
    let found = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{found}{}", text(&output.stdout));
    assert!(found.contains(stderr), "{found}");
}

fn json_of(output: &Output) -> Value {
    check(output, 0, "");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

fn lines_of(output: &Output) -> Vec<Value> {
    check(output, 0, "");
    let lines = text(&output.stdout).lines();
    lines.map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn stored_sign_ins(up: &Up) -> Vec<PathBuf> {
    let entries = fs::read_dir(up.state.path()).expect("the folder");
    let paths = entries.map(|entry| entry.expect("a file").path());
    let is_sign_in = |path: &PathBuf| {
        let name = path.file_name().expect("a name").to_string_lossy();
        name.starts_with("sign-in-") && name.ends_with(".json")
    };
    paths.filter(is_sign_in).collect()
}

#[test]
fn a_user_signs_in_once_and_an_expired_token_is_refreshed() {
    let up = Up::start();
    let token = || json_of(&run_as(&up, "alice", &["token", "--json"]));
    let first = token();
    assert_eq!(first["endpoint"], up.report["mcpUrl"]);
    let expiry = first["expiresAt"].as_str().expect("a time").parse::<jiff::Timestamp>();
    assert!(expiry.expect("a time") > jiff::Timestamp::now());
    assert_eq!(token()["accessToken"], first["accessToken"]);

    let files = stored_sign_ins(&up);
    let [file] = files.as_slice() else { panic!("{files:?}") };
    let mode = fs::metadata(file).expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let mut stored: Value = serde_json::from_slice(&fs::read(file).expect("a file")).expect("JSON");
    stored["expiresAt"] = json!("2020-01-01T00:00:00Z");
    let refresh_token = stored["refreshToken"].clone();
    fs::write(file, stored.to_string()).expect("a file");
    let refreshed = token();
    assert_ne!(refreshed["accessToken"], first["accessToken"]);
    let stored: Value = serde_json::from_slice(&fs::read(file).expect("a file")).expect("JSON");
    assert_ne!(stored["refreshToken"], refresh_token);
    let clients = stored["clientId"].clone();

    // A refresh token that is not valid any more: the user signs in again, as another client.
    let broken = json!({ "refreshToken": "x", "expiresAt": "2020-01-01T00:00:00Z" });
    let mut stored = stored;
    stored.as_object_mut().expect("an object").extend(broken.as_object().expect("it").clone());
    fs::write(file, stored.to_string()).expect("a file");
    token();
    let stored: Value = serde_json::from_slice(&fs::read(file).expect("a file")).expect("JSON");
    assert_ne!(stored["clientId"], clients);
}

#[test]
fn a_token_is_refused_to_a_wrong_password_and_without_an_endpoint() {
    let up = Up::start();
    let output = up.run("token", &["--user", "alice", "--password", "wrong"]);
    check(&output, 1, "refused the user alice");
    assert_eq!(text(&output.stdout), "");
    let output = up.run("token", &["--url", "http://192.0.2.1/mcp", "--user", "alice"]);
    check(&output, 1, "is not https");
    let alone = new_state();
    let output = drawbridge(alone.path()).arg("token").output().expect("the binary");
    check(&output, 1, "give --url");
}

#[tokio::test]
async fn a_person_signs_in_with_a_browser() {
    let up = Up::start();
    let mut command = drawbridge(up.state.path());
    command.args(["token", "--no-browser"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = ChildGuard(command.spawn().expect("the binary"));
    let mut lines = BufReader::new(child.0.stderr.take().expect("its output")).lines();
    let url = lines.find_map(|line| line.expect("a line").trim().parse::<url::Url>().ok());
    let url = url.expect("the sign-in page");
    let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
    let http = http.build().expect("a client");
    let page = http.get(url.clone()).send().await.expect("a page").text().await.expect("a text");
    let (_, rest) = page.split_once(r#"name="request" value=""#).expect("a form");
    let request = rest.split_once('"').expect("a value").0;
    let form =
        [("request", request), ("username", "bob"), ("password", "bob"), ("decision", "allow")];
    let response = http.post(url.join("/authorize").expect("a URL")).form(&form).send().await;
    let response = response.expect("a response");
    let location = response.headers()["location"].to_str().expect("a text").to_owned();
    let page = http.get(location).send().await.expect("a page").text().await.expect("a text");
    assert!(page.contains("You can close this page"), "{page}");
    let mut token = String::new();
    let stdout = child.0.stdout.take().expect("its output");
    BufReader::new(stdout).read_line(&mut token).expect("a token");
    assert!(child.0.wait().expect("an end").success());

    let mut list = drawbridge(up.state.path());
    list.args(["tools", "list", "--json"]).env("DRAWBRIDGE_CLIENT_TOKEN", token.trim());
    let tools = lines_of(&list.output().expect("the binary"));
    let names: Vec<_> = tools.iter().map(|tool| tool["name"].as_str().expect("a name")).collect();
    assert!(names.contains(&"tickets_search") && !names.contains(&"code_search"), "{names:?}");
    // The sign-in is stored: no page is opened.
    let output = up.run("tools", &["list", "--no-browser"]);
    check(&output, 0, "");
    assert!(text(&output.stdout).contains("tickets_search"), "{}", text(&output.stdout));
}

struct ChildGuard(Child);

impl Drop for ChildGuard {
    fn drop(&mut self) {
        // It has exited already unless the test failed.
        let _ = self.0.kill();
    }
}

#[test]
fn tools_resources_and_prompts_are_those_of_an_ai_client() {
    let up = Up::start();
    let tools = lines_of(&run_as(&up, "alice", &["tools", "list", "--json"]));
    assert!(tools.iter().any(|tool| tool["name"] == "code_search"), "{tools:?}");
    let query = r#"{"query":"fn main","glob":"cli/src/main.rs"}"#;
    let result = json_of(&run_as(&up, "alice", &["tools", "call", "--json", "code_search", query]));
    assert_eq!(result["structuredContent"]["matches"][0]["path"], "cli/src/main.rs", "{result}");
    let called = run_as(&up, "alice", &["tools", "call", "code_search", query]);
    let shown: Value = json_of(&called);
    assert_eq!(shown, result["structuredContent"]);

    let resource = "code://LICENSE";
    let read = run_as(&up, "alice", &["resources", "read", resource]);
    check(&read, 0, "");
    let license = fs::read_to_string(format!("{}/LICENSE", super::REPOSITORY)).expect("a file");
    assert_eq!(text(&read.stdout), license);
    let templates = lines_of(&run_as(&up, "alice", &["resources", "list", "--json"]));
    assert!(templates.iter().any(|item| item["uriTemplate"] == "code://{+path}"), "{templates:?}");

    let prompts = lines_of(&run_as(&up, "carol", &["prompts", "list", "--json"]));
    assert!(prompts.iter().any(|prompt| prompt["name"] == "invoices_review"), "{prompts:?}");
    let review = ["prompts", "get", "invoices_review", r#"{"invoice_id":"seven"}"#];
    check(&run_as(&up, "carol", &review), 3, "no such invoice");
}

#[test]
fn the_exit_code_says_whether_the_tool_the_command_line_or_a_refusal_failed_a_call() {
    let up = Up::start();
    let call = |user: &str, arguments: &[&str]| {
        run_as(&up, user, &[&["tools", "call"], arguments].concat())
    };
    check(&call("bob", &["code_search", r#"{"query":"x"}"#]), 3, "no tool code_search");
    check(&call("alice", &["code_search", r#"{"query":"(","regex":true}"#]), 1, "");
    check(&call("alice", &["code_search", "query=x"]), 2, "not a JSON object");
    check(&call("alice", &["code_search", "--answer", "x"]), 2, "NAME=VALUE");
    let denied = run_as(&up, "alice", &["resources", "read", "code://.env"]);
    assert!(denied.status.code().is_some_and(|code| code == 1 || code == 3), "{denied:?}");
    let mut command = drawbridge(up.state.path());
    command.args(["tools", "list"]).env("DRAWBRIDGE_CLIENT_TOKEN", "nonsense");
    check(&command.output().expect("the binary"), 3, "token");
}

#[test]
fn watch_prints_the_tools_that_appear_and_disappear_until_it_is_interrupted() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("edge.toml");
    fs::write(&config, "").expect("a file");
    let up = Up::with(&["--config", config.to_str().expect("a text")]);
    let mut command = drawbridge(up.state.path());
    command.args(["tools", "watch", "--json", "--user", "alice"]).stdout(Stdio::piped());
    let mut watch = ChildGuard(command.spawn().expect("the binary"));
    let mut lines = BufReader::new(watch.0.stdout.take().expect("its output")).lines();
    let mut next = || -> Value {
        let line = lines.next().expect("more").expect("a line");
        serde_json::from_str(&line).expect("JSON")
    };
    let first = next();
    let names = first["tools"].as_array().expect("names");
    assert!(names.contains(&json!("code_search")), "{first}");
    fs::write(&config, "[[tool]]\nname = \"code_search\"\nhidden = true\n").expect("a file");
    assert_eq!(next(), json!({ "added": [], "removed": ["code_search"], "changed": [] }));
    fs::write(&config, "[[tool]]\nname = \"code_search\"\ntitle = \"Grep\"\n").expect("a file");
    assert_eq!(next(), json!({ "added": ["code_search"], "removed": [], "changed": [] }));
    let id = watch.0.id().to_string();
    Command::new("kill").args(["-INT", &id]).status().expect("kill");
    assert!(watch.0.wait().expect("an end").success());
}
