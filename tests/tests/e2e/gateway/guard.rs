//! Content guards: they filter what a model receives from tool services.

use std::{fs, path::PathBuf};

use drawbridge_mesh::HostedService;
use drawbridge_tests::{Client, Edge, Reply, TestMesh, serve_conformance};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::limits::{metric, until};
use crate::mcp::interaction::call_with;

mod lock;

const IBAN: &str = "DE89 3704 0044 0532 0130 00";
const CARD: &str = "4111-1111-1111-1111";

/// Assembled at run time, so that no secret scanner reports it.
fn token() -> String {
    format!("ghp_{}", "a1B2".repeat(9))
}

/// A mesh with secrets in its source tree, and an edge with an editable config file in front of
/// both services.
struct Guarded {
    mesh: TestMesh,
    edge: Edge,
    folder: TempDir,
    _service: HostedService,
}

impl Guarded {
    async fn start(config: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let tree = folder.path().join("tree");
        fs::create_dir(&tree).expect("a folder");
        let text = format!(
            "# marker\nTOKEN={} # marker\nMAIL=ada@mail.test PAY={IBAN} # marker\n",
            token()
        );
        fs::write(tree.join("settings.txt"), text).expect("a file");
        fs::write(tree.join("long.txt"), "a line with a Märker\n".repeat(1000)).expect("a file");
        let mesh = TestMesh::with(|config| {
            serve_conformance(config);
            config.code_root = tree;
        })
        .await;
        let file = folder.path().join("edge.toml");
        fs::write(&file, config).expect("a file");
        let code = mesh.mesh.state.services["code"].clone();
        let (_, service, unguarded) = mesh.conformance(|_| {}).await;
        drop(unguarded);
        let test = mesh.grpc_url(&service.running.address);
        let edge = mesh
            .edge(&[("code", &code), ("test", &test)], |config| config.config = Some(file))
            .await;
        Self { mesh, edge, folder, _service: service }
    }

    fn write(&self, config: &str) {
        fs::write(self.file(), config).expect("a file");
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("edge.toml")
    }

    async fn alice(&self) -> Client {
        self.edge.client(&self.mesh.client("alice").await)
    }
}

async fn search(client: &Client, query: &str) -> Value {
    let reply = client.call_tool("code_search", json!({ "query": query })).await;
    let mut result = reply.json["result"].clone();
    assert!(result.is_object(), "{reply:?}");
    result.take()
}

/// The result of a tool that echoes a text.
async fn echo(client: &Client, text: &str) -> String {
    let reply = client.call_tool("test_custom_header", json!({ "value": text })).await;
    text_of(&reply, &reply.json["result"]["content"][0]["text"])
}

/// The message of a prompt that echoes a text.
async fn echo_prompt(client: &Client, text: &str) -> String {
    let arguments = json!({ "arg1": text, "arg2": "x" });
    let params = json!({ "name": "test_prompt_with_arguments", "arguments": arguments });
    let reply = client.call("prompts/get", params).await;
    text_of(&reply, &reply.json["result"]["messages"][0]["content"]["text"])
}

async fn read(client: &Client, path: &str) -> Value {
    let reply = client.call("resources/read", json!({ "uri": format!("code://{path}") })).await;
    reply.json["result"]["contents"][0].clone()
}

fn text_of(reply: &Reply, text: &Value) -> String {
    text.as_str().unwrap_or_else(|| panic!("{reply:?}")).to_owned()
}

#[tokio::test]
async fn secrets_are_redacted_in_results_resources_prompts_and_errors() {
    let guarded = Guarded::start(
        r#"
        [[guard]]
        kind = "redact"
        redact = ["secrets", "cards", "email"]
        patterns = [{ name = "case", pattern = 'C-\d{4}', replacement = "[a case]" }]
        [[guard]]
        kind = "redact"
        redact = ["iban"]
        except = ["test_custom_header"]
        "#,
    )
    .await;
    let alice = guarded.alice().await;
    let token = token();

    let found = search(&alice, "marker").await;
    let lines: Vec<_> =
        found["structuredContent"]["matches"].as_array().into_iter().flatten().collect();
    assert_eq!(lines.len(), 3, "{found}");
    assert_eq!(lines[1]["line"], "TOKEN=[redacted:github-token] # marker", "{found}");
    assert_eq!(lines[2]["line"], "MAIL=[redacted:email] PAY=[redacted:iban] # marker", "{found}");
    // The text content matches the structured content.
    let text = found["content"][0]["text"].as_str().expect("a text");
    let text: Value = serde_json::from_str(text).expect("JSON");
    assert_eq!(text, found["structuredContent"]);
    assert_eq!(found["isError"], false);

    let file = read(&alice, "settings.txt").await;
    let text = "# marker\nTOKEN=[redacted:github-token] # marker\n\
                MAIL=[redacted:email] PAY=[redacted:iban] # marker\n";
    assert_eq!(file["text"], text, "{file}");

    let secret = format!("{token} C-1234 {CARD} {IBAN}");
    let redacted = "[redacted:github-token] [a case] [redacted:card] [redacted:iban]";
    assert!(echo_prompt(&alice, &secret).await.contains(redacted));
    for code in [3, 9] {
        let failed =
            alice.call_tool("test_fail_with", json!({ "code": code, "message": secret })).await;
        assert_eq!(failed.message(), redacted, "{failed:?}");
    }
    // A tool in `except` is not guarded.
    let expected = "[redacted:github-token] [a case] [redacted:card] DE89 3704 0044 0532 0130 00";
    assert_eq!(echo(&alice, &secret).await, expected);

    for (guard, item, count) in [
        ("github-token", "code_search", "1"),
        ("iban", "code_file", "1"),
        ("case", "test_fail_with", "2"),
    ] {
        let line = format!("edge_guarded_total{{guard=\"{guard}\",item=\"{item}\"}}");
        assert_eq!(metric(&guarded.edge, &line).await.as_deref(), Some(count), "{line}");
    }
}

#[tokio::test]
async fn guards_run_in_the_order_of_the_file_and_follow_its_edits() {
    let (strip, redact) =
        ("[[guard]]\nkind = \"strip\"\n", "[[guard]]\nkind = \"redact\"\nredact = [\"secrets\"]\n");
    let guarded = Guarded::start(&format!("{strip}{redact}")).await;
    let alice = guarded.alice().await;
    let token = token();
    let split = token.replacen('_', "\u{200b}_\u{2060}", 1);
    let tags: String =
        "obey".bytes().filter_map(|byte| char::from_u32(0xe0000 + u32::from(byte))).collect();
    let hidden = format!("{split} read{tags} \u{1b}[8mme\u{202e}");
    assert_eq!(echo(&alice, &hidden).await, "[redacted:github-token] read me");

    // In the reverse order a split secret is not detected, and the log warns about that.
    guarded.write(&format!("{redact}{strip}"));
    until("the other order", async || echo(&alice, &hidden).await == format!("{token} read me"))
        .await;
    assert!(guarded.mesh.log().contains("text that invisible characters split is not matched"));
    // An invalid edit changes nothing.
    guarded.write(&redact.replace("secrets", "everything"));
    until("the mistake", async || {
        metric(&guarded.edge, "edge_config_current").await.as_deref() == Some("0")
    })
    .await;
    assert_eq!(echo(&alice, &token).await, "[redacted:github-token]");
    assert!(guarded.mesh.log().contains("unknown variant `everything`"));
    guarded.write("");
    until("no guards", async || echo(&alice, &hidden).await == hidden).await;
}

#[tokio::test]
async fn an_oversized_result_is_truncated_or_replaced_by_an_error() {
    let guarded = Guarded::start(
        "[[guard]]\nkind = \"size\"\nbytes_max = 2000\nexcept = [\"code_list_files\"]\n",
    )
    .await;
    let alice = guarded.alice().await;
    // Structured content is never truncated, only dropped.
    let found = search(&alice, "Märker").await;
    assert_eq!(
        (&found["isError"], &found["structuredContent"]),
        (&json!(true), &Value::Null),
        "{found}"
    );
    let message = found["content"][0]["text"].as_str().expect("a text");
    assert!(message.contains("at most 2000 are allowed; use a narrower query"), "{message}");
    let narrow =
        alice.call_tool("code_search", json!({ "query": "Märker", "max_results": 2 })).await;
    assert_eq!(
        narrow.json["result"]["structuredContent"]["matches"].as_array().map(Vec::len),
        Some(2)
    );

    let file = read(&alice, "long.txt").await;
    let text = file["text"].as_str().expect("a text");
    assert!(text.len() <= 2000 && text.starts_with("a line with a Märker\n"), "{text}");
    assert!(text.ends_with("bytes omitted; at most 2000 are allowed]"), "{text}");
    let long = "é".repeat(1500);
    let text = echo(&alice, &long).await;
    assert!(text.len() <= 2000 && text.contains("[truncated: "), "{text}");
    let failed = alice.call_tool("test_fail_with", json!({ "code": 3, "message": long })).await;
    assert!(
        failed.message().len() <= 2000 && failed.message().contains("[truncated: "),
        "{failed:?}"
    );
    let listed = alice.call_tool("code_list_files", json!({})).await;
    assert_eq!(listed.json["result"]["isError"], false, "{listed:?}");
}

#[tokio::test]
async fn progress_and_elicitations_are_guarded_too() {
    let pattern = "patterns = [{ name = \"step\", pattern = 'step \\d+' }]\n";
    let guarded =
        Guarded::start(&format!("[[guard]]\nkind = \"redact\"\nredact = [\"secrets\"]\n{pattern}"))
            .await;
    let alice = guarded.alice().await;
    let params = json!({
        "name": "test_slow_work", "arguments": { "milliseconds": 60 }, "_meta": { "progressToken": "p" },
    });
    let reply = alice.call("tools/call", params).await;
    assert!(
        reply.text.contains("notifications/progress") && reply.text.contains("[redacted:step]"),
        "{reply:?}"
    );
    assert!(!reply.text.contains("step 1"), "{reply:?}");

    let arguments = json!({ "message": format!("Is {} yours?", token()) });
    let elicits = json!({ "elicitation": {} });
    let asked = call_with(&alice, "test_elicitation", arguments, elicits, json!({})).await;
    let asked = asked.json["result"]["inputRequests"].to_string();
    assert!(asked.contains("Is [redacted:github-token] yours?"), "{asked}");
}
