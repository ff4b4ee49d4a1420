//! The invoice that a PDF carries as an attachment: Factur-X and ZUGFeRD. What others show is read in [`text`].
//!
//! What counts is what the last revision attaches, and nothing else that lies in the file
//! ([`files`]). Each attachment is decoded and read; that one cannot be read is reported, since it
//! may have been the invoice.

use drawbridge_sdk::Cancellation;
use lopdf::{Document, Stream};

use self::files::File;
use crate::{error::InvoiceError, xml};

mod budget;
pub(crate) mod fields;
mod files;
mod labels;
mod load;
pub(crate) mod text;
mod values;

/// How much one attachment may hold, and all attachments of XML together, in bytes.
const XML_BYTES_MAX: usize = 8 * 1024 * 1024;
/// How much of an attachment's name and of what is wrong with it is reported, in characters.
const NAME_CHARS_MAX: usize = 60;
/// The names that Factur-X, ZUGFeRD 1 and 2, and XRechnung give to the invoice, in lower case.
const INVOICE_NAMES: [&str; 3] = ["factur-x.xml", "zugferd-invoice.xml", "xrechnung.xml"];

/// What the attachments of a PDF are.
#[derive(Debug, Default)]
pub(crate) struct Attached {
    /// The XML of the one that is an invoice.
    pub(crate) invoice: Option<String>,
    /// Those that should be one, and cannot be read.
    pub(crate) unread: Vec<Unread>,
}

/// An attachment that cannot be read.
#[derive(Debug)]
pub(crate) struct Unread {
    name: String,
    problem: String,
}

impl Unread {
    /// What is wrong, as the end of a sentence about the PDF.
    pub(crate) fn message(&self) -> String {
        format!("the attachment `{}` cannot be read: it {}", self.name, self.problem)
    }
}

/// Reads the attachments.
///
/// # Errors
/// When the file is no PDF, cannot be read, is encrypted with a password, holds more than an
/// invoice does, or has more than one invoice attached; and when nobody waits any more.
pub(crate) fn attached(pdf: &[u8], cancellation: &Cancellation) -> Result<Attached, InvoiceError> {
    if !pdf.starts_with(b"%PDF-") {
        return Err(InvoiceError::document("is no PDF"));
    }
    budget::within(pdf, cancellation, |options| {
        let document = load::load(pdf, options)?;
        let mut attached = Attached::default();
        let mut xml_bytes = 0;
        for file in files::of(&document)? {
            budget::check_time();
            let invoice = match invoice(&document, &file, &mut xml_bytes, cancellation)? {
                Found::Invoice(invoice) => invoice,
                Found::Unread(problem) => {
                    attached.unread.push(Unread { name: shown(&file.name), problem });
                    continue;
                }
                Found::Other => continue,
            };
            if attached.invoice.replace(invoice).is_some() {
                return Err(InvoiceError::document("is a PDF with more than one invoice attached"));
            }
        }
        Ok(attached)
    })
}

/// What an attachment turns out to be.
enum Found {
    Invoice(String),
    /// XML that cannot be read, or the invoice by its name, and is none.
    Unread(String),
    Other,
}

fn invoice(
    document: &Document,
    file: &File<'_>,
    xml_bytes: &mut usize,
    cancellation: &Cancellation,
) -> Result<Found, InvoiceError> {
    let contents = match contents(document, file) {
        Ok(contents) => contents,
        Err(_) if !file.is_xml() => return Ok(Found::Other),
        Err(problem) => return Ok(Found::Unread(problem)),
    };
    if !file.is_xml() && !begins_as_xml(&contents) {
        return Ok(Found::Other);
    }
    *xml_bytes += contents.len();
    if *xml_bytes > XML_BYTES_MAX {
        return Err(InvoiceError::document(format!(
            "is a PDF with more than {XML_BYTES_MAX} bytes of XML"
        )));
    }
    let problem = match is_invoice(&contents, cancellation) {
        Ok(Some(text)) => return Ok(Found::Invoice(text)),
        // Other XML may be attached, but not under the name of the invoice.
        Ok(None) if !file.is_invoice_by_name() => return Ok(Found::Other),
        Ok(None) => "is XML, but neither an invoice of UBL 2.1 nor one of UN/CEFACT CII".to_owned(),
        Err(InvoiceError::Document(problem)) => problem,
        Err(error) => return Err(error),
    };
    Ok(Found::Unread(problem))
}

fn is_invoice(
    contents: &[u8],
    cancellation: &Cancellation,
) -> Result<Option<String>, InvoiceError> {
    let text = xml::decode(contents)?;
    let is_one = xml::parse(&text, cancellation)?.invoice()?.is_some();
    Ok(is_one.then(|| text.into_owned()))
}

/// What an attachment holds, its filters undone, or what is wrong.
fn contents(document: &Document, file: &File<'_>) -> Result<Vec<u8>, String> {
    let [first, others @ ..] = file.streams.as_slice() else {
        return Err("has no contents".to_owned());
    };
    let contents = decoded(document, first)?;
    // A file specification may name its file several times, and a reader takes any of them.
    for other in others {
        if decoded(document, other)? != contents {
            return Err("has several contents that differ".to_owned());
        }
    }
    Ok(contents)
}

fn decoded(document: &Document, stream: &Stream) -> Result<Vec<u8>, String> {
    let stream = load::direct(document, stream)?;
    stream.get_plain_content_with_limit(XML_BYTES_MAX).map_err(|error| match error {
        lopdf::Error::Unimplemented(_) => "has a filter that is not read".to_owned(),
        lopdf::Error::Decompress(error) => format!("cannot be decoded: {error}"),
        error => format!("cannot be decoded: {error}"),
    })
}

/// Whether a file begins as XML does, in UTF-8 and the like or in UTF-16.
fn begins_as_xml(contents: &[u8]) -> bool {
    let text = contents.strip_prefix(b"\xef\xbb\xbf").unwrap_or(contents).trim_ascii_start();
    text.starts_with(b"<")
        || [b"\xff\xfe<\0".as_slice(), b"\xfe\xff\0<", b"<\0", b"\0<"]
            .iter()
            .any(|beginning| contents.starts_with(beginning))
}

fn shown(name: &str) -> String {
    name.chars().filter(|char| !char.is_control()).take(NAME_CHARS_MAX).collect()
}
