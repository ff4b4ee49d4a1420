use std::{
    io::Write as _,
    time::{Duration, Instant},
};

use drawbridge_proto::invoices::v1::ExtractResult;
use flate2::{Compression, write::ZlibEncoder};

use super::{CII, UBL, read, waiting};
use crate::{
    error::InvoiceError,
    extract::{Document, extract},
};

pub(super) fn read_pdf(document: Vec<u8>) -> Result<ExtractResult, InvoiceError> {
    extract(&Document { bytes: document, media_type: "application/pdf".to_owned() }, &waiting(), |_| Ok(()))
}

pub(super) fn deflated(contents: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(contents).unwrap();
    encoder.finish().unwrap()
}

/// A PDF of these streams. There is more to a PDF, and nothing of it is looked at.
fn pdf(streams: &[Vec<u8>]) -> Vec<u8> {
    let mut pdf = b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n<</Type /Catalog>>\nendobj\n".to_vec();
    for (index, stream) in streams.iter().enumerate() {
        let head = format!("{} 0 obj\n<</Length {}>>\nstream\r\n", index + 2, stream.len());
        pdf.extend([head.as_bytes(), stream, b"\nendstream\nendobj\n"].concat());
    }
    pdf.extend(b"trailer\n<</Root 1 0 R>>\n%%EOF\n");
    pdf
}

#[track_caller]
fn refused(document: Vec<u8>, why: &str) {
    let started = Instant::now();
    let error = read_pdf(document).unwrap_err().to_string();
    assert!(error.starts_with("`document`: is ") && error.contains(why), "{error}");
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
}

#[test]
fn the_invoice_that_a_pdf_carries_is_read() {
    let metadata = b"<?xpacket begin=''?><x:xmpmeta xmlns:x='adobe:ns:meta/'/><?xpacket end='w'?>".to_vec();
    let drawing = deflated(b"<svg xmlns='http://www.w3.org/2000/svg'/>");
    let page = b"BT /F1 12 Tf (an upstream stream) Tj ET".to_vec();
    for (sample, attachment) in [(CII, deflated(CII.as_bytes())), (UBL, UBL.as_bytes().to_vec())] {
        let document = pdf(&[metadata.clone(), drawing.clone(), page.clone(), attachment]);
        assert_eq!(read_pdf(document).unwrap(), read(sample).unwrap());
    }
}

#[test]
fn a_pdf_without_one_invoice_is_refused() {
    refused(b"<a/>".to_vec(), "no PDF");
    refused(pdf(&[]), "a PDF ");
    refused(pdf(&[b"BT (Total 12.00) Tj ET".to_vec()]), "a PDF ");
    refused(pdf(&[deflated(CII.as_bytes()), deflated(UBL.as_bytes())]), "more than one invoice");
    let attachment = deflated(CII.as_bytes());
    refused(pdf(&[attachment[..attachment.len() / 2].to_vec()]), "a PDF ");
    let bomb = format!("<!DOCTYPE a [<!ENTITY b \"ha\">]>{}", CII.split_once("?>").unwrap().1);
    refused(pdf(&[deflated(bomb.as_bytes())]), "a PDF ");
}

#[test]
fn a_pdf_that_inflates_without_end_is_refused() {
    let bomb = deflated(&[b"<a>".to_vec(), vec![b' '; 50 * 1024 * 1024]].concat());
    refused(pdf(&[bomb]), "more than 8388608 bytes of XML");
    let part = deflated(&[b"<a>".to_vec(), vec![b' '; 1024 * 1024]].concat());
    refused(pdf(&vec![part; 9]), "more than 8388608 bytes of XML");
    refused(pdf(&vec![deflated(b"x"); 10_001]), "more than 10000 streams");
    let open = [b"%PDF-".to_vec(), b">>stream\nstream>>".repeat(400_000)].concat();
    refused(open, "a PDF ");
}
