//! Attachments of PDFs, and the reports of unreadable ones.

use drawbridge_proto::invoices::v1::{Severity, Syntax};

use super::{
    CII, UBL,
    pdf::{
        PAGE, append_revision, build_pdf, embedded, file, pdf_with_files, read_pdf, specification,
        stream,
    },
    read,
};

mod encryption;

/// An invoice with this number.
fn numbered_invoice(read_number: &str) -> Vec<u8> {
    CII.replacen("CN-7", read_number, 1).into_bytes()
}

/// The invoice number that is read from a PDF.
#[track_caller]
fn read_number(pdf: Vec<u8>) -> String {
    read_pdf(pdf).unwrap().invoice.unwrap().number
}

/// Checks that the PDF is read by its text only, with a finding about the attachment.
#[track_caller]
fn check_unreadable(pdf: Vec<u8>, problem: &str) {
    let result = read_pdf(pdf).unwrap();
    let finding = &result.findings[0];
    assert_eq!(
        (finding.rule.as_str(), finding.severity()),
        ("ATTACHMENT", Severity::Error),
        "{problem}"
    );
    assert!(
        finding.message.starts_with("the attachment `") && finding.message.contains(problem),
        "{problem}: {finding:?}"
    );
    assert!(
        !result.findings.iter().any(|finding| finding.message.contains("no electronic invoice"))
    );
    let invoice = result.invoice.unwrap();
    assert_eq!((invoice.syntax(), invoice.number.as_str()), (Syntax::PdfText, "TEXT-1"));
}

#[test]
fn files_are_found_in_every_place_where_a_pdf_attaches_them() {
    let objects = [specification("factur-x.xml", 7), file(&numbered_invoice("A-1"))];
    let kids = "/Names <</EmbeddedFiles 8 0 R>>";
    let tree = [
        b"<</Kids [9 0 R 8 0 R 9 0 R]>>".to_vec(),
        b"<</Limits [(a) (z)] /Kids [10 0 R]>>".to_vec(),
        b"<</Names [(a) 6 0 R]>>".to_vec(),
    ];
    let with_tree = [objects.as_slice(), &tree].concat();
    let annotation = "<</Type /Annot /Subtype /FileAttachment /FS 6 0 R /Rect [0 0 9 9]>>";
    for (catalog, page, objects) in [
        (embedded(&[6]), String::new(), &objects[..]),
        (kids.to_owned(), String::new(), &with_tree),
        ("/AF [6 0 R]".to_owned(), String::new(), &objects),
        ("/AF 6 0 R".to_owned(), String::new(), &objects),
        (String::new(), "/AF [6 0 R]".to_owned(), &objects),
        (String::new(), format!("/Annots [{annotation}]"), &objects),
        (String::new(), "/Annots [<</Subtype /Text /AF [6 0 R]>>]".to_owned(), &objects),
        // One file with several references counts once.
        (
            format!("{} /AF [6 0 R 6 0 R]", embedded(&[6])),
            format!("/AF 6 0 R /Annots [{annotation}]"),
            &objects,
        ),
    ] {
        let pdf = build_pdf(PAGE, &catalog, &page, objects);
        assert_eq!(read_number(pdf), "A-1", "{catalog} {page}");
    }
}

#[test]
fn an_unattached_stream_is_not_an_invoice() {
    let hidden = stream("/Type /EmbeddedFile", &numbered_invoice("HIDDEN-1"));
    let private = "/PieceInfo <</X <</Private 8 0 R>>>>";
    let objects = [specification("factur-x.xml", 7), file(&numbered_invoice("REAL-1")), hidden];
    assert_eq!(read_number(build_pdf(PAGE, &embedded(&[6]), private, &objects)), "REAL-1");
    let result = read_pdf(build_pdf(PAGE, "", private, &objects)).unwrap();
    assert_eq!(
        (result.invoice.unwrap().number.as_str(), result.findings[0].rule.as_str()),
        ("TEXT-1", "TEXT")
    );
    // A specification of an external file attaches nothing.
    let elsewhere = [b"<</Type /Filespec /F (factur-x.xml)>>".to_vec()];
    assert_eq!(read_number(build_pdf(PAGE, &embedded(&[6]), "", &elsewhere)), "TEXT-1");
}

#[test]
fn only_attachments_of_the_last_revision_count() {
    let attached = pdf_with_files(&[("factur-x.xml", file(&numbered_invoice("OLD-1")))]);
    let without = (1, b"<</Type /Catalog /Pages 2 0 R>>".to_vec());
    let removed = append_revision(attached.clone(), &[without]);
    assert_eq!(read_number(removed.clone()), "TEXT-1");
    let replaced = append_revision(attached, &[(7, file(&numbered_invoice("NEW-1")))]);
    assert_eq!(read_number(replaced), "NEW-1");
    let again = format!("<</Type /Catalog /Pages 2 0 R {}>>", embedded(&[6]));
    assert_eq!(read_number(append_revision(removed, &[(1, again.into_bytes())])), "OLD-1");
}

#[test]
fn a_pdf_with_bookmarks_is_read() {
    let mut objects = vec![specification("factur-x.xml", 7), file(&numbered_invoice("A-1"))];
    objects
        .extend((0..40).map(|_| b"<</Title (a) /Prev 8 0 R /Next 9 0 R /Parent 8 0 R>>".to_vec()));
    assert_eq!(read_number(build_pdf(PAGE, &embedded(&[6]), "", &objects)), "A-1");
}

fn hex(contents: &[u8]) -> Vec<u8> {
    let digits: String = contents.iter().map(|byte| format!("{byte:02X}")).collect();
    [digits.as_bytes(), b">"].concat()
}

fn ascii_85(contents: &[u8]) -> Vec<u8> {
    let mut encoded = Vec::new();
    for group in contents.chunks(4) {
        let mut bytes = [0; 4];
        bytes[..group.len()].copy_from_slice(group);
        let mut value = u32::from_be_bytes(bytes);
        let mut digits = [0_u8; 5];
        for digit in digits.iter_mut().rev() {
            *digit = u8::try_from(value % 85).unwrap() + b'!';
            value /= 85;
        }
        match value {
            _ if group == [0; 4] => encoded.push(b'z'),
            _ => encoded.extend(&digits[..=group.len()]),
        }
        encoded.push(b'\n');
    }
    [encoded.as_slice(), b"~>"].concat()
}

fn run_length(contents: &[u8]) -> Vec<u8> {
    let literal = |part: &[u8]| [&[u8::try_from(part.len() - 1).unwrap()], part].concat();
    let mut encoded: Vec<u8> = contents.chunks(128).flat_map(literal).collect();
    encoded.push(128);
    encoded
}

/// LZW without a dictionary: nine-bit codes, reset before a tenth bit is needed.
fn lzw(contents: &[u8]) -> Vec<u8> {
    let clear_and = |part: &[u8]| {
        [&[256_u16], part.iter().map(|byte| u16::from(*byte)).collect::<Vec<_>>().as_slice()]
            .concat()
    };
    let codes = contents.chunks(200).flat_map(clear_and).chain([257]);
    let (mut encoded, mut bits, mut count) = (Vec::new(), 0_u32, 0);
    for code in codes {
        bits = bits << 9 | u32::from(code);
        count += 9;
        while count >= 8 {
            count -= 8;
            encoded.push((bits >> count & 0xff) as u8);
        }
    }
    encoded.push((bits << (8 - count) & 0xff) as u8);
    encoded
}

/// Rows of ten bytes, each the difference to the row above (PNG filter 2).
fn png_up(contents: &[u8]) -> Vec<u8> {
    let mut above = [0_u8; 10];
    let mut encoded = Vec::new();
    for row in contents.chunks(10) {
        encoded.push(2);
        encoded.extend(row.iter().zip(above).map(|(byte, above)| byte.wrapping_sub(above)));
        above[..row.len()].copy_from_slice(row);
    }
    encoded
}

/// Rows of ten bytes, each byte the difference to the previous one.
fn tiff(contents: &[u8]) -> Vec<u8> {
    let row = |row: &[u8]| -> Vec<u8> {
        (0..row.len())
            .map(|at| row[at].wrapping_sub(if at == 0 { 0 } else { row[at - 1] }))
            .collect()
    };
    contents.chunks(10).flat_map(row).collect()
}

#[test]
fn every_filter_of_pdf_1_7_and_chains_of_them_are_read() {
    let mut invoice = numbered_invoice("F-1");
    invoice.resize(invoice.len().next_multiple_of(10), b'\n');
    let deflated = super::pdf::deflated;
    let rows = |predictor| format!("<</Predictor {predictor} /Columns 10>>");
    for (entries, contents) in [
        (String::new(), invoice.clone()),
        ("/Filter /FlateDecode".to_owned(), deflated(&invoice)),
        ("/Filter /ASCIIHexDecode".to_owned(), hex(&invoice)),
        ("/Filter /ASCII85Decode".to_owned(), ascii_85(&invoice)),
        ("/Filter [/RunLengthDecode]".to_owned(), run_length(&invoice)),
        ("/Filter /LZWDecode".to_owned(), lzw(&invoice)),
        ("/Filter [/ASCII85Decode /FlateDecode]".to_owned(), ascii_85(&deflated(&invoice))),
        (
            "/Filter [/ASCIIHexDecode /ASCII85Decode /LZWDecode]".to_owned(),
            hex(&ascii_85(&lzw(&invoice))),
        ),
        (format!("/Filter /FlateDecode /DecodeParms {}", rows(12)), deflated(&png_up(&invoice))),
        (format!("/Filter /LZWDecode /DecodeParms {}", rows(2)), lzw(&tiff(&invoice))),
        (
            format!("/Filter [/ASCIIHexDecode /FlateDecode] /DecodeParms [null {}]", rows(15)),
            hex(&deflated(&png_up(&invoice))),
        ),
        // Filters and their parameters may be indirect objects.
        ("/Filter 8 0 R /DecodeParms 9 0 R".to_owned(), hex(&deflated(&png_up(&invoice)))),
    ] {
        let objects = [
            specification("factur-x.xml", 7),
            stream(&entries, &contents),
            b"[/ASCIIHexDecode 10 0 R]".to_vec(),
            format!("[null {}]", rows(12)).into_bytes(),
            b"/FlateDecode".to_vec(),
        ];
        let pdf = build_pdf(PAGE, &embedded(&[6]), "", &objects);
        assert_eq!(read_pdf(pdf).unwrap().findings, read(CII).unwrap().findings, "{entries}");
        assert_eq!(read_number(build_pdf(PAGE, &embedded(&[6]), "", &objects)), "F-1", "{entries}");
    }
}

#[test]
fn an_unreadable_attachment_is_reported_and_never_silently_replaced() {
    let whole = numbered_invoice("A-1");
    let named = |contents: Vec<u8>| pdf_with_files(&[("factur-x.xml", contents)]);
    check_unreadable(
        named(file(&whole[..whole.len() - 100])),
        "`factur-x.xml` cannot be read: it is not valid or not supported XML",
    );
    let cut = super::pdf::deflated(&whole);
    check_unreadable(
        named(stream("/Filter /FlateDecode", &cut[..cut.len() / 2])),
        "cannot be read",
    );
    check_unreadable(
        named(stream("/Filter /FlateDecode", b"nothing deflated")),
        "has no root element",
    );
    check_unreadable(named(stream("/Filter /ASCII85Decode", b"a~b~c")), "cannot be read");
    check_unreadable(named(stream("/Filter /DCTDecode", &whole)), "has an unsupported filter");
    check_unreadable(named(stream("/F (elsewhere.xml)", b"")), "is stored in another file");
    let utf_7 = CII.replace("'utf-8'", "'UTF-7'");
    check_unreadable(named(file(utf_7.as_bytes())), "declares the encoding `UTF-7`");
    check_unreadable(named(file(b"<Order xmlns='urn:a'/>")), "is XML, but not an invoice");
    check_unreadable(
        pdf_with_files(&[("ZUGFeRD-invoice.xml", file(b"<CrossIndustryDocument xmlns='urn:a'/>"))]),
        "but not an invoice",
    );
    check_unreadable(pdf_with_files(&[("a.xml", file(b"<!DOCTYPE a><a/>"))]), "document type");
    let missing = [specification("factur-x.xml", 99)];
    check_unreadable(build_pdf(PAGE, &embedded(&[6]), "", &missing), "has no contents");
    let two = [
        b"<</F (factur-x.xml) /EF <</F 7 0 R /UF 8 0 R>>>>".to_vec(),
        file(&whole),
        file(&numbered_invoice("B-1")),
    ];
    check_unreadable(
        build_pdf(PAGE, &embedded(&[6]), "", &two),
        "several streams with different contents",
    );

    // If the text has no invoice, the attachment is the reason for failure.
    let objects = [specification("factur-x.xml", 7), file(b"<a>")];
    let error = read_pdf(build_pdf(b" ", &embedded(&[6]), "", &objects)).unwrap_err().to_string();
    assert_eq!(
        error,
        "`document`: is a PDF, and the attachment `factur-x.xml` cannot be read: it ends before \
         its elements do"
    );
    // Next to an invoice it is a warning, unless it is not XML.
    let beside = pdf_with_files(&[
        ("factur-x.xml", file(&whole)),
        ("other.xml", file(b"<a>")),
        ("terms.pdf", stream("/Filter /JBIG2Decode", b"x")),
        ("data.xml", file(b"<a xmlns='urn:a'/>")),
    ]);
    let result = read_pdf(beside).unwrap();
    let found: Vec<_> =
        result.findings.iter().map(|found| (found.rule.as_str(), found.severity())).collect();
    assert_eq!(found, [("ATTACHMENT", Severity::Warning)]);
    assert_eq!(result.invoice.unwrap().number, "A-1");
}
