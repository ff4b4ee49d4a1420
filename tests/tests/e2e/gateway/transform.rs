//! Overlays, transformations and virtual servers of the config file.

use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use drawbridge_tests::{Client, Edge, Reply, TestIssuer, TestMesh};
use http::StatusCode;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinSet;
use url::Url;

/// The time limit for a change to take effect, on a busy machine too.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(30);

const TICKETS: &str = r#"
[[tool]]
name = "tickets_search"
rename = "find_open_tickets"
title = "Open tickets"
description = "Finds open tickets."
arguments.fixed = { state = "open" }
arguments.defaults = { page_size = 2 }
arguments.hidden = ["assignee"]
request = ".page_size = ([.page_size, 3] | min)"
response = '''
{ tickets: [.tickets[] | { id: .ticket_id, state, customer: (.customer.login | sub("(?<first>.).*"; "\(.first)…")), tenant: $principal.tenant }] }
'''
output_schema = '{ "type": "object", "properties": { "tickets": { "type": "array" } }, "required": ["tickets"] }'

[[tool]]
name = "tickets_reply"
hidden = true
"#;

/// An editable config file.
struct ConfigFile(TempDir);

impl ConfigFile {
    fn new(text: &str) -> Self {
        let file = Self(tempfile::tempdir().expect("a folder"));
        file.write(text);
        file
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("edge.toml")
    }

    fn write(&self, text: &str) {
        fs::write(self.path(), text).expect("a file");
    }
}

async fn edge(mesh: &TestMesh, file: &ConfigFile) -> Edge {
    let services = &mesh.mesh.state.services;
    let services = ["code", "tickets"].map(|name| (name, &services[name]));
    mesh.edge(&services, |config| config.config = Some(file.path())).await
}

fn structured(reply: &Reply) -> &Value {
    let result = &reply.json["result"];
    assert!(result["isError"] != true && result["structuredContent"].is_object(), "{reply:?}");
    &result["structuredContent"]
}

async fn tools(client: &Client) -> Vec<Value> {
    let reply = client.call("tools/list", json!({})).await;
    reply.json["result"]["tools"].as_array().unwrap_or_else(|| panic!("{reply:?}")).clone()
}

async fn until(what: &str, is_done: impl AsyncFn() -> bool) {
    let started = Instant::now();
    while !is_done().await {
        assert!(started.elapsed() < CHANGE_TIMEOUT, "{what} takes too long");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn metrics(edge: &Edge) -> String {
    let url = format!("http://{}/metrics", edge.hosted.running.admin);
    reqwest::get(url).await.expect("metrics").text().await.expect("metrics")
}

async fn metric(edge: &Edge, name: &str) -> Option<String> {
    metrics(edge)
        .await
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .map(|value| value.trim().to_owned())
}

#[tokio::test]
async fn an_overlay_changes_a_tool_for_clients_and_policies_use_its_original_name() {
    let mesh = TestMesh::start().await;
    let file = ConfigFile::new(TICKETS);
    let edge = edge(&mesh, &file).await;
    let bob = edge.client(&mesh.client("bob").await);

    let listed = tools(&bob).await;
    let names: Vec<_> = listed.iter().map(|tool| tool["name"].as_str().expect("a name")).collect();
    assert_eq!(names, ["find_open_tickets", "tickets_get", "tickets_summarize"]);
    let overlaid = &listed[0];
    assert_eq!(
        (&overlaid["title"], &overlaid["description"]),
        (&json!("Open tickets"), &json!("Finds open tickets."))
    );
    let properties = &overlaid["inputSchema"]["properties"];
    assert!(
        properties.get("state").is_none() && properties.get("assignee").is_none(),
        "{overlaid}"
    );
    assert_eq!(properties["page_size"]["default"], 2);
    assert_eq!(overlaid["outputSchema"]["required"], json!(["tickets"]));

    let count = async |arguments: Value| {
        let reply = bob.call_tool("find_open_tickets", arguments).await;
        let found = structured(&reply).clone();
        assert_eq!(reply.json["result"]["content"][0]["text"], found.to_string());
        let tickets = found["tickets"].as_array().expect("tickets").clone();
        for ticket in &tickets {
            assert_eq!(
                (&ticket["state"], &ticket["tenant"]),
                (&json!("open"), &json!("acme")),
                "{found}"
            );
            let customer = ticket["customer"].as_str().expect("a text");
            assert!(customer.chars().count() == 2 && customer.ends_with('…'), "{found}");
            assert_eq!(ticket.as_object().expect("an object").len(), 4);
        }
        tickets.len()
    };
    assert_eq!((count(json!({})).await, count(json!({ "page_size": 1 })).await), (2, 1));
    assert_eq!(count(json!({ "page_size": 100 })).await, 3);
    // The program receives a converted number, and the default for an absent argument.
    assert_eq!(
        (count(json!({ "page_size": "1" })).await, count(json!({ "page_size": null })).await),
        (1, 2)
    );
    let frank = edge.client(&mesh.client("frank").await);
    let of_frank = frank.call_tool("find_open_tickets", json!({})).await;
    assert_eq!(structured(&of_frank)["tickets"][0]["tenant"], "umbrella");

    for (name, value) in
        [("state", json!("closed")), ("assignee", json!("x")), ("page_size", json!("two"))]
    {
        let reply = bob.call_tool("find_open_tickets", json!({ name: value })).await;
        assert!(
            reply.json["result"]["isError"] == true && reply.message().contains(name),
            "{reply:?}"
        );
    }
    for hidden in ["tickets_search", "tickets_reply"] {
        let reply = bob.call_tool(hidden, json!({})).await;
        assert_eq!(reply.error_code(), Some(-32602), "{reply:?}");
    }

    // Auth decides on the message as it will be sent, under the service's name of the tool.
    let forbid = "@id(\"no-open-tickets\")\nforbid (principal, action == Action::\"tickets_search\", resource)\n\
                  when { context.input.state == \"open\" };\n\n@id(";
    mesh.edit_policy("tickets.cedar", "@id(", forbid);
    until("the policy", async || {
        bob.call_tool("find_open_tickets", json!({})).await.status == StatusCode::FORBIDDEN
    })
    .await;
    let denied = bob.call_tool("find_open_tickets", json!({})).await;
    assert_eq!(
        denied.message(),
        "denied by policy: tickets_search: a policy forbids it",
        "{denied:?}"
    );
}

#[tokio::test]
async fn a_failing_or_endless_program_reveals_nothing_and_does_not_disturb_others() {
    let mesh = TestMesh::start().await;
    let file = ConfigFile::new("");
    let edge = edge(&mesh, &file).await;
    let alice = edge.client(&mesh.client("alice").await);
    let search = json!({ "query": "permit", "path": "policies", "max_results": 2 });
    let plain = alice.call_tool("code_search", search.clone()).await;
    assert_eq!(structured(&plain)["matches"].as_array().expect("matches").len(), 2);

    let tool = |name: &str, key: &str, program: &str| {
        format!("[[tool]]\nname = \"{name}\"\n{key} = '''{program}'''\n")
    };
    let endless = [
        ("code_search", "response", "def f: f; f"),
        ("code_list_files", "request", "[range(1e12)]"),
    ];
    file.write(&endless.map(|(name, key, program)| tool(name, key, program)).concat());
    for (name, key, _) in endless {
        let call = async || {
            let arguments = if name == "code_search" { search.clone() } else { json!({}) };
            alice.call_tool(name, arguments).await
        };
        until(name, async || call().await.error_code() == Some(-32603)).await;
        let reply = call().await;
        assert_eq!(
            reply.message(),
            format!("the {key} of {name} could not be transformed"),
            "{reply:?}"
        );
        assert!(!reply.text.contains("policies"), "{reply:?}");
        reply.assert_names_request();
    }
    let mut tasks = JoinSet::new();
    for number in 0..40 {
        let (alice, search) = (alice.clone(), search.clone());
        tasks.spawn(async move {
            let reply = match number % 4 {
                0 => alice.call_tool("code_search", search).await,
                1 => alice.call_tool("code_list_files", json!({})).await,
                _ => alice.call("resources/read", json!({ "uri": "code://LICENSE" })).await,
            };
            let fails = (number % 4 < 2).then_some(-32603);
            assert_eq!(reply.error_code(), fails, "{reply:?}");
        });
    }
    tasks.join_all().await;
    let metrics = metrics(&edge).await;
    let failures = metrics.lines().filter(|line| line.starts_with("edge_transform_failures_total"));
    assert!(
        failures.clone().any(|line| line.contains("code_search") && line.contains("response")),
        "{metrics}"
    );
    assert!(
        failures.clone().any(|line| line.contains("code_list_files") && line.contains("request")),
        "{metrics}"
    );
    assert!(mesh.log().contains("exceeded the work limit of a program"));

    // Only the log contains the message of a program's own error.
    file.write(&tool("code_search", "response", "error(\"not for \\($principal.subject)\")"));
    until("the program", async || {
        alice.call_tool("code_search", search.clone()).await;
        mesh.log().contains("raised an error: not for ")
    })
    .await;
    let reply = alice.call_tool("code_search", search.clone()).await;
    assert!(reply.error_code() == Some(-32603) && !reply.text.contains("not for"), "{reply:?}");

    // An invalid program leaves the previous one in place and is reported with its location.
    file.write(&tool("code_search", "response", "{ count: (.matches | length) }"));
    until("the edit", async || {
        let reply = alice.call_tool("code_search", search.clone()).await;
        reply.json["result"]["structuredContent"] == json!({ "count": 2 })
    })
    .await;
    assert_eq!(metric(&edge, "edge_config_current").await.as_deref(), Some("1"));
    assert!(
        tools(&alice)
            .await
            .iter()
            .all(|tool| tool["name"] != "code_search" || tool.get("outputSchema").is_none())
    );
    file.write(&tool("code_search", "response", "{ count: (.matches | lenght) }"));
    until("the mistake", async || {
        metric(&edge, "edge_config_current").await.as_deref() == Some("0")
    })
    .await;
    let log = mesh.log();
    assert!(
        log.contains("edge.toml:3:")
            && log.contains("the response program does not compile: undefined filter lenght/0"),
        "{log}"
    );
    let reply = alice.call_tool("code_search", search).await;
    assert_eq!(structured(&reply), &json!({ "count": 2 }));
}

#[tokio::test]
async fn a_virtual_server_offers_its_selected_items_and_has_its_own_audience() {
    let issuer = TestIssuer::start().await;
    let mesh = TestMesh::with(|config| {
        let file = config.policies.join("issuers.toml");
        let entry = format!(
            "[[issuers]]\nissuer = \"{}\"\nallow_private_addresses = true\n",
            issuer.name()
        );
        fs::write(&file, entry).expect("a file");
        config.issuers = Some(file);
    })
    .await;
    let servers = "[[server]]\nname = \"desk\"\ntools = [\"tickets_*\", \"code_search\"]\nresources = [\"tickets_*\"]\n";
    let file = ConfigFile::new(&format!("{TICKETS}{servers}"));
    let edge = edge(&mesh, &file).await;
    let at = |path: &str| {
        let mut url: Url = edge.url.clone();
        url.set_path(path);
        url
    };
    let desk = at("/mcp/desk");
    let (alice, bob) = (mesh.client("alice").await, mesh.client("bob").await);
    assert_eq!(
        bob.at(&desk).tools().await,
        ["find_open_tickets", "tickets_get", "tickets_summarize"]
    );
    assert_eq!(alice.at(&desk).tools().await, ["code_search"]);
    let unselected = alice.at(&desk).call_tool("code_list_files", json!({})).await;
    assert_eq!(unselected.error_code(), Some(-32602), "{unselected:?}");
    let read = async |client: &Client, uri: &str| {
        client.at(&desk).call("resources/read", json!({ "uri": uri })).await
    };
    assert!(read(&bob, "ticket://101").await.json["result"].is_object());
    assert_ne!(read(&alice, "code://README.md").await.error_code(), None);

    // It has its own resource, metadata and challenge; a token for it is valid nowhere else.
    let challenge = mesh.anonymous().at(&desk).call("tools/list", json!({})).await;
    let challenge = challenge.headers["www-authenticate"].to_str().expect("a text").to_owned();
    assert!(challenge.contains("/.well-known/oauth-protected-resource/mcp/desk\""), "{challenge}");
    let metadata = reqwest::get(at("/.well-known/oauth-protected-resource/mcp/desk"))
        .await
        .expect("an answer");
    let metadata: Value = metadata.json().await.expect("JSON");
    let resource = metadata["resource"].as_str().expect("a resource");
    assert!(resource.ends_with("/mcp/desk"), "{metadata}");
    let narrow = mesh.client_with(&issuer.sign(&issuer.header(), &issuer.claims(resource)));
    assert_eq!(narrow.at(&desk).call("tools/list", json!({})).await.status, StatusCode::OK);
    for other in ["/mcp", "/mcp/tickets"] {
        let refused = narrow.at(&at(other)).call("tools/list", json!({})).await;
        assert_eq!(refused.status, StatusCode::UNAUTHORIZED, "{refused:?}");
    }

    // It follows edits of the file.
    file.write(&servers.replace("\"code_search\"", "\"code_*\""));
    let names = ["code_list_files", "code_search"];
    until("the edit", async || alice.at(&desk).tools().await == names).await;
    file.write("");
    until("its removal", async || {
        alice.at(&desk).call("tools/list", json!({})).await.status == StatusCode::NOT_FOUND
    })
    .await;
}
