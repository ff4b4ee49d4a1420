//! Extracts an invoice from a document's bytes, and checks its rules.

use std::borrow::Cow;

use drawbridge_proto::{
    invoices::v1::{ExtractResult, Invoice},
    mcp::v1::Progress,
};
use drawbridge_sdk::Cancellation;
use prost::Message as _;

use crate::{
    check, cii,
    document::Document,
    error::InvoiceError,
    findings::Findings,
    pdf::{self, UnreadableAttachment},
    ubl,
    values::Values,
    xml::{self, Element, Vocabulary},
};

/// The largest document, in bytes, as the contract states.
pub(crate) const DOCUMENT_BYTES_MAX: usize = 8 * 1024 * 1024;
/// The largest result, in bytes: what gRPC clients commonly accept, minus space for a summary.
const RESULT_BYTES_MAX: usize = 4 * 1024 * 1024 - 16 * 1024;

/// Extracts an invoice, and reports progress before each step.
///
/// # Errors
/// When the document is invalid or unsupported, the call is cancelled, or `on_progress` fails.
pub(crate) fn extract(
    document: &Document,
    cancellation: &Cancellation,
    mut on_progress: impl FnMut(Progress) -> Result<(), InvoiceError>,
) -> Result<ExtractResult, InvoiceError> {
    let Document { media_type, bytes } = document;
    if bytes.is_empty() || bytes.len() > DOCUMENT_BYTES_MAX {
        return Err(InvoiceError::document(format!("must have 1 to {DOCUMENT_BYTES_MAX} bytes")));
    }
    let mut steps = 0.0;
    let mut step = |message: &str| {
        steps += 1.0;
        on_progress(Progress { progress: steps, total: Some(3.0), message: message.to_owned() })
    };
    step("reading the document")?;
    let mut values = Values::default();
    let attachment;
    let text = match media_type.as_str() {
        "application/xml" | "text/xml" => xml::decode(bytes)?,
        "application/pdf" => {
            let pdf::Attachments { invoice, unreadable } = pdf::attachments(bytes, cancellation)?;
            let Some(invoice) = invoice else {
                step("reading the text")?;
                return extract_pdf_text(bytes, &unreadable, cancellation, || {
                    step("looking for invoice fields")
                });
            };
            for attachment in unreadable {
                values.findings.warning("ATTACHMENT", "", || attachment.message());
            }
            attachment = invoice;
            Cow::Borrowed(attachment.as_str())
        }
        _ => return Err(InvoiceError::MediaType),
    };
    let root = xml::parse(&text, cancellation)?;
    step("extracting the invoice")?;
    let invoice = invoice(&root, &mut values)?;
    step("checking the rules")?;
    let mut findings = values.findings;
    check::check(&invoice, &mut findings);
    let result = ExtractResult {
        invoice: Some(invoice),
        findings: findings.list,
        findings_truncated: findings.truncated,
        confidences: Vec::new(),
    };
    if result.encoded_len() > RESULT_BYTES_MAX {
        return Err(InvoiceError::ResultTooLarge { bytes_max: RESULT_BYTES_MAX });
    }
    Ok(result)
}

/// Extracts an invoice from the text of a PDF. An unreadable attachment that should be the invoice
/// is an error in the findings, or the reason for failure if the text has no invoice.
fn extract_pdf_text(
    bytes: &[u8],
    unreadable: &[UnreadableAttachment],
    cancellation: &Cancellation,
    mut step: impl FnMut() -> Result<(), InvoiceError>,
) -> Result<ExtractResult, InvoiceError> {
    let extracted = pdf::text::read(bytes, cancellation, |lines| {
        step()?;
        pdf::fields::read(&lines)
    });
    match (extracted, unreadable.first()) {
        (Err(InvoiceError::Document(_)), Some(attachment)) => {
            Err(InvoiceError::document(format!("is a PDF, and {}", attachment.message())))
        }
        (Ok(mut result), Some(_)) => {
            let mut findings = Findings::default();
            for attachment in unreadable {
                findings.error("ATTACHMENT", "", || attachment.message());
            }
            findings.warning(pdf::fields::RULE, "", || pdf::fields::NOT_CHECKED.to_owned());
            result.findings = findings.list;
            Ok(result)
        }
        (extracted, _) => extracted,
    }
}

/// Reads the invoice of either syntax.
fn invoice(root: &Element<'_>, values: &mut Values) -> Result<Invoice, InvoiceError> {
    match root.invoice()? {
        Some(root) if root.vocabulary == Vocabulary::Ubl => Ok(ubl::read(root, values)),
        Some(root) => Ok(cii::read(root, values)),
        None => Err(InvoiceError::document(
            "is XML, but not an invoice or credit note of UBL 2.1 or UN/CEFACT CII",
        )),
    }
}
