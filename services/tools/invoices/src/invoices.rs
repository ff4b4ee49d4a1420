//! Tests on whole documents, from bytes to findings.

use std::{
    env, fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use drawbridge_proto::invoices::v1::{ExtractResult, InvoiceKind, Severity};
use drawbridge_sdk::Cancellation;
use tokio_util::sync::CancellationToken;

use crate::{document::Document, error::InvoiceError, extract::extract};

mod approvals;
mod attachments;
mod callers;
mod database;
mod decimals;
mod field;
mod hostile;
mod migrations;
mod official_rules;
mod pdf;
mod rules;
mod service;
mod storage;
mod texts;

const UBL: &str = include_str!("../samples/invoice.ubl.xml");
const CII: &str = include_str!("../samples/credit-note.cii.xml");

/// A cancellation that does not fire within a test.
fn no_cancellation() -> Cancellation {
    Cancellation::new(CancellationToken::new(), Instant::now() + Duration::from_secs(60))
}

fn read(document: impl Into<Vec<u8>>) -> Result<ExtractResult, InvoiceError> {
    let request = Document { bytes: document.into(), media_type: "application/xml".to_owned() };
    extract(&request, &no_cancellation(), |_| Ok(()))
}

#[test]
fn every_field_of_an_invoice_in_ubl_is_read() {
    insta::assert_debug_snapshot!("ubl", read(UBL).unwrap());
}

#[test]
fn every_field_of_a_credit_note_in_cii_is_read() {
    insta::assert_debug_snapshot!("cii", read(CII).unwrap());
}

#[test]
fn a_credit_note_in_ubl_is_distinguished_from_an_invoice() {
    let credit_note = UBL
        .replace("<Invoice ", "<CreditNote ")
        .replace("</Invoice>", "</CreditNote>")
        .replace("xsd:Invoice-2", "xsd:CreditNote-2")
        .replace("InvoiceTypeCode>380", "CreditNoteTypeCode>381")
        .replace("381</cbc:InvoiceTypeCode", "381</cbc:CreditNoteTypeCode")
        .replace("</cbc:InvoiceTypeCode", "</cbc:CreditNoteTypeCode")
        .replace("cac:InvoiceLine", "cac:CreditNoteLine")
        .replace("InvoicedQuantity", "CreditedQuantity");
    let result = read(credit_note).unwrap();
    assert_eq!(result.findings, []);
    let (mut read_as, mut invoice) = (result.invoice.unwrap(), read(UBL).unwrap().invoice.unwrap());
    assert_eq!((read_as.kind(), read_as.type_code.as_str()), (InvoiceKind::CreditNote, "381"));
    for one in [&mut read_as, &mut invoice] {
        one.set_kind(InvoiceKind::Unspecified);
        one.type_code.clear();
    }
    assert_eq!(read_as, invoice);
}

/// The folder of DRAWBRIDGE_INVOICE_SAMPLES.
fn samples() -> PathBuf {
    env::var_os("DRAWBRIDGE_INVOICE_SAMPLES").expect("set DRAWBRIDGE_INVOICE_SAMPLES").into()
}

/// Two of the European Commission's examples for EN 16931.
#[test]
#[ignore = "it needs DRAWBRIDGE_INVOICE_SAMPLES, a folder with the examples of EN 16931"]
fn every_field_of_two_official_examples_is_read() {
    for (file, snapshot) in
        [("ubl-tc434-example1.xml", "official_ubl"), ("CII_example5.xml", "official_cii")]
    {
        let document = fs::read(samples().join(file)).expect(file);
        insta::assert_debug_snapshot!(snapshot, read(document).unwrap());
    }
}

/// The totals of these files are correct. Lines whose net amount is not quantity times price are so
/// in the files.
#[test]
#[ignore = "it needs DRAWBRIDGE_INVOICE_SAMPLES, a folder of valid invoices"]
fn the_invoices_of_a_folder_have_no_error() {
    let mut files = 0;
    for entry in fs::read_dir(samples()).unwrap() {
        let path = entry.unwrap().path();
        let media_type = match path.extension().and_then(|extension| extension.to_str()) {
            Some("xml") => "application/xml",
            Some("pdf") => "application/pdf",
            _ => continue,
        };
        let request =
            Document { bytes: fs::read(&path).unwrap(), media_type: media_type.to_owned() };
        let result = extract(&request, &no_cancellation(), |_| Ok(()))
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        println!("{}: {} findings", path.display(), result.findings.len());
        for finding in &result.findings {
            println!("  {} {}: {}", finding.rule, finding.field, finding.message);
            assert_eq!(finding.severity(), Severity::Warning, "{}: {finding:?}", path.display());
        }
        files += 1;
    }
    assert!(files > 0, "the folder contains no invoice");
}
