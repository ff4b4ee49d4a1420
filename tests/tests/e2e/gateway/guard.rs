//! Guardrails on content: what a model gets to see of what tool services answer.

use std::{fs, path::PathBuf};

use drawbridge_cli::mesh::Hosted;
use drawbridge_tests::{Client, Edge, Reply, TestMesh, serve_conformance};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::limits::{metric, until};
use crate::mcp::interaction::call_with;

mod lock;

const IBAN: &str = "DE89 3704 0044 0532 0130 00";
const CARD: &str = "4111-1111-1111-1111";

/// Put together here, so that no scanner takes it for a real one.
fn token() -> String {
    format!("ghp_{}", "a1B2".repeat(9))
}

/// A mesh whose source tree has secrets, and an edge whose config file the test edits, before both services.
struct Guarded {
    mesh: TestMesh,
    edge: Edge,
    folder: TempDir,
    _service: Hosted,
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

/// What a tool says that repeats a text.
async fn repeated(client: &Client, text: &str) -> String {
    let reply = client.call_tool("test_custom_header", json!({ "value": text })).await;
    said(&reply, &reply.json["result"]["content"][0]["text"])
}

/// What a prompt says that repeats a text.
async fn prompted(client: &Client, text: &str) -> String {
    let arguments = json!({ "arg1": text, "arg2": "x" });
    let params = json!({ "name": "test_prompt_with_arguments", "arguments": arguments });
    let reply = client.call("prompts/get", params).await;
    said(&reply, &reply.json["result"]["messages"][0]["content"]["text"])
}

async fn read(client: &Client, path: &str) -> Value {
    let reply = client.call("resources/read", json!({ "uri": format!("code://{path}") })).await;
    reply.json["result"]["contents"][0].clone()
}

fn said(reply: &Reply, text: &Value) -> String {
    text.as_str().unwrap_or_else(|| panic!("{reply:?}")).to_owned()
}

#[tokio::test]
async fn secrets_do_not_reach_the_model_in_results_resources_prompts_and_errors() {
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
    // The text says what the structure says.
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
    assert!(prompted(&alice, &secret).await.contains(redacted));
    for code in [3, 9] {
        let failed =
            alice.call_tool("test_fail_with", json!({ "code": code, "message": secret })).await;
        assert_eq!(failed.message(), redacted, "{failed:?}");
    }
    // One tool may show what the others may not.
    let shown = "[redacted:github-token] [a case] [redacted:card] DE89 3704 0044 0532 0130 00";
    assert_eq!(repeated(&alice, &secret).await, shown);

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
async fn guards_work_in_the_order_of_the_file_which_is_edited_while_the_edge_runs() {
    let (strip, redact) =
        ("[[guard]]\nkind = \"strip\"\n", "[[guard]]\nkind = \"redact\"\nredact = [\"secrets\"]\n");
    let guarded = Guarded::start(&format!("{strip}{redact}")).await;
    let alice = guarded.alice().await;
    let token = token();
    let split = token.replacen('_', "\u{200b}_\u{2060}", 1);
    let tags: String =
        "obey".bytes().filter_map(|byte| char::from_u32(0xe0000 + u32::from(byte))).collect();
    let hidden = format!("{split} read{tags} \u{1b}[8mme\u{202e}");
    assert_eq!(repeated(&alice, &hidden).await, "[redacted:github-token] read me");

    // The other way round nothing is found in what is split, and the log says so.
    guarded.write(&format!("{redact}{strip}"));
    until("the other order", async || {
        repeated(&alice, &hidden).await == format!("{token} read me")
    })
    .await;
    assert!(guarded.mesh.log().contains("what unseen characters split is not found"));
    // An edit that is wrong changes nothing.
    guarded.write(&redact.replace("secrets", "everything"));
    until("the mistake", async || {
        metric(&guarded.edge, "edge_config_current").await.as_deref() == Some("0")
    })
    .await;
    assert_eq!(repeated(&alice, &token).await, "[redacted:github-token]");
    assert!(guarded.mesh.log().contains("unknown variant `everything`"));
    guarded.write("");
    until("no guards", async || repeated(&alice, &hidden).await == hidden).await;
}

#[tokio::test]
async fn an_answer_that_is_too_long_is_cut_or_asked_for_again() {
    let guarded = Guarded::start(
        "[[guard]]\nkind = \"size\"\nbytes_max = 2000\nexcept = [\"code_list_files\"]\n",
    )
    .await;
    let alice = guarded.alice().await;
    // Structured content is whole or not there.
    let found = search(&alice, "Märker").await;
    assert_eq!(
        (&found["isError"], &found["structuredContent"]),
        (&json!(true), &Value::Null),
        "{found}"
    );
    let told = found["content"][0]["text"].as_str().expect("a text");
    assert!(told.contains("at most 2000 are passed on; ask for less"), "{told}");
    let narrow =
        alice.call_tool("code_search", json!({ "query": "Märker", "max_results": 2 })).await;
    assert_eq!(
        narrow.json["result"]["structuredContent"]["matches"].as_array().map(Vec::len),
        Some(2)
    );

    let file = read(&alice, "long.txt").await;
    let text = file["text"].as_str().expect("a text");
    assert!(text.len() <= 2000 && text.starts_with("a line with a Märker\n"), "{text}");
    assert!(text.ends_with("bytes are left out; at most 2000 are passed on]"), "{text}");
    let long = "é".repeat(1500);
    let text = repeated(&alice, &long).await;
    assert!(text.len() <= 2000 && text.contains("[cut: "), "{text}");
    let failed = alice.call_tool("test_fail_with", json!({ "code": 3, "message": long })).await;
    assert!(failed.message().len() <= 2000 && failed.message().contains("[cut: "), "{failed:?}");
    let listed = alice.call_tool("code_list_files", json!({})).await;
    assert_eq!(listed.json["result"]["isError"], false, "{listed:?}");
}

#[tokio::test]
async fn what_a_tool_asks_and_tells_on_the_way_is_guarded_too() {
    let pattern = "patterns = [{ name = \"step\", pattern = 'step \\d+' }]\n";
    let guarded =
        Guarded::start(&format!("[[guard]]\nkind = \"redact\"\nredact = [\"secrets\"]\n{pattern}"))
            .await;
    let alice = guarded.alice().await;
    let params = json!({
        "name": "test_slow_work", "arguments": { "milliseconds": 60 }, "_meta": { "progressToken": "p" },
    });
    let told = alice.call("tools/call", params).await;
    assert!(
        told.text.contains("notifications/progress") && told.text.contains("[redacted:step]"),
        "{told:?}"
    );
    assert!(!told.text.contains("step 1"), "{told:?}");

    let arguments = json!({ "message": format!("Is {} yours?", token()) });
    let elicits = json!({ "elicitation": {} });
    let asked = call_with(&alice, "test_elicitation", arguments, elicits, json!({})).await;
    let asked = asked.json["result"]["inputRequests"].to_string();
    assert!(asked.contains("Is [redacted:github-token] yours?"), "{asked}");
}
