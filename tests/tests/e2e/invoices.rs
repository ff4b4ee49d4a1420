//! The service `invoices`, through the edge.

mod approvals;
mod database;
pub(crate) mod saved;

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use drawbridge_tests::{TestMesh, python, repository};
use serde_json::{Value, json};

pub(crate) fn sample(name: &str) -> Vec<u8> {
    std::fs::read(repository().join("services/tools/invoices/samples").join(name))
        .expect("a sample")
}

pub(crate) fn arguments(document: &[u8]) -> Value {
    json!({ "document": STANDARD.encode(document), "media_type": "application/xml" })
}

#[tokio::test]
async fn an_invoice_is_extracted_with_progress() {
    let mesh = TestMesh::start().await;
    let carol = mesh.client("carol").await;
    let call = json!({
        "jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": {
            "name": "invoices_extract",
            "arguments": arguments(&sample("invoice.ubl.xml")),
            "_meta": { "progressToken": "p" },
        },
    });
    let reply = carol.send_body(call.to_string()).await;
    let events: Vec<Value> = reply
        .text
        .lines()
        .filter_map(|line| serde_json::from_str(line.strip_prefix("data: ")?).ok())
        .collect();
    let (last, progress) = events.split_last().unwrap_or_else(|| panic!("{reply:?}"));
    let steps: Vec<_> = progress.iter().map(|event| &event["params"]["progress"]).collect();
    assert_eq!(steps, [1.0, 2.0, 3.0], "{reply:?}");
    let result = &last["result"]["structuredContent"];
    assert_eq!(result["findings"], json!([]), "{last}");
    let invoice = &result["invoice"];
    assert_eq!(invoice["number"], "DB-2026-0042");
    assert_eq!(invoice["seller"]["vat_id"], "DE000000000");
    assert_eq!(invoice["totals"]["payable_amount"], "1000.25");
    assert_eq!(invoice["lines"].as_array().map(Vec::len), Some(3));

    let log = mesh.log();
    assert!(log.contains("invoices_extract"));
    for secret in ["Hanse Bolts", &STANDARD.encode(&sample("invoice.ubl.xml")[..300])] {
        assert!(!log.contains(secret), "the log contains {secret}");
    }
}

#[tokio::test]
async fn a_rejected_document_is_explained_but_not_to_callers_without_permission() {
    let mesh = TestMesh::start().await;
    let bomb = b"<!DOCTYPE a [<!ENTITY b \"ha\">]><a>&b;</a>";
    let carol = mesh.client("carol").await;
    let reply = carol.call_tool("invoices_extract", arguments(bomb)).await;
    assert_eq!(reply.json["result"]["isError"], true, "{reply:?}");
    assert!(reply.text.contains("document type"), "{reply:?}");
    let reply = mesh.client("bob").await.call_tool("invoices_extract", arguments(bomb)).await;
    assert!(reply.is_hidden(), "{reply:?}");
    assert!(!reply.text.contains("document type"), "{reply:?}");
}

#[tokio::test]
async fn an_invoice_of_three_megabytes_passes_the_edge() {
    let mesh = TestMesh::with(|config| config.telemetry.log = "info".to_owned()).await;
    let document = String::from_utf8(sample("invoice.ubl.xml")).expect("text");
    let note =
        format!("<cbc:Note>{}</cbc:Note><cbc:DocumentCurrencyCode>", "note ".repeat(580_000));
    let document = document.replacen("<cbc:DocumentCurrencyCode>", &note, 1);
    let carol = mesh.client("carol").await;
    let reply = carol.call_tool("invoices_extract", arguments(document.as_bytes())).await;
    let invoice = &reply.json["result"]["structuredContent"]["invoice"];
    assert_eq!(
        invoice["number"],
        "DB-2026-0042",
        "{}",
        reply.text.chars().take(500).collect::<String>()
    );
}

#[tokio::test]
async fn a_factur_x_pdf_of_another_library_is_extracted() {
    let xml = sample("credit-note.cii.xml");
    let mut generator = Command::new(python())
        .arg(repository().join("tests/clients/python/facturx_pdf.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python");
    generator.stdin.take().expect("a pipe").write_all(&xml).expect("a reading process");
    let output = generator.wait_with_output().expect("an exit");
    assert!(output.status.success() && output.stdout.starts_with(b"%PDF-"), "{:?}", output.status);

    let mesh = TestMesh::start().await;
    let carol = mesh.client("carol").await;
    let from_xml = carol.call_tool("invoices_extract", arguments(&xml)).await;
    let mut of_pdf = arguments(&output.stdout);
    of_pdf["media_type"] = json!("application/pdf");
    let from_pdf = carol.call_tool("invoices_extract", of_pdf).await;
    let invoice = &from_pdf.json["result"]["structuredContent"]["invoice"];
    assert_eq!(invoice["number"], "CN-7", "{from_pdf:?}");
    assert_eq!(invoice, &from_xml.json["result"]["structuredContent"]["invoice"]);
}
