//! The invoice that a PDF carries as an attachment: Factur-X and ZUGFeRD. What others show is read in [`text`].
//!
//! Such a PDF is a PDF/A-3: it is not encrypted, and its attachments are streams, which PDF keeps at the top of the file,
//! never inside one another. So all of them are found by looking for streams from the first byte to the last. That is
//! less than a PDF reader does, and on purpose: cross-references, object streams and incremental updates are where
//! hostile files make readers slow or large.

use std::io::Read as _;

use drawbridge_sdk::Cancellation;
use flate2::read::ZlibDecoder;

use crate::{error::InvoiceError, xml};

mod budget;
pub(crate) mod fields;
mod labels;
pub(crate) mod text;
mod values;

const STREAMS_MAX: usize = 10_000;
/// How much of each stream is looked at, in bytes, to see whether it is XML.
const BEGINNING_BYTES: u64 = 64;
/// How much the streams of XML may hold together, in bytes.
const XML_BYTES_MAX: usize = 8 * 1024 * 1024;

/// The XML of the one invoice that is attached, if one is.
///
/// # Errors
/// When there is more than one, or the file has more streams than an invoice has; and when nobody waits any more.
pub(crate) fn attachment(pdf: &[u8], cancellation: &Cancellation) -> Result<Option<Vec<u8>>, InvoiceError> {
    if !pdf.starts_with(b"%PDF-") {
        return Err(InvoiceError::document("is no PDF"));
    }
    let mut found: Option<Vec<u8>> = None;
    let mut xml_bytes = 0;
    for (index, stream) in streams(pdf).enumerate() {
        cancellation.check()?;
        if index == STREAMS_MAX {
            return Err(InvoiceError::document(format!("is a PDF with more than {STREAMS_MAX} streams")));
        }
        if !is_xml(&contents(stream, BEGINNING_BYTES)) {
            continue;
        }
        let rest = XML_BYTES_MAX - xml_bytes;
        let contents = contents(stream, rest as u64 + 1);
        if contents.len() > rest {
            return Err(InvoiceError::document(format!(
                "is a PDF with more than {XML_BYTES_MAX} bytes of XML"
            )));
        }
        xml_bytes += contents.len();
        let is_invoice = xml::parse(&contents, cancellation).is_ok_and(|root| root.is_invoice());
        cancellation.check()?;
        if !is_invoice {
            continue;
        }
        // An older version of the same attachment counts: nothing here says which of them is shown.
        if found.replace(contents).is_some() {
            return Err(InvoiceError::document("is a PDF with more than one invoice attached"));
        }
    }
    Ok(found)
}

/// What stands between `stream` and `endstream`, wherever a dictionary ends before it.
fn streams(pdf: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = pdf;
    std::iter::from_fn(move || {
        loop {
            let start = find(rest, b"stream")?;
            let is_stream = rest[..start].trim_ascii_end().ends_with(b">>");
            rest = &rest[start + b"stream".len()..];
            if is_stream {
                let data = rest.strip_prefix(b"\r\n").or_else(|| rest.strip_prefix(b"\n")).unwrap_or(rest);
                let end = find(data, b"endstream").unwrap_or(data.len());
                rest = &data[end..];
                return Some(&data[..end]);
            }
        }
    })
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    memchr::memmem::find(text, part)
}

/// The beginning of a stream, inflated where it is deflated. What is broken ends early.
fn contents(stream: &[u8], bytes_max: u64) -> Vec<u8> {
    let mut contents = Vec::new();
    if is_zlib(stream) {
        // Reading to the end fails on what is broken, and keeps what came before.
        drop(ZlibDecoder::new(stream).take(bytes_max).read_to_end(&mut contents));
    } else {
        drop(stream.take(bytes_max).read_to_end(&mut contents));
    }
    contents
}

fn is_zlib(stream: &[u8]) -> bool {
    matches!(stream, [method, flags, ..]
        if method & 0xf == 8 && u16::from_be_bytes([*method, *flags]) % 31 == 0)
}

/// Whether a text begins as XML does, other than the metadata that each PDF/A has.
fn is_xml(beginning: &[u8]) -> bool {
    let text = beginning.strip_prefix(b"\xef\xbb\xbf").unwrap_or(beginning).trim_ascii_start();
    text.starts_with(b"<") && !text.starts_with(b"<?xpacket") && !text.starts_with(b"<x:xmpmeta")
}
