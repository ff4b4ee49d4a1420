//! Requests before authentication, and untrusted input of callers.

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};

use drawbridge_mesh::HostedService;
use drawbridge_tests::{Client, Edge, Reply, TestIssuer, TestMesh};
use http::StatusCode;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

/// The time limit for a response, on a busy machine too.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(20);
const MIB: usize = 1024 * 1024;

/// Sends these bytes on a new connection and returns the response until the connection closes.
async fn raw(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    stream.write_all(bytes).await.expect("a socket buffer");
    let mut answer = Vec::new();
    let read = timeout(RESPONSE_TIMEOUT, stream.read_to_end(&mut answer)).await;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(
        read.is_ok(),
        "the connection stays open: {answer:?} to {:?}",
        String::from_utf8_lossy(bytes)
    );
    answer
}

/// The head of an authenticated request with a body of this many bytes.
fn head(edge: &Edge, token: &str, length: usize) -> Vec<u8> {
    let address = edge.hosted.running.address.tcp().expect("an address");
    let head = format!(
        "POST /mcp HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\n\
         content-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    );
    head.into_bytes()
}

async fn metric(service: &HostedService, name: &str) -> u64 {
    let metrics =
        reqwest::get(format!("http://{}/metrics", service.running.admin)).await.expect("metrics");
    let metrics = metrics.text().await.expect("metrics");
    let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.map_or(0, |value| value.parse().expect("a count"))
}

/// The number of this edge's decisions made by auth.
async fn auth_decisions(edge: &Edge) -> u64 {
    metric(&edge.hosted, "edge_decisions_total{source=\"auth\"}").await
}

async fn edge_with_limits(mesh: &TestMesh, folder: &Path, limits: &str) -> Edge {
    let file = folder.join("edge.toml");
    fs::write(&file, limits).expect("a file");
    let code = mesh.mesh.state.services["code"].clone();
    mesh.edge(&[("code", &code)], |config| config.config = Some(file)).await
}

/// The attack: 4 MB of nested arrays used half a gigabyte before the caller was authenticated.
#[tokio::test]
async fn an_unauthenticated_request_is_rejected_before_its_body_is_read() {
    let mesh = TestMesh::start().await;
    let edge = mesh.edge(&[], |_| {}).await;
    let address = edge.hosted.running.address.tcp().expect("an address");
    // The body never arrives. Waiting for it would take half a minute.
    let refused = raw(address, &head(&edge, "x", 4 * MIB)).await;
    assert!(
        refused.starts_with("HTTP/1.1 401 ") && refused.contains("connection: close"),
        "{refused}"
    );
    let alice = edge.client(&mesh.client("alice").await);
    let unit = "[".repeat(100) + &"]".repeat(100);
    let units = vec![unit.as_str(); 2_000].join(",");
    let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"x","params":{{"a":[{units}]}}}}"#);
    let refused = alice.send_body(body).await;
    assert_eq!((refused.status, refused.error_code()), (StatusCode::BAD_REQUEST, Some(-32600)));
    assert!(refused.message().contains("params nest deeper than 64 levels"), "{refused:?}");
    let many = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"x","params":{{"a":[{}1]}}}}"#,
        "1,".repeat(40_000)
    );
    let refused = alice.send_body(many).await;
    assert!(refused.message().contains("more than 32768 values"), "{refused:?}");
}

/// The attack: 150 connections withheld the last byte of 4 MiB and cost 4.2 MB each.
#[tokio::test]
async fn incomplete_bodies_leave_memory_for_other_principals() {
    let mesh = TestMesh::start().await;
    let edge = mesh.edge(&[], |config| config.bodies.bodies_bytes_max = 24 * MIB).await;
    let (alice, bob) = (mesh.client("alice").await, edge.client(&mesh.client("bob").await));
    // Her token is now in the cache.
    assert_eq!(edge.client(&alice).call("ping", json!({})).await.status, StatusCode::OK);
    // Her whole share except the last byte, which never arrives.
    let mut held =
        TcpStream::connect(edge.hosted.running.address.to_string()).await.expect("a connection");
    held.write_all(&head(&edge, alice.token(), 2 * MIB)).await.expect("a socket buffer");
    held.write_all(&vec![b' '; 2 * MIB - 1]).await.expect("a socket buffer");
    let large = |bytes: usize| {
        json!({ "jsonrpc": "2.0", "id": 1, "method": "ping", "params": { "a": "x".repeat(bytes) } })
            .to_string()
    };
    let started = Instant::now();
    let refused = loop {
        let reply = edge.client(&alice).send_body(large(MIB)).await;
        if reply.status != StatusCode::OK {
            break reply;
        }
        assert!(started.elapsed() < RESPONSE_TIMEOUT, "she gets more than her share");
    };
    assert_eq!(
        (refused.status, refused.error_code()),
        (StatusCode::SERVICE_UNAVAILABLE, Some(-32053))
    );
    assert!(refused.headers.contains_key("retry-after"));
    for _ in 0..3 {
        assert_eq!(bob.send_body(large(MIB)).await.status, StatusCode::OK);
    }
}

/// The attack: with an empty address bucket, 300 forged tokens still cost 300 calls to auth.
#[tokio::test]
async fn unauthenticated_requests_consume_the_address_limit_before_auth_is_called() {
    let mesh = TestMesh::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let limit = "[[limit]]\nname = \"unknown\"\nby = \"address\"\nrate = 1\nper_seconds = 86400\nburst = 20\n";
    let edge = edge_with_limits(&mesh, folder.path(), limit).await;
    let alice = edge.client(&mesh.client("alice").await);
    assert_eq!(alice.call("ping", json!({})).await.status, StatusCode::OK);
    let before = auth_decisions(&edge).await;
    let mut statuses = Vec::new();
    for number in 0..100 {
        let forged = edge.client(&mesh.client_with(&format!("made.up.{number}")));
        statuses.push(forged.call("ping", json!({})).await.status);
    }
    let refused =
        statuses.iter().filter(|status| **status == StatusCode::TOO_MANY_REQUESTS).count();
    assert!(refused >= 79, "{statuses:?}");
    assert!(
        auth_decisions(&edge).await - before <= 21,
        "{} decisions",
        auth_decisions(&edge).await - before
    );
    // An authenticated caller consumes none of it.
    assert_eq!(alice.call("ping", json!({})).await.status, StatusCode::OK);
    let anonymous = alice.at(&edge.url);
    assert_eq!(anonymous.call("ping", json!({})).await.status, StatusCode::OK);
}

/// The attack: a token of an issuer without reachable keys was not counted.
#[tokio::test]
async fn tokens_that_cannot_be_verified_consume_the_address_limit() {
    let issuer = TestIssuer::start().await;
    let mesh = TestMesh::with(|config| {
        let file = config.policies.join("issuers.toml");
        let keys = "jwks_url = \"http://127.0.0.1:9/\"\nallow_private_addresses = true";
        fs::write(&file, format!("[[issuers]]\nissuer = \"{}\"\n{keys}\n", issuer.name()))
            .expect("a file");
        config.issuers = Some(file);
    })
    .await;
    let folder = tempfile::tempdir().expect("a folder");
    let limit = "[[limit]]\nname = \"unknown\"\nby = \"address\"\nrate = 1\nper_seconds = 86400\nburst = 3\n";
    let edge = edge_with_limits(&mesh, folder.path(), limit).await;
    let token = issuer.sign(&issuer.header(), &issuer.claims(mesh.mesh.mcp_url.as_str()));
    let client = edge.client(&mesh.client_with(&token));
    let mut statuses = Vec::new();
    for _ in 0..5 {
        statuses.push(client.call("ping", json!({})).await.status.as_u16());
    }
    assert_eq!(statuses, [503, 503, 503, 429, 429]);
}

#[tokio::test]
async fn a_recently_rejected_token_is_rejected_without_calling_auth() {
    let mesh = TestMesh::start().await;
    let edge = mesh.edge(&[], |_| {}).await;
    let forged = edge.client(&mesh.client_with("made.up"));
    for _ in 0..20 {
        let refused = forged.call("ping", json!({})).await;
        assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
        assert!(refused.headers.contains_key("www-authenticate"), "{refused:?}");
    }
    assert!(auth_decisions(&edge).await <= 10, "{} decisions", auth_decisions(&edge).await);
}

/// The attack: an id of 3 MB produced a log record of 3 MB.
#[tokio::test]
async fn caller_input_in_logs_is_truncated() {
    let mesh = TestMesh::start().await;
    let alice = mesh.client("alice").await;
    let long = "x".repeat(100_000);
    let message = |id: Value, method: &str, name: &str| {
        json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": { "name": name } })
            .to_string()
    };
    let refused = alice.send_body(message(json!(long), "ping", "")).await;
    assert_eq!((refused.status, refused.error_code()), (StatusCode::BAD_REQUEST, Some(-32600)));
    let refused = alice.send_body(message(json!(1), &long, "")).await;
    assert_eq!((refused.status, refused.error_code()), (StatusCode::BAD_REQUEST, Some(-32600)));
    for method in ["tools/call", "prompts/get"] {
        assert!(alice.send_body(message(json!(1), method, &long)).await.is_hidden());
    }
    // serde copies such a text into its error, and escapes each of these characters into eight
    // bytes.
    for body in
        [json!("\u{e000}".repeat(100_000)).to_string(), "7".repeat(100_000), format!("tru{long}")]
    {
        let refused = alice.send_body(body).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{refused:?}");
        assert!(refused.text.len() < 4096, "{} bytes", refused.text.len());
    }
    let carol = mesh.client("carol").await;
    let prompt = json!({ "name": "invoices_review", "arguments": { (long.clone()): "x" } });
    let refused = carol.call("prompts/get", prompt).await;
    assert!(refused.error_code().is_some() && refused.text.len() < 4096, "{refused:?}");
    let method = http::Method::from_bytes(&vec![b'M'; 20_000]).expect("a method");
    let extension = reqwest::Client::new().request(method, mesh.mesh.mcp_url.clone());
    assert!(extension.send().await.expect("an answer").status().is_client_error());
    let read = alice.call("resources/read", json!({ "uri": format!("code://{long}") })).await;
    assert!(read.error_code().is_some() || read.json["result"]["isError"] == true, "{read:?}");
    let path = format!("{}/{}", mesh.mesh.mcp_url, "y".repeat(10_000));
    alice.at(&path.parse().expect("a URL")).call("ping", json!({})).await;
    let request = alice.post().header("mcp-protocol-version", "z".repeat(10_000));
    alice.send(request.body(message(json!(1), "ping", ""))).await;
    let log = mesh.log();
    let longest = log.lines().max_by_key(|line| line.len()).expect("a log record");
    assert!(longest.len() < 4096, "{} bytes: {}", longest.len(), &longest[..500]);
}

/// The attack: a caller hid its request behind another request's id.
#[tokio::test]
async fn the_edge_generates_its_own_request_id() {
    let mesh = TestMesh::start().await;
    let alice = mesh.client("alice").await;
    // Two searches, since the cache would serve an equal one.
    let call = async |query: &str| alice.call_tool("code_search", json!({ "query": query })).await;
    let (first, second) = (call("permit (").await, call("forbid (").await);
    assert_ne!(first.request_id(), second.request_id());
    first.assert_names_request();
    let log = mesh.log();
    for reply in [&first, &second] {
        let lines: Vec<_> = log.lines().filter(|line| line.contains(reply.request_id())).collect();
        let answered =
            lines.iter().find(|line| line.contains("\"answered\"")).expect("an access log record");
        assert!(
            answered
                .contains(&format!("\"caller_request_id\":\"{}\"", drawbridge_tests::REQUEST_ID))
        );
        assert!(lines.iter().any(|line| line.contains("\"threadName\":\"code\"")), "{lines:#?}");
    }
}

#[tokio::test]
async fn ambiguous_requests_are_rejected() {
    let mesh = TestMesh::start().await;
    let edge = mesh.edge(&[], |_| {}).await;
    let (address, alice) = (
        edge.hosted.running.address.tcp().expect("an address"),
        edge.client(&mesh.client("alice").await),
    );
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    let good = format!(
        "POST /mcp HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {}\r\nconnection: close\r\n\
         content-type: application/json\r\naccept: application/json, text/event-stream\r\n\
         content-length: {}\r\n\r\n{body}",
        alice.token(),
        body.len()
    );
    let answer = raw(address, good.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let chunked = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    let coded = |coding: &str| {
        let length = format!("content-length: {}\r\n\r\n{body}", body.len());
        good.replace(&length, &format!("transfer-encoding: {coding}\r\n\r\n{chunked}"))
    };
    let answer = raw(address, coded("chunked").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    for (what, wrong) in [
        (
            "two Authorization headers",
            good.replace("connection:", "authorization: Bearer x\r\nconnection:"),
        ),
        (
            "two session ids",
            good.replace("connection:", "mcp-session-id: a\r\nmcp-session-id: b\r\nconnection:"),
        ),
        (
            "a blob's origin",
            good.replace("connection:", &format!("origin: blob:http://{address}/x\r\nconnection:")),
        ),
        (
            "an origin with a path",
            good.replace("connection:", &format!("origin: http://{address}/x\r\nconnection:")),
        ),
        ("chunked twice", coded("chunked, chunked")),
        ("chunked in two headers", coded("chunked\r\ntransfer-encoding: chunked")),
        ("chunked and a length", coded(&format!("chunked\r\ncontent-length: {}", body.len()))),
        ("a bare LF in the head", good.replace("connection: close\r\n", "connection: close\n")),
        ("a bare LF at its end", good.replace("\r\n\r\n", "\r\n\n")),
        ("a bare LF of a chunk", coded("chunked").replace("\r\n0\r\n", "\r\n0\n")),
    ] {
        let answer = raw(address, wrong.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{what}: {answer}");
    }
    for params in
        [r#"{"name":"a","name":"b"}"#, r#"{"name":"a","arguments":{"b":[{"c":1,"c":2}]}}"#]
    {
        let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{params}}}"#);
        let refused = alice.send_body(body).await;
        assert_eq!((refused.status, refused.error_code()), (StatusCode::BAD_REQUEST, Some(-32600)));
        assert!(refused.message().contains("duplicate member"), "{refused:?}");
    }
}

/// The attack: SQLite truncated the text at it, and a filter matched everything.
#[tokio::test]
async fn nul_is_rejected_in_every_string() {
    let mesh = TestMesh::start().await;
    let carol = mesh.client("carol").await;
    let check = |refused: Reply| {
        assert_eq!((refused.status, refused.error_code()), (StatusCode::BAD_REQUEST, Some(-32600)));
        assert!(refused.message().contains("U+0000"), "{refused:?}");
    };
    check(carol.call_tool("invoices_search", json!({ "supplier": "\u{0}" })).await);
    check(carol.call("resources/read", json!({ "uri": "invoice://\u{0}" })).await);
    check(carol.call("prompts/get", json!({ "name": "x", "arguments": { "\u{0}": "y" } })).await);
}

/// The attack: the responses differed in status, code, message and policy names.
#[tokio::test]
async fn a_hidden_item_is_indistinguishable_from_an_unknown_one() {
    let mesh = TestMesh::start().await;
    let bob = mesh.client("bob").await;
    let visible = |reply: Reply| {
        let mut json = reply.json.clone();
        json["error"]["data"]["requestId"] = Value::Null;
        json["error"]["data"]["uri"] = Value::Null;
        (reply.status, json)
    };
    let call = async |client: &Client, name: &str| {
        visible(client.call_tool(name, json!({ "query": "x" })).await)
    };
    assert_eq!(call(&bob, "code_search").await, call(&bob, "code_nothing").await);
    let odd = async |name: &str| {
        visible(bob.call("tools/call", json!({ "name": name, "arguments": [] })).await)
    };
    assert_eq!(odd("code_search").await, odd("code_nothing").await);
    let read = async |uri: &str| visible(bob.call("resources/read", json!({ "uri": uri })).await);
    assert_eq!(read("code://Cargo.toml").await, read("nothing://Cargo.toml").await);
    let prompt = async |name: &str| visible(bob.call("prompts/get", json!({ "name": name })).await);
    assert_eq!(prompt("invoices_review").await, prompt("invoices_nothing").await);
    let complete = async |name: &str| {
        let argument = json!({ "name": "invoice_id", "value": "" });
        let reference = json!({ "type": "ref/prompt", "name": name });
        visible(
            bob.call("completion/complete", json!({ "ref": reference, "argument": argument }))
                .await,
        )
    };
    assert_eq!(complete("invoices_review").await, complete("invoices_nothing").await);
    let watch = async |uri: &str| {
        let (status, json) = visible(bob.call("resources/subscribe", json!({ "uri": uri })).await);
        (status, json.to_string().replace(uri, ""))
    };
    assert_eq!(watch("code://Cargo.toml").await, watch("nothing://Cargo.toml").await);
    // The audit log contains the real outcome.
    assert!(mesh.log().contains(r#""outcome":"not_permitted""#), "the denial is not in the log");
}
