//! The demo tools' traces at a real Jaeger, read back by its query API.

use std::{
    collections::BTreeMap,
    fs,
    process::{Command, Stdio},
    time::Duration,
};

use drawbridge_mesh::dependencies::ReservedPort;
use drawbridge_tests::{TestMesh, tool};
use http::HeaderValue;
use serde_json::{Value, json};

/// The demo tools, each with who may call it and the RPC behind it.
const TOOLS: [(&str, &str, &str, &str); 3] = [
    ("code_search", "alice", "code", "drawbridge.code.v1.CodeService/Search"),
    ("invoices_search", "carol", "invoices", "drawbridge.invoices.v1.InvoiceService/Search"),
    ("tickets_search", "bob", "tickets", "drawbridge.tickets.v1.TicketService/Search"),
];
const REVISIONS: [&str; 3] = ["2025-06-18", "2025-11-25", "2026-07-28"];

/// A Jaeger on free ports, which ends with this.
struct Jaeger {
    process: std::process::Child,
    otlp: u16,
    query: u16,
}

impl Drop for Jaeger {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Jaeger {
    async fn start(folder: &std::path::Path) -> Self {
        let ports = [(); 4].map(|()| ReservedPort::new().expect("a port"));
        let [otlp, query, grpc, health] = [0, 1, 2, 3].map(|index| ports[index].number);
        let at = |port: u16| json!({ "endpoint": format!("127.0.0.1:{port}") });
        // JSON is YAML.
        let config = json!({
            "service": {
                "extensions": ["jaeger_storage", "jaeger_query", "healthcheckv2"],
                "pipelines": { "traces": {
                    "receivers": ["otlp"], "processors": ["batch"],
                    "exporters": ["jaeger_storage_exporter"],
                } },
                "telemetry": { "metrics": { "level": "none" } },
            },
            "extensions": {
                "healthcheckv2": { "use_v2": true, "http": at(health) },
                "jaeger_query": { "storage": { "traces": "mem" }, "http": at(query), "grpc": at(grpc) },
                "jaeger_storage": { "backends": { "mem": { "memory": { "max_traces": 10000 } } } },
            },
            "receivers": { "otlp": { "protocols": { "grpc": at(otlp) } } },
            "processors": { "batch": { "timeout": "200ms" } },
            "exporters": { "jaeger_storage_exporter": { "trace_storage": "mem" } },
        });
        let file = folder.join("jaeger.yaml");
        fs::write(&file, config.to_string()).expect("a file");
        drop(ports);
        let process = Command::new(tool("jaeger/jaeger"))
            .arg("--config")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("Jaeger: tests/setup.sh jaeger installs it");
        let jaeger = Self { process, otlp, query };
        while jaeger.get("/api/services").await.is_none() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        jaeger
    }

    async fn get(&self, path: &str) -> Option<Value> {
        let response = reqwest::get(format!("http://127.0.0.1:{}{path}", self.query)).await.ok()?;
        response.error_for_status().ok()?.json().await.ok()
    }

    /// The spans of a trace, once it has some of each of these services and the parents of all, or
    /// after twenty seconds: services export them one by one.
    async fn trace(&self, id: &str, root: &str, services: &[&str]) -> Vec<JaegerSpan> {
        let mut found = Vec::new();
        for _ in 0..200 {
            let trace = self.get(&format!("/api/traces/{id}")).await.unwrap_or_default();
            found = spans(&trace["data"][0]);
            let has = |service: &&str| found.iter().any(|span| span.service == *service);
            if services.iter().all(has) && found.iter().all(|span| !is_orphan(span, root, &found)) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        found
    }
}

fn is_orphan(span: &JaegerSpan, root: &str, spans: &[JaegerSpan]) -> bool {
    let parent = span.parent.as_deref().unwrap_or_default();
    parent != root && !spans.iter().any(|span| span.id == parent)
}

#[derive(Debug)]
struct JaegerSpan {
    service: String,
    name: String,
    id: String,
    parent: Option<String>,
    tags: BTreeMap<String, Value>,
}

fn spans(trace: &Value) -> Vec<JaegerSpan> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let span = |span: &Value| {
        let process = &trace["processes"][span["processID"].as_str().unwrap_or_default()];
        let parents = list(&span["references"]);
        let parent = parents.iter().find(|reference| reference["refType"] == "CHILD_OF");
        let tags = list(&span["tags"]);
        JaegerSpan {
            service: text(&process["serviceName"]),
            name: text(&span["operationName"]),
            id: text(&span["spanID"]),
            parent: parent.map(|reference| text(&reference["spanID"])),
            tags: tags.iter().map(|tag| (text(&tag["key"]), tag["value"].clone())).collect(),
        }
    };
    list(&trace["spans"]).iter().map(span).collect()
}

/// Asserts that the spans of a call are one tree with the right names.
#[track_caller]
fn check(spans: &[JaegerSpan], root: &str, (tool, _, service, rpc): (&str, &str, &str, &str)) {
    for span in spans {
        assert!(!is_orphan(span, root, spans), "an orphan: {span:?} in {spans:#?}");
    }
    let parent_of = |of: &JaegerSpan| {
        let parent = of.parent.as_deref().unwrap_or_default();
        let parent = spans.iter().find(|span| span.id == parent);
        parent.map_or("", |span| span.name.as_str()).to_owned()
    };
    let call = format!("tools/call {tool}");
    let expected = [
        ("edge", "POST /mcp", "", "server"),
        ("edge", call.as_str(), "POST /mcp", "server"),
        ("edge", "authorize", call.as_str(), "internal"),
        ("edge", rpc, call.as_str(), "client"),
        (service, rpc, rpc, "server"),
    ];
    for (service, name, parent, kind) in expected {
        let is_it = |span: &&JaegerSpan| {
            span.service == service && span.name == name && span.tags["span.kind"] == kind
        };
        let found = spans.iter().find(is_it);
        let found = found.unwrap_or_else(|| panic!("no {service} {name} {kind} in {spans:#?}"));
        assert_eq!(parent_of(found), parent, "{name}");
    }
    let decided = spans.iter().find(|span| span.name == "authorize");
    let decided = decided.unwrap_or_else(|| panic!("no decision in {spans:#?}"));
    assert_eq!(decided.tags["drawbridge.decision.outcome"], "allow");
}

#[tokio::test]
#[ignore = "it needs Jaeger, which takes minutes to build: make jaeger-test"]
async fn the_demo_tools_are_one_tree_each_at_jaeger_in_every_revision() {
    let folder = tempfile::tempdir().expect("a folder");
    let jaeger = Jaeger::start(folder.path()).await;
    let otlp = format!("http://127.0.0.1:{}", jaeger.otlp).parse().expect("a URL");
    let mesh = TestMesh::with(|config| config.telemetry.otlp_endpoint = Some(otlp)).await;
    let mut number = 0;
    for revision in REVISIONS {
        for called in TOOLS {
            let (tool, user, service, _) = called;
            let client = mesh.client(user).await;
            client.tools().await;
            number += 1;
            let (trace, root) = (format!("{:032x}", 0x5000 + number), "00000000000000aa");
            // Other arguments in each call: no result comes from the cache.
            let arguments = match tool {
                "code_search" => json!({ "query": format!("fn main|{number}~") }),
                "tickets_search" => json!({ "query": format!("refund {number}") }),
                _ => json!({}),
            };
            let call = json!({
                "jsonrpc": "2.0", "id": 1, "method": "tools/call",
                "params": { "name": tool, "arguments": arguments, "_meta": {
                    "io.modelcontextprotocol/protocolVersion": revision,
                    "io.modelcontextprotocol/clientInfo": { "name": "test", "version": "1" },
                    "io.modelcontextprotocol/clientCapabilities": {},
                } },
            });
            let request = client.post().header("traceparent", format!("00-{trace}-{root}-01"));
            let request = request.body(call.to_string()).build().map(|mut request| {
                let headers = request.headers_mut();
                headers.insert("mcp-protocol-version", HeaderValue::from_static(revision));
                if revision == "2026-07-28" {
                    headers.insert("mcp-method", HeaderValue::from_static("tools/call"));
                    headers.insert("mcp-name", HeaderValue::from_static(tool));
                }
                request
            });
            let reply = client.send_built(request).await;
            assert!(reply.json["result"].is_object(), "{tool} {revision}: {reply:?}");
            let spans = jaeger.trace(&trace, root, &["auth", "edge", service]).await;
            check(&spans, root, called);
        }
    }
    mesh.stop().await;
}
