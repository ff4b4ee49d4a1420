//! From a document's bytes to an invoice and what is wrong with it.

use std::borrow::Cow;

use drawbridge_proto::{
    invoices::v1::{ExtractResult, Invoice},
    mcp::v1::Progress,
};
use drawbridge_sdk::Cancellation;
use prost::Message as _;

use crate::{
    check, cii,
    error::InvoiceError,
    findings::Findings,
    pdf::{self, Unread},
    ubl,
    values::Values,
    xml::{self, Element, Vocabulary},
};

/// The largest document, in bytes, as the contract says.
pub(crate) const DOCUMENT_BYTES_MAX: usize = 8 * 1024 * 1024;
/// The largest result, in bytes: what gRPC clients commonly take, with room for a summary beside it.
const RESULT_BYTES_MAX: usize = 4 * 1024 * 1024 - 16 * 1024;

/// A document, as it comes.
#[derive(Clone, Debug)]
pub(crate) struct Document {
    pub(crate) media_type: String,
    pub(crate) bytes: Vec<u8>,
}

/// Extracts an invoice, and tells before each step what it does.
///
/// # Errors
/// When the document is none that is read here, nobody waits any more, or `tell` fails.
pub(crate) fn extract(
    document: &Document,
    cancellation: &Cancellation,
    mut tell: impl FnMut(Progress) -> Result<(), InvoiceError>,
) -> Result<ExtractResult, InvoiceError> {
    let Document { media_type, bytes } = document;
    if bytes.is_empty() || bytes.len() > DOCUMENT_BYTES_MAX {
        return Err(InvoiceError::document(format!("must have 1 to {DOCUMENT_BYTES_MAX} bytes")));
    }
    let mut steps = 0.0;
    let mut step = |message: &str| {
        steps += 1.0;
        tell(Progress { progress: steps, total: Some(3.0), message: message.to_owned() })
    };
    step("reading the document")?;
    let mut values = Values::default();
    let attachment;
    let text = match media_type.as_str() {
        "application/xml" | "text/xml" => xml::decode(bytes)?,
        "application/pdf" => {
            let pdf::Attached { invoice, unread } = pdf::attached(bytes, cancellation)?;
            let Some(invoice) = invoice else {
                step("reading the text")?;
                return pdf_text(bytes, &unread, cancellation, || {
                    step("looking for what an invoice says")
                });
            };
            for attachment in unread {
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

/// What the text of a PDF says. An attachment that should be the invoice and cannot be read is an
/// error in its findings, and the reason where the text says nothing.
fn pdf_text(
    bytes: &[u8],
    unread: &[Unread],
    cancellation: &Cancellation,
    mut step: impl FnMut() -> Result<(), InvoiceError>,
) -> Result<ExtractResult, InvoiceError> {
    let read = pdf::text::read(bytes, cancellation, |lines| {
        step()?;
        pdf::fields::read(&lines)
    });
    match (read, unread.first()) {
        (Err(InvoiceError::Document(_)), Some(attachment)) => {
            Err(InvoiceError::document(format!("is a PDF, and {}", attachment.message())))
        }
        (Ok(mut result), Some(_)) => {
            let mut findings = Findings::default();
            for attachment in unread {
                findings.error("ATTACHMENT", "", || attachment.message());
            }
            findings.warning(pdf::fields::RULE, "", || pdf::fields::NOT_CHECKED.to_owned());
            result.findings = findings.list;
            Ok(result)
        }
        (read, _) => read,
    }
}

/// The invoice of either syntax.
fn invoice(root: &Element<'_>, values: &mut Values) -> Result<Invoice, InvoiceError> {
    match root.invoice()? {
        Some(root) if root.vocabulary == Vocabulary::Ubl => Ok(ubl::read(root, values)),
        Some(root) => Ok(cii::read(root, values)),
        None => Err(InvoiceError::document(
            "is XML, but neither an invoice or credit note of UBL 2.1 nor one of UN/CEFACT CII",
        )),
    }
}
