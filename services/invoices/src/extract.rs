//! From a document's bytes to an invoice and what is wrong with it.

use drawbridge_proto::{
    invoices::v1::{ExtractResult, Invoice},
    mcp::v1::Progress,
};
use drawbridge_sdk::Cancellation;
use prost::Message as _;

use crate::{
    check, cii,
    error::InvoiceError,
    pdf, ubl,
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
    let attachment;
    let xml = match media_type.as_str() {
        "application/xml" | "text/xml" => bytes,
        "application/pdf" => match pdf::attachment(bytes, cancellation)? {
            Some(xml) => {
                attachment = xml;
                &attachment
            }
            None => {
                step("reading the text")?;
                return pdf::text::read(bytes, cancellation, |lines| {
                    step("looking for what an invoice says")?;
                    pdf::fields::read(&lines)
                });
            }
        },
        _ => return Err(InvoiceError::MediaType),
    };
    let root = xml::parse(xml, cancellation)?;
    step("extracting the invoice")?;
    let mut values = Values::default();
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

/// The invoice of either syntax.
fn invoice(root: &Element<'_>, values: &mut Values) -> Result<Invoice, InvoiceError> {
    match root.vocabulary {
        Vocabulary::Ubl if root.is_invoice() => Ok(ubl::read(root, values)),
        Vocabulary::Cii if root.is_invoice() => Ok(cii::read(root, values)),
        _ => Err(InvoiceError::document(
            "is XML, but neither an invoice or credit note of UBL 2.1 nor one of UN/CEFACT CII",
        )),
    }
}
