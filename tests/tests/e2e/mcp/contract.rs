//! The parts of a contract beyond tools and their schemas: instructions, `_meta`, labels, pages,
//! any JSON as a structured result, and resources that a service lists.

use std::fs;

use drawbridge_tests::{Client, Edge, TestMesh, notes::NOTES, serve_notes};
use serde_json::{Value, json};

use crate::gateway::limits::until;

const INSTRUCTIONS: &str = "Notes of a team. Read one before you show it.";

async fn initialize(client: &Client) -> Value {
    let client_info = json!({ "name": "test", "version": "0" });
    let params =
        json!({ "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client_info });
    client.call("initialize", params).await.json["result"].clone()
}

/// A call in the stateless revision.
async fn stateless(client: &Client, method: &str, name: Option<&str>, mut params: Value) -> Value {
    let capabilities = json!({});
    params["_meta"] = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": capabilities,
    });
    let message = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
    let mut request = client.post().body(message.to_string()).build().expect("a request");
    let headers = request.headers_mut();
    headers.insert("mcp-protocol-version", "2026-07-28".parse().expect("a value"));
    headers.insert("mcp-method", method.parse().expect("a value"));
    if let Some(name) = name {
        headers.insert("mcp-name", name.parse().expect("a value"));
    }
    client.send_built(Ok(request)).await.json["result"].clone()
}

#[tokio::test]
async fn instructions_reach_callers_that_may_use_an_item_of_their_service() {
    let mesh = TestMesh::with(serve_notes).await;
    let (_service, edge) = mesh.notes(|_| {}).await;
    let alice = edge.client(&mesh.client("alice").await);
    assert_eq!(initialize(&alice).await["instructions"], INSTRUCTIONS);
    let discovered = stateless(&alice, "server/discover", None, json!({})).await;
    assert_eq!(discovered["instructions"], INSTRUCTIONS, "{discovered}");
    mesh.edit_policy(
        "notes.cedar",
        "permit (principal,",
        "permit (principal in Group::\"support\",",
    );
    until("an edit of the policies", async || {
        initialize(&alice).await.get("instructions").is_none()
    })
    .await;
    let bob = edge.client(&mesh.client("bob").await);
    assert_eq!(initialize(&bob).await["instructions"], INSTRUCTIONS);
}

#[tokio::test]
async fn only_allowed_meta_keys_and_labels_reach_clients() {
    let mesh = TestMesh::with(serve_notes).await;
    let (_service, edge) = mesh.notes(|_| {}).await;
    let alice = edge.client(&mesh.client("alice").await);
    let tools = alice.call("tools/list", json!({})).await.json["result"]["tools"].clone();
    let labels = json!(["untrusted", "team:notes"]);
    assert_eq!(
        tools[0]["_meta"],
        json!({ "anthropic/alwaysLoad": true, "drawbridge/labels": labels })
    );

    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("edge.toml");
    fs::write(&file, "[meta]\nallow = [\"acme/*\"]\n").expect("a file");
    let (_service, edge) = mesh.notes(|config| config.config = Some(file)).await;
    let alice = edge.client(&alice);
    let tools = alice.call("tools/list", json!({})).await.json["result"]["tools"].clone();
    assert_eq!(tools[0]["_meta"]["acme/internal"], "not for clients", "{tools}");
    let shown = alice.call_tool("notes_show", json!({ "name": "a" })).await;
    assert_eq!(shown.json["result"]["_meta"]["acme/internal"], "not for clients", "{shown:?}");
    assert_eq!(shown.json["result"]["_meta"]["drawbridge/requestId"], shown.request_id());
}

/// Alice's clients at the endpoint of all services, and at the one of notes.
async fn endpoints(mesh: &TestMesh, edge: &Edge) -> (Client, Client) {
    let whole = edge.client(&mesh.client("alice").await);
    let mut url = edge.url.clone();
    url.set_path("/mcp/notes");
    let own = whole.at(&url);
    (whole, own)
}

#[tokio::test]
async fn a_page_is_listed_only_at_the_endpoint_of_its_service() {
    let mesh = TestMesh::with(serve_notes).await;
    let (_service, edge) = mesh.notes(|_| {}).await;
    let (whole, own) = endpoints(&mesh, &edge).await;
    let ui = async |client: &Client| {
        let tools = client.call("tools/list", json!({})).await.json["result"]["tools"].clone();
        tools[0]["_meta"]["ui"].clone()
    };
    assert_eq!(ui(&whole).await, Value::Null);
    let page = json!({ "resourceUri": "ui://notes/app", "visibility": ["model", "app"] });
    assert_eq!(ui(&own).await, page);
    let listed = own.call("resources/list", json!({})).await.json["result"]["resources"].clone();
    assert_eq!(listed[0]["_meta"]["ui"], json!({ "csp": { "connectDomains": [] } }), "{listed}");
    let read = own.call("resources/read", json!({ "uri": "ui://notes/app" })).await;
    assert_eq!(read.json["result"]["contents"][0]["mimeType"], "text/html;profile=mcp-app");
}

#[tokio::test]
async fn the_extension_for_pages_is_declared_if_the_caller_may_use_a_tool_with_a_page() {
    let mesh = TestMesh::with(serve_notes).await;
    let (_service, edge) = mesh.notes(|_| {}).await;
    let (whole, own) = endpoints(&mesh, &edge).await;
    let pages = json!({ "io.modelcontextprotocol/ui": {} });
    for client in [&whole, &own] {
        let expected = if std::ptr::eq(client, &own) { pages.clone() } else { Value::Null };
        assert_eq!(initialize(client).await["capabilities"]["extensions"], expected);
        let discovered = stateless(client, "server/discover", None, json!({})).await;
        assert_eq!(discovered["capabilities"]["extensions"], expected, "{discovered}");
    }
    mesh.edit_policy(
        "notes.cedar",
        "permit (principal,",
        "permit (principal in Group::\"support\",",
    );
    let is_declared = async || initialize(&own).await["capabilities"].get("extensions").is_some();
    until("an edit of the policies", async || !is_declared().await).await;
}

#[tokio::test]
async fn a_structured_result_may_be_any_json_in_a_revision_that_supports_it() {
    let mesh = TestMesh::with(serve_notes).await;
    let (_service, edge) = mesh.notes(|_| {}).await;
    let alice = edge.client(&mesh.client("alice").await);
    let arguments = json!({ "name": "notes_show", "arguments": { "name": "a" } });
    let result = stateless(&alice, "tools/call", Some("notes_show"), arguments).await;
    assert_eq!(result["structuredContent"], json!(["a", 2]), "{result}");
    let trust = json!({ "untrusted": "true" });
    assert_eq!(result["_meta"]["io.modelcontextprotocol/trust-annotations"], trust);
    assert_eq!(result["_meta"].get("acme/internal"), None);
    assert_ne!(result["_meta"]["drawbridge/requestId"], "a lie");

    let older = alice.call_tool("notes_show", json!({ "name": "a" })).await;
    assert_eq!(older.json["result"].get("structuredContent"), None, "{older:?}");
    assert_eq!(older.json["result"]["content"][0]["text"], r#"["a",2]"#, "{older:?}");
}

/// The URIs of all pages, and the number of pages.
async fn listed(client: &Client) -> (Vec<String>, usize) {
    let (mut uris, mut pages, mut params) = (Vec::new(), 0, json!({}));
    loop {
        let reply = client.call("resources/list", params).await;
        let result = &reply.json["result"];
        let resources = result["resources"].as_array().unwrap_or_else(|| panic!("{reply:?}"));
        let listed = resources.iter().map(|resource| resource["uri"].as_str().expect("a URI"));
        uris.extend(listed.map(ToOwned::to_owned));
        pages += 1;
        match result.get("nextCursor") {
            Some(cursor) => params = json!({ "cursor": cursor }),
            None => return (uris, pages),
        }
    }
}

#[tokio::test]
async fn resources_of_a_service_are_listed_once_each_in_pages() {
    let mesh = TestMesh::with(serve_notes).await;
    let (_service, edge) = mesh.notes(|_| {}).await;
    let alice = edge.client(&mesh.client("alice").await);
    let (uris, pages) = listed(&alice).await;
    let mut expected = vec!["ui://notes/app".to_owned()];
    expected.extend((0..NOTES).map(|number| format!("note://{number:03}")));
    assert_eq!(uris, expected, "resources without a template of the service are left out");
    assert_eq!(pages, 3);
    let read = alice.call("resources/read", json!({ "uri": "note://007" })).await;
    assert_eq!(read.json["result"]["contents"][0]["text"], "007", "{read:?}");
}

#[tokio::test]
async fn a_list_contains_only_resources_that_its_caller_may_read() {
    let mesh = TestMesh::with(|config| {
        serve_notes(config);
        let forbid = "@id(\"no-note-7\")\n\
                      forbid (principal, action == Action::\"notes_read\", resource)\n\
                      when { context.input.name == \"007\" };\n";
        fs::write(config.policies.join("forbid.cedar"), forbid).expect("a policy");
    })
    .await;
    let (_service, edge) = mesh.notes(|_| {}).await;
    let alice = edge.client(&mesh.client("alice").await);
    let (uris, _) = listed(&alice).await;
    assert_eq!(uris.len(), NOTES, "the page of the service, and all notes but one");
    assert!(!uris.contains(&"note://007".to_owned()));
    mesh.edit_policy(
        "notes.cedar",
        "permit (principal,",
        "permit (principal in Group::\"support\",",
    );
    until("an edit of the policies", async || listed(&alice).await == (Vec::new(), 1)).await;
}
