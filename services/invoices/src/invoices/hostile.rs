use tonic::{Code, Status};

use super::{UBL, read};
use crate::extract::DOCUMENT_BYTES_MAX;

/// A document is refused as the caller's mistake, and the message says why.
#[track_caller]
fn refused(document: impl Into<Vec<u8>>, why: &str) {
    let status = Status::from(read(document).unwrap_err());
    assert_eq!(status.code(), Code::InvalidArgument, "{why}: {status:?}");
    assert!(
        status.message().starts_with("`document`: ") && status.message().contains(why),
        "{why}: {status:?}"
    );
    assert!(status.message().len() < 500, "{why}: {status:?}");
}

#[test]
fn document_types_and_entities_are_refused() {
    let laughs =
        "<!DOCTYPE a [<!ENTITY a \"ha\"><!ENTITY b \"&a;&a;&a;&a;\"><!ENTITY c \"&b;&b;&b;&b;\">]>";
    refused(format!("{laughs}<Invoice>&c;</Invoice>"), "document type");
    refused("<!DOCTYPE a SYSTEM \"file:///etc/passwd\"><a/>", "document type");
    refused("<!DOCTYPE a [<!ENTITY x SYSTEM \"http://127.0.0.1/\">]><a>&x;</a>", "document type");
    refused(UBL.replace("Boston", "&boston;"), "entities are not accepted");
    refused(UBL.replace("\"0160\"", "\"&boston;\""), "boston");
    refused(UBL.replace("Boston", "&#0;"), "");
    refused(UBL.replace("Boston", "&#xFFFFFFFF;"), "no character");
    refused(UBL.replace("Boston", "&#1;"), "no character");
}

#[test]
fn what_is_not_in_its_encoding_is_refused() {
    refused(UBL.replace("\"UTF-8\"", "\"UTF-7\""), "declares the encoding `UTF-7`");
    refused(UBL.replace("\"UTF-8\"", "\"UTF-16\""), "is not in UTF-16");
    let latin_1: Vec<u8> = UBL.chars().map(|char| u8::try_from(char).unwrap_or(b'?')).collect();
    refused(latin_1, "is not in UTF-8: wrong byte at ");
    let utf_16: Vec<u8> = UBL.encode_utf16().flat_map(u16::to_le_bytes).collect();
    refused(utf_16, "first bytes are those of UTF-16LE");
    refused(UBL.replace("Boston", "\u{1b}[31m"), "does not allow");
    assert!(read(format!("\u{feff}{UBL}")).is_ok());
}

#[test]
fn what_is_no_whole_document_is_refused() {
    for end in [1, 100, 1000, UBL.len() - 20, UBL.len() - 3] {
        let end = (0..=end).rev().find(|end| UBL.is_char_boundary(*end)).unwrap();
        refused(&UBL[..end], "");
    }
    refused("", "must have 1 to");
    refused("hello", "outside of the root");
    refused("<!-- nothing -->", "no root element");
    refused(format!("{UBL}<a/>"), "second root");
    refused(format!("{UBL} and more"), "outside of the root");
    refused(UBL.replace("</Invoice>", "</Invoices>"), "");
    refused(
        UBL.replace("<cac:Party>", "<nobody:Party>").replace("</cac:Party>", "</nobody:Party>"),
        "`nobody`",
    );
    refused(
        UBL.replace("unitCode=\"XBX\"", "unitCode=\"XBX\" unitCode=\"H87\""),
        "duplicated attribute",
    );
    refused(
        "<Order xmlns=\"urn:oasis:names:specification:ubl:schema:xsd:Order-2\"/>",
        "neither an invoice",
    );
    refused("<Invoice/>", "neither an invoice");
    refused("%PDF-1.7", "outside of the root");
}

#[test]
fn what_is_larger_than_an_invoice_is_refused() {
    let inside = |text: &str| UBL.replace("</Invoice>", &format!("{text}</Invoice>"));
    refused(inside(&"x".repeat(DOCUMENT_BYTES_MAX)), "must have 1 to");
    refused(inside(&"<a>".repeat(1_000_000)), "nested deeper");
    refused(inside(&format!("{}{}", "<a>".repeat(32), "</a>".repeat(32))), "nested deeper");
    refused(inside(&"<a/>".repeat(1_000_000)), "more than 300000 elements");
    let attributes: String = (0..400_000).map(|number| format!(" a{number}=''")).collect();
    refused(inside(&format!("<a{attributes}/>")), "a tag of more than");
    let namespaces: String = (0..200).map(|number| format!(" xmlns:a{number}='b'")).collect();
    refused(inside(&format!("<a{namespaces}/>")), "namespace bindings");
    refused(inside(&format!("<a b='{}'/>", "x".repeat(5000))), "a tag of more than");
}

#[test]
fn a_long_invoice_is_read_and_one_without_end_is_told_so() {
    let (head, rest) = UBL.split_once("<cac:InvoiceLine>").unwrap();
    let line = rest.split_once("<cac:InvoiceLine>").unwrap().0;
    let with_lines = |lines: usize| {
        format!("{head}{}</Invoice>", format!("<cac:InvoiceLine>{line}").repeat(lines))
    };
    let lines = 5 * 1024 * 1024 / (line.len() + 17);
    let result = read(with_lines(lines)).unwrap();
    assert_eq!(result.invoice.unwrap().lines.len(), lines);

    let short = "<cac:InvoiceLine><cac:Price/><cac:Item><cbc:Name>a</cbc:Name></cac:Item></cac:InvoiceLine>";
    let name = "a".repeat(40_000);
    let long = short.replace(">a<", &format!(">{name}<")).repeat(150);
    let status = Status::from(read(format!("{head}{long}</Invoice>")).unwrap_err());
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
}
