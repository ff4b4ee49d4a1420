//! Real-world documents, through the edge.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use drawbridge_tests::TestMesh;
use serde_json::{Value, json};

use crate::invoices::{arguments, sample};

/// A PDF with these objects; the first is its catalog.
fn pdf(objects: &[String]) -> Vec<u8> {
    let mut pdf = "%PDF-1.7\n".to_owned();
    let mut table = format!("xref\n0 {}\n0000000000 65535 f \n", objects.len() + 1);
    for (index, object) in objects.iter().enumerate() {
        table.push_str(&format!("{:010} 00000 n \n", pdf.len()));
        pdf.push_str(&format!("{} 0 obj\n{object}\nendobj\n", index + 1));
    }
    let start = pdf.len();
    let size = objects.len() + 1;
    pdf.push_str(&format!(
        "{table}trailer\n<</Size {size} /Root 1 0 R>>\nstartxref\n{start}\n%%EOF\n"
    ));
    pdf.into_bytes()
}

fn stream(entries: &str, contents: &str) -> String {
    format!("<<{entries} /Length {}>>\nstream\n{contents}\nendstream", contents.len())
}

/// A PDF that attaches `attached` and contains `hidden` as an unattached object. Its page names the
/// invoice `TEXT-1`.
fn pdf_with(attached: &str, hidden: &str) -> Vec<u8> {
    let hex: String = attached.bytes().map(|byte| format!("{byte:02x}")).collect();
    let page = "BT /F1 10 Tf 50 700 Td (Invoice number: TEXT-1) Tj ET";
    pdf(&[
        "<</Type /Catalog /Pages 2 0 R /AF [6 0 R]>>".to_owned(),
        "<</Type /Pages /Kids [3 0 R] /Count 1>>".to_owned(),
        "<</Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 4 0 R /PieceInfo 8 0 R \
         /Resources <</Font <</F1 5 0 R>>>>>>"
            .to_owned(),
        stream("", page),
        "<</Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding>>"
            .to_owned(),
        "<</Type /Filespec /F (factur-x.xml) /EF <</F 7 0 R>>>>".to_owned(),
        stream("/Type /EmbeddedFile /Filter /ASCIIHexDecode", &format!("{hex}>")),
        stream("/Type /EmbeddedFile", hidden),
    ])
}

fn as_pdf(document: &[u8]) -> Value {
    json!({ "document": STANDARD.encode(document), "media_type": "application/pdf" })
}

#[tokio::test]
async fn a_pdf_attachment_is_read_and_an_unreadable_one_is_reported() {
    let mesh = TestMesh::start().await;
    let carol = mesh.client("carol").await;
    let invoice = String::from_utf8(sample("credit-note.cii.xml")).expect("text");
    let hidden = invoice.replace("CN-7", "HIDDEN-1");

    let reply = carol.call_tool("invoices_extract", as_pdf(&pdf_with(&invoice, &hidden))).await;
    let result = &reply.json["result"]["structuredContent"];
    assert_eq!(result["invoice"]["number"], "CN-7", "{reply:?}");
    assert_eq!(result["findings"], json!([]), "{reply:?}");

    let truncated = &invoice[..invoice.len() - 50];
    let reply = carol.call_tool("invoices_extract", as_pdf(&pdf_with(truncated, &hidden))).await;
    let result = &reply.json["result"]["structuredContent"];
    assert_eq!(result["invoice"]["number"], "TEXT-1", "{reply:?}");
    assert_eq!(result["findings"][0]["rule"], "ATTACHMENT", "{reply:?}");
    assert_eq!(result["findings"][0]["severity"], "SEVERITY_ERROR", "{reply:?}");
}

/// The edge's guarantee for decimals applies to extracted ones.
#[tokio::test]
async fn long_decimals_and_other_encodings_pass_the_edge() {
    let mesh = TestMesh::start().await;
    let carol = mesh.client("carol").await;
    let invoice = String::from_utf8(sample("invoice.ubl.xml")).expect("text");
    let invoice =
        invoice.replace(">12.3456<", ">12.345600000000000001<").replace("UTF-8", "UTF-16");
    let wide: Vec<u8> = invoice.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let reply = carol.call_tool("invoices_extract", arguments(&wide)).await;
    let result = &reply.json["result"]["structuredContent"];
    assert_eq!(result["invoice"]["lines"][1]["price"], "12.345600000000000001", "{reply:?}");
    assert_eq!(result["findings"], json!([]), "{reply:?}");
}
