//! PDFs with an attached invoice.

use std::io::Write as _;

use drawbridge_proto::invoices::v1::ExtractResult;
use flate2::{Compression, write::ZlibEncoder};

use super::{CII, UBL, no_cancellation, read};
use crate::{document::Document, error::InvoiceError, extract::extract};

pub(super) fn read_pdf(document: Vec<u8>) -> Result<ExtractResult, InvoiceError> {
    extract(
        &Document { bytes: document, media_type: "application/pdf".to_owned() },
        &no_cancellation(),
        |_| Ok(()),
    )
}

pub(super) fn deflated(contents: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(contents).unwrap();
    encoder.finish().unwrap()
}

/// A stream with further dictionary entries.
pub(super) fn stream(entries: &str, contents: &[u8]) -> Vec<u8> {
    let head = format!("<<{entries} /Length {}>>\nstream\n", contents.len());
    [head.as_bytes(), contents, b"\nendstream"].concat()
}

/// A PDF of one page with this content, further entries in its catalog and page, and further
/// objects, from number 6 on.
pub(super) fn build_pdf(content: &[u8], catalog: &str, page: &str, more: &[Vec<u8>]) -> Vec<u8> {
    let mut objects = vec![
        format!("<</Type /Catalog /Pages 2 0 R {catalog}>>").into_bytes(),
        b"<</Type /Pages /Kids [3 0 R] /Count 1>>".to_vec(),
        format!(
            "<</Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 4 0 R \
             /Resources <</Font <</F1 5 0 R>>>> {page}>>"
        )
        .into_bytes(),
        stream("/Filter /FlateDecode", &deflated(content)),
        b"<</Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding>>".to_vec(),
    ];
    objects.extend_from_slice(more);
    let objects: Vec<_> =
        objects.into_iter().enumerate().map(|(index, object)| (index + 1, object)).collect();
    append_revision(b"%PDF-1.7\n".to_vec(), &objects)
}

/// A PDF with a further revision that adds or replaces these objects.
pub(super) fn append_revision(mut pdf: Vec<u8>, objects: &[(usize, Vec<u8>)]) -> Vec<u8> {
    let before = String::from_utf8_lossy(&pdf).rsplit_once("startxref\n").map(|(_, end)| {
        end.lines().next().and_then(|start| start.parse::<usize>().ok()).expect("where it starts")
    });
    let mut table = String::from("xref\n");
    if before.is_none() {
        table.push_str("0 1\n0000000000 65535 f \n");
    }
    for (number, object) in objects {
        table.push_str(&format!("{number} 1\n{:010} 00000 n \n", pdf.len()));
        pdf.extend([format!("{number} 0 obj\n").as_bytes(), object, b"\nendobj\n"].concat());
    }
    let previous = before.map_or_else(String::new, |before| format!(" /Prev {before}"));
    let (start, size) = (pdf.len(), 1000);
    pdf.extend(
        format!(
            "{table}trailer\n<</Size {size} /Root 1 0 R /ID [(a) \
             (b)]{previous}>>\nstartxref\n{start}\n%%EOF\n"
        )
        .into_bytes(),
    );
    pdf
}

/// A page with the text of an invoice with the number `TEXT-1`.
pub(super) const PAGE: &[u8] =
    b"BT /F1 10 Tf 50 700 Td (Invoice number: TEXT-1) Tj 0 -20 Td (Total EUR 12.00) Tj ET";

/// The name tree of embedded files with these object numbers of file specifications.
pub(super) fn embedded(specifications: &[usize]) -> String {
    let names: Vec<_> =
        specifications.iter().map(|number| format!("({number}) {number} 0 R")).collect();
    format!("/Names <</EmbeddedFiles <</Names [{}]>>>>", names.join(" "))
}

/// A file specification with this name and this object as contents.
pub(super) fn specification(name: &str, number: usize) -> Vec<u8> {
    format!("<</Type /Filespec /F ({name}) /UF ({name}) /EF <</F {number} 0 R /UF {number} 0 R>>>>")
        .into_bytes()
}

/// A PDF that attaches these files under these names.
pub(super) fn pdf_with_files(files: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let numbers: Vec<_> = (0..files.len()).map(|index| 6 + 2 * index).collect();
    let objects: Vec<_> = files
        .iter()
        .zip(&numbers)
        .flat_map(|((name, file), number)| [specification(name, number + 1), file.clone()])
        .collect();
    build_pdf(PAGE, &embedded(&numbers), "", &objects)
}

/// An embedded file, deflated.
pub(super) fn file(contents: &[u8]) -> Vec<u8> {
    stream("/Type /EmbeddedFile /Filter /FlateDecode", &deflated(contents))
}

#[track_caller]
fn check_rejected(document: Vec<u8>, why: &str) {
    let error = read_pdf(document).unwrap_err().to_string();
    assert!(error.starts_with("`document`: is ") && error.contains(why), "{error}");
}

#[test]
fn an_attached_invoice_is_read() {
    for (sample, attachment) in
        [(CII, file(CII.as_bytes())), (UBL, stream("/Type /EmbeddedFile", UBL.as_bytes()))]
    {
        let drawing = file(b"<svg xmlns='http://www.w3.org/2000/svg'/>");
        let document = pdf_with_files(&[("drawing.svg", drawing), ("factur-x.xml", attachment)]);
        assert_eq!(read_pdf(document).unwrap(), read(sample).unwrap());
    }
}

#[test]
fn a_pdf_without_exactly_one_invoice_is_rejected() {
    check_rejected(b"<a/>".to_vec(), "not a PDF");
    check_rejected(b"%PDF-1.7\n%%EOF\n".to_vec(), "a PDF that cannot be read");
    check_rejected(
        build_pdf(b"BT (Total 12.00) Tj ET", "", "", &[]),
        "a PDF without an attached invoice",
    );
    let two = [("a.xml", file(CII.as_bytes())), ("b.xml", file(UBL.as_bytes()))];
    check_rejected(pdf_with_files(&two), "more than one invoice");
    let twice = [("a.xml", file(CII.as_bytes())), ("b.xml", file(CII.as_bytes()))];
    check_rejected(pdf_with_files(&twice), "more than one invoice");
}

#[test]
fn a_decompression_bomb_is_rejected() {
    let bomb = file(&[b"<a>".to_vec(), vec![b' '; 50 * 1024 * 1024]].concat());
    let error = read_pdf(pdf_with_files(&[("factur-x.xml", bomb)])).unwrap();
    assert!(error.findings[0].message.contains("8388608-byte limit"), "{:?}", error.findings);
    let part = file(&[b"<a>".to_vec(), vec![b' '; 1024 * 1024]].concat());
    check_rejected(pdf_with_files(&vec![("a.xml", part); 9]), "more than 8388608 bytes of XML");
    check_rejected(pdf_with_files(&vec![("a.txt", file(b"x")); 101]), "more than 100 attachments");
    let open = [b"%PDF-".to_vec(), b">>stream\nstream>>".repeat(400_000)].concat();
    check_rejected(open, "a PDF ");
    // Repeated filters expand a small stream enormously.
    let mut contents = vec![b' '; 8 * 1024 * 1024];
    let mut filters = String::new();
    for _ in 0..16 {
        contents = deflated(&contents);
        filters.push_str("/FlateDecode ");
    }
    let deep = stream(&format!("/Filter [{filters}]"), &contents);
    let found = read_pdf(pdf_with_files(&[("factur-x.xml", deep.clone())])).unwrap();
    assert_eq!(found.findings[0].rule, "ATTACHMENT", "{:?}", found.findings);
    let deeper = stream(&format!("/Filter [{filters} /FlateDecode]"), &contents);
    let found = read_pdf(pdf_with_files(&[("factur-x.xml", deeper)])).unwrap();
    assert!(found.findings[0].message.contains("more than 16 filters"), "{:?}", found.findings);
}
