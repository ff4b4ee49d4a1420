use tonic::{Code, Status};

use super::{UBL, read};
use crate::extract::DOCUMENT_BYTES_MAX;

/// Checks that a document is rejected as an invalid argument, with this reason.
#[track_caller]
fn check_rejected(document: impl Into<Vec<u8>>, why: &str) {
    let status = Status::from(read(document).unwrap_err());
    assert_eq!(status.code(), Code::InvalidArgument, "{why}: {status:?}");
    assert!(
        status.message().starts_with("`document`: ") && status.message().contains(why),
        "{why}: {status:?}"
    );
    assert!(status.message().len() < 500, "{why}: {status:?}");
}

#[test]
fn document_types_and_entities_are_rejected() {
    let laughs =
        "<!DOCTYPE a [<!ENTITY a \"ha\"><!ENTITY b \"&a;&a;&a;&a;\"><!ENTITY c \"&b;&b;&b;&b;\">]>";
    check_rejected(format!("{laughs}<Invoice>&c;</Invoice>"), "document type");
    check_rejected("<!DOCTYPE a SYSTEM \"file:///etc/passwd\"><a/>", "document type");
    check_rejected(
        "<!DOCTYPE a [<!ENTITY x SYSTEM \"http://127.0.0.1/\">]><a>&x;</a>",
        "document type",
    );
    check_rejected(UBL.replace("Boston", "&boston;"), "entities are not accepted");
    check_rejected(UBL.replace("\"0160\"", "\"&boston;\""), "boston");
    check_rejected(UBL.replace("Boston", "&#0;"), "");
    check_rejected(UBL.replace("Boston", "&#xFFFFFFFF;"), "invalid character reference");
    check_rejected(UBL.replace("Boston", "&#1;"), "invalid character reference");
}

#[test]
fn bytes_that_are_invalid_in_the_encoding_are_rejected() {
    check_rejected(UBL.replace("\"UTF-8\"", "\"UTF-7\""), "declares the encoding `UTF-7`");
    check_rejected(UBL.replace("\"UTF-8\"", "\"UTF-16\""), "is not in UTF-16");
    let latin_1: Vec<u8> = UBL.chars().map(|char| u8::try_from(char).unwrap_or(b'?')).collect();
    check_rejected(latin_1, "is not valid UTF-8: invalid byte at ");
    let utf_16: Vec<u8> = UBL.encode_utf16().flat_map(u16::to_le_bytes).collect();
    check_rejected(utf_16, "first bytes are those of UTF-16LE");
    check_rejected(UBL.replace("Boston", "\u{1b}[31m"), "does not allow");
    assert!(read(format!("\u{feff}{UBL}")).is_ok());
}

#[test]
fn an_incomplete_document_is_rejected() {
    for end in [1, 100, 1000, UBL.len() - 20, UBL.len() - 3] {
        let end = (0..=end).rev().find(|end| UBL.is_char_boundary(*end)).unwrap();
        check_rejected(&UBL[..end], "");
    }
    check_rejected("", "must have 1 to");
    check_rejected("hello", "outside the root");
    check_rejected("<!-- nothing -->", "no root element");
    check_rejected(format!("{UBL}<a/>"), "second root");
    check_rejected(format!("{UBL} and more"), "outside the root");
    check_rejected(UBL.replace("</Invoice>", "</Invoices>"), "");
    check_rejected(
        UBL.replace("<cac:Party>", "<unknown:Party>").replace("</cac:Party>", "</unknown:Party>"),
        "`unknown`",
    );
    check_rejected(
        UBL.replace("unitCode=\"XBX\"", "unitCode=\"XBX\" unitCode=\"H87\""),
        "duplicated attribute",
    );
    check_rejected(
        "<Order xmlns=\"urn:oasis:names:specification:ubl:schema:xsd:Order-2\"/>",
        "not an invoice",
    );
    check_rejected("<Invoice/>", "not an invoice");
    check_rejected("%PDF-1.7", "outside the root");
}

#[test]
fn an_oversized_document_is_rejected() {
    let inside = |text: &str| UBL.replace("</Invoice>", &format!("{text}</Invoice>"));
    check_rejected(inside(&"x".repeat(DOCUMENT_BYTES_MAX)), "must have 1 to");
    check_rejected(inside(&"<a>".repeat(1_000_000)), "nested deeper");
    check_rejected(inside(&format!("{}{}", "<a>".repeat(32), "</a>".repeat(32))), "nested deeper");
    check_rejected(inside(&"<a/>".repeat(1_000_000)), "more than 300000 elements");
    let attributes: String = (0..400_000).map(|number| format!(" a{number}=''")).collect();
    check_rejected(inside(&format!("<a{attributes}/>")), "a tag of more than");
    let namespaces: String = (0..200).map(|number| format!(" xmlns:a{number}='b'")).collect();
    check_rejected(inside(&format!("<a{namespaces}/>")), "namespace bindings");
    check_rejected(inside(&format!("<a b='{}'/>", "x".repeat(5000))), "a tag of more than");
}

#[test]
fn a_long_invoice_is_read_and_an_endless_one_is_rejected() {
    let (head, rest) = UBL.split_once("<cac:InvoiceLine>").unwrap();
    let line = rest.split_once("<cac:InvoiceLine>").unwrap().0;
    let with_lines = |lines: usize| {
        format!("{head}{}</Invoice>", format!("<cac:InvoiceLine>{line}").repeat(lines))
    };
    let lines = 5 * 1024 * 1024 / (line.len() + 17);
    let result = read(with_lines(lines)).unwrap();
    assert_eq!(result.invoice.unwrap().lines.len(), lines);

    let short = "<cac:InvoiceLine><cac:Price/><cac:Item><cbc:Name>a</cbc:Name></cac:Item>\
    </cac:InvoiceLine>";
    let name = "a".repeat(40_000);
    let long = short.replace(">a<", &format!(">{name}<")).repeat(150);
    let status = Status::from(read(format!("{head}{long}</Invoice>")).unwrap_err());
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
}
