//! Reads the invoice attached to a PDF: Factur-X and ZUGFeRD. [`text`] reads the text of other
//! PDFs.
//!
//! Only attachments of the last revision count, not other streams in the file ([`files`]). Each
//! attachment is decoded and parsed. An unreadable attachment is reported, since it may be the
//! invoice.

use drawbridge_sdk::Cancellation;
use lopdf::{Document, Stream};

use self::files::AttachedFile;
use crate::{error::InvoiceError, xml};

mod budget;
pub(crate) mod fields;
mod files;
mod labels;
mod load;
pub(crate) mod text;
mod values;

/// The maximum size of one attachment, and of all XML attachments together, in bytes.
const XML_BYTES_MAX: usize = 8 * 1024 * 1024;
/// How much of an attachment's name is reported, in characters.
const NAME_CHARS_MAX: usize = 60;
/// The file names of the invoice in Factur-X, ZUGFeRD 1 and 2, and XRechnung, in lower case.
const INVOICE_NAMES: [&str; 3] = ["factur-x.xml", "zugferd-invoice.xml", "xrechnung.xml"];

/// The attachments of a PDF.
#[derive(Debug, Default)]
pub(crate) struct Attachments {
    /// The XML of the invoice.
    pub(crate) invoice: Option<String>,
    /// Attachments that should be an invoice, but are unreadable.
    pub(crate) unreadable: Vec<UnreadableAttachment>,
}

/// An attachment that cannot be read.
#[derive(Debug)]
pub(crate) struct UnreadableAttachment {
    name: String,
    problem: String,
}

impl UnreadableAttachment {
    /// The problem, as the end of a sentence about the PDF.
    pub(crate) fn message(&self) -> String {
        format!("the attachment `{}` cannot be read: it {}", self.name, self.problem)
    }
}

/// Reads the attachments.
///
/// # Errors
/// When the file is not a PDF, is unreadable, is encrypted with a password, exceeds the budget, or
/// has several invoices attached; and when the call is cancelled.
pub(crate) fn attachments(
    pdf: &[u8],
    cancellation: &Cancellation,
) -> Result<Attachments, InvoiceError> {
    if !pdf.starts_with(b"%PDF-") {
        return Err(InvoiceError::document("is not a PDF"));
    }
    budget::with_budget(pdf, cancellation, |options| {
        let document = load::load(pdf, options)?;
        let mut attachments = Attachments::default();
        let mut xml_bytes = 0;
        for file in files::attached_files(&document)? {
            budget::check_time();
            let invoice = match read_attachment(&document, &file, &mut xml_bytes, cancellation)? {
                AttachmentKind::Invoice(invoice) => invoice,
                AttachmentKind::UnreadableAttachment(problem) => {
                    attachments
                        .unreadable
                        .push(UnreadableAttachment { name: sanitize_name(&file.name), problem });
                    continue;
                }
                AttachmentKind::Other => continue,
            };
            if attachments.invoice.replace(invoice).is_some() {
                return Err(InvoiceError::document("is a PDF with more than one invoice attached"));
            }
        }
        Ok(attachments)
    })
}

/// The kind of an attachment.
enum AttachmentKind {
    Invoice(String),
    /// Unreadable XML, or an attachment with the file name of an invoice that is not an invoice.
    UnreadableAttachment(String),
    Other,
}

fn read_attachment(
    document: &Document,
    file: &AttachedFile<'_>,
    xml_bytes: &mut usize,
    cancellation: &Cancellation,
) -> Result<AttachmentKind, InvoiceError> {
    let contents = match contents(document, file) {
        Ok(contents) => contents,
        Err(_) if !file.is_xml() => return Ok(AttachmentKind::Other),
        Err(problem) => return Ok(AttachmentKind::UnreadableAttachment(problem)),
    };
    if !file.is_xml() && !starts_as_xml(&contents) {
        return Ok(AttachmentKind::Other);
    }
    *xml_bytes += contents.len();
    if *xml_bytes > XML_BYTES_MAX {
        return Err(InvoiceError::document(format!(
            "is a PDF with more than {XML_BYTES_MAX} bytes of XML"
        )));
    }
    let problem = match parse_invoice(&contents, cancellation) {
        Ok(Some(text)) => return Ok(AttachmentKind::Invoice(text)),
        // Other XML may be attached, but not under the name of the invoice.
        Ok(None) if !file.is_invoice_by_name() => return Ok(AttachmentKind::Other),
        Ok(None) => "is XML, but not an invoice of UBL 2.1 or UN/CEFACT CII".to_owned(),
        Err(InvoiceError::Document(problem)) => problem,
        Err(error) => return Err(error),
    };
    Ok(AttachmentKind::UnreadableAttachment(problem))
}

fn parse_invoice(
    contents: &[u8],
    cancellation: &Cancellation,
) -> Result<Option<String>, InvoiceError> {
    let text = xml::decode(contents)?;
    let has_invoice = xml::parse(&text, cancellation)?.invoice()?.is_some();
    Ok(has_invoice.then(|| text.into_owned()))
}

/// The decoded contents of an attachment, or the problem.
fn contents(document: &Document, file: &AttachedFile<'_>) -> Result<Vec<u8>, String> {
    let [first, others @ ..] = file.streams.as_slice() else {
        return Err("has no contents".to_owned());
    };
    let contents = decoded(document, first)?;
    // A file specification may name its file several times, and a reader takes any of them.
    for other in others {
        if decoded(document, other)? != contents {
            return Err("has several streams with different contents".to_owned());
        }
    }
    Ok(contents)
}

fn decoded(document: &Document, stream: &Stream) -> Result<Vec<u8>, String> {
    let stream = load::resolve_filters(document, stream)?;
    stream.get_plain_content_with_limit(XML_BYTES_MAX).map_err(|error| match error {
        lopdf::Error::Unimplemented(_) => "has an unsupported filter".to_owned(),
        lopdf::Error::Decompress(error) => format!("cannot be decoded: {error}"),
        error => format!("cannot be decoded: {error}"),
    })
}

/// Whether a file starts like XML, in UTF-16 or in an ASCII-compatible encoding.
fn starts_as_xml(contents: &[u8]) -> bool {
    let text = contents.strip_prefix(b"\xef\xbb\xbf").unwrap_or(contents).trim_ascii_start();
    text.starts_with(b"<")
        || [b"\xff\xfe<\0".as_slice(), b"\xfe\xff\0<", b"<\0", b"\0<"]
            .iter()
            .any(|beginning| contents.starts_with(beginning))
}

fn sanitize_name(name: &str) -> String {
    name.chars().filter(|char| !char.is_control()).take(NAME_CHARS_MAX).collect()
}
