//! PDFs without XML, read by their text.

use std::time::{Duration, Instant};

use drawbridge_proto::invoices::v1::{ExtractResult, InvoiceKind, Syntax};

use super::pdf::{build_pdf, deflated, read_pdf};

/// A PDF of one page with these texts at these positions, in points.
pub(super) fn page(texts: &[(f64, f64, &str)]) -> Vec<u8> {
    let shown = texts.iter().map(|(x, y, text)| {
        // WinAnsi: the only character outside Latin-1 here is the euro sign.
        let bytes = text.chars().map(|char| u8::try_from(char).unwrap_or(0x80));
        let escaped = bytes.flat_map(|byte| match byte {
            b'(' | b')' | b'\\' => vec![b'\\', byte],
            byte => vec![byte],
        });
        [
            format!("BT /F1 10 Tf 1 0 0 1 {x} {y} Tm (").into_bytes(),
            escaped.collect(),
            b") Tj ET\n".to_vec(),
        ]
        .concat()
    });
    page_with_content(&shown.collect::<Vec<_>>().concat())
}

/// A PDF of one page with this content.
fn page_with_content(content: &[u8]) -> Vec<u8> {
    with_objects(content, &[])
}

/// The same, with further objects.
fn with_objects(content: &[u8], more: &[Vec<u8>]) -> Vec<u8> {
    build_pdf(content, "", "", more)
}

/// Path, value and confidence of each detected field.
fn detected_fields(result: &ExtractResult) -> Vec<String> {
    let invoice = result.invoice.as_ref().unwrap();
    let totals = invoice.totals.as_ref().unwrap();
    let value = |field: &str| match field {
        "number" => invoice.number.clone(),
        "issue_date" => invoice.issue_date.clone().unwrap(),
        "due_date" => invoice.due_date.clone().unwrap(),
        "currency" => invoice.currency.clone(),
        "seller.vat_id" => invoice.seller.as_ref().unwrap().vat_id.clone(),
        "payment_means[0].account" => invoice.payment_means[0].account.clone(),
        "totals.net_amount" => totals.net_amount.clone().unwrap(),
        "totals.tax_amount" => totals.tax_amount.clone().unwrap(),
        "totals.gross_amount" => totals.gross_amount.clone().unwrap(),
        "totals.payable_amount" => totals.payable_amount.clone().unwrap(),
        other => panic!("{other}"),
    };
    let line = |detected_fields: &drawbridge_proto::invoices::v1::Confidence| {
        format!(
            "{} {} {:.2}",
            detected_fields.field,
            value(&detected_fields.field),
            detected_fields.confidence
        )
    };
    result.confidences.iter().map(line).collect()
}

#[test]
fn an_invoice_in_english_is_read_with_a_confidence_for_each_field() {
    let result = read_pdf(page(&[
        (50.0, 800.0, "Hanse Bolts Ltd"),
        (50.0, 780.0, "VAT ID: DE 123456789"),
        (300.0, 780.0, "Your VAT ID: ATU12345678"),
        (50.0, 740.0, "Invoice number:"),
        (200.0, 740.0, "DB-2026-0042"),
        // The value is in its column, below.
        (50.0, 720.0, "Invoice date"),
        (250.0, 720.0, "Due date"),
        (50.0, 706.0, "November 23, 2026"),
        (250.0, 706.0, "12/24/2026"),
        (50.0, 600.0, "10 bolts"),
        (400.0, 600.0, "1,000.00"),
        (50.0, 400.0, "Subtotal"),
        (400.0, 400.0, "1,000.00"),
        (50.0, 386.0, "VAT 19 %"),
        (400.0, 386.0, "190.00"),
        (50.0, 372.0, "Total"),
        (400.0, 372.0, "EUR 1,190.00"),
        (50.0, 300.0, "IBAN DE89 3704 0044 0532 0130 00"),
    ]))
    .unwrap();
    assert_eq!(result.invoice.as_ref().unwrap().syntax(), Syntax::PdfText);
    assert_eq!(result.findings[0].rule, "TEXT");
    assert_eq!(
        detected_fields(&result),
        [
            "number DB-2026-0042 0.90",
            "issue_date 2026-11-23 0.72",
            "due_date 2026-12-24 0.72",
            "currency EUR 0.90",
            "seller.vat_id DE123456789 0.90",
            "payment_means[0].account DE89370400440532013000 0.97",
            "totals.net_amount 1000.00 0.97",
            "totals.tax_amount 190.00 0.97",
            "totals.gross_amount 1190.00 0.97",
            "totals.payable_amount 1190.00 0.48",
        ]
    );
}

#[test]
fn invoices_in_german_and_french_are_read_too() {
    let german = read_pdf(page(&[
        (50.0, 800.0, "Gutschrift"),
        (50.0, 780.0, "Rechnungs-Nr. 2026/17"),
        (50.0, 760.0, "Rechnungsdatum: 3. März 2026"),
        (50.0, 700.0, "Nettobetrag: 1.000,00 €"),
        (50.0, 686.0, "zzgl. 7 % MwSt: 70,00 €"),
        (50.0, 672.0, "Gesamtbetrag: 1.070,00 €"),
    ]))
    .unwrap();
    assert_eq!(german.invoice.as_ref().unwrap().kind(), InvoiceKind::CreditNote);
    assert_eq!(
        detected_fields(&german),
        [
            "number 2026/17 0.90",
            "issue_date 2026-03-03 0.90",
            "currency EUR 0.90",
            "totals.net_amount 1000.00 0.97",
            "totals.tax_amount 70.00 0.97",
            "totals.gross_amount 1070.00 0.97",
            "totals.payable_amount 1070.00 0.72",
        ]
    );
    let french = read_pdf(page(&[
        (50.0, 780.0, "Facture n° F-9"),
        (50.0, 760.0, "Date d'échéance: 03/04/2026"),
        (50.0, 700.0, "Net à payer 12,50 EUR"),
    ]))
    .unwrap();
    assert_eq!(
        detected_fields(&french),
        [
            "number F-9 0.90",
            "due_date 2026-04-03 0.45",
            "currency EUR 0.90",
            "totals.payable_amount 12.50 0.90",
        ]
    );
}

#[test]
fn missing_fields_are_absent_and_a_text_without_invoice_fields_is_rejected() {
    let result = read_pdf(page(&[(50.0, 780.0, "Invoice no. 7")])).unwrap();
    assert_eq!(detected_fields(&result), ["number 7 0.90"]);
    let invoice = result.invoice.unwrap();
    assert!(
        invoice.issue_date.is_none()
            && invoice.seller.is_none()
            && invoice.payment_means.is_empty()
    );
    assert_eq!(invoice.totals.unwrap().payable_amount, None);
    for texts in [&[(50.0, 780.0, "Dear Sir or Madam")][..], &[]] {
        let error = read_pdf(page(texts)).unwrap_err().to_string();
        assert!(error.contains("has neither an invoice number nor an amount"), "{error}");
    }
}

#[test]
fn single_letters_form_words_and_columns_are_separated() {
    let spaced: Vec<_> = "Invoice no. 12".chars().enumerate().collect();
    let texts: Vec<_> = spaced
        .iter()
        .map(|(index, char)| (50.0 + 5.0 * *index as f64, 700.0, char.to_string()))
        .collect();
    let texts: Vec<_> = texts.iter().map(|(x, y, text)| (*x, *y, text.as_str())).collect();
    assert_eq!(read_pdf(page(&texts)).unwrap().invoice.unwrap().number, "12");
}

/// An array of this size, in bytes.
fn array(bytes: usize) -> Vec<u8> {
    [b"[".to_vec(), b"1 ".repeat(bytes / 2), b"]".to_vec()].concat()
}

/// An object stream with one object.
fn objects(object: &[u8]) -> Vec<u8> {
    let stream = deflated(&[b"9 0 ", object].concat());
    let head = format!(
        "<</Type /ObjStm /N 1 /First 4 /Filter /FlateDecode /Length {}>>\nstream\n",
        stream.len()
    );
    [head.as_bytes(), &stream, b"\nendstream"].concat()
}

#[test]
fn hostile_texts_are_rejected_within_bounds() {
    let started = Instant::now();
    let nested = [b"BT /F1 10 Tf ".to_vec(), b"[".repeat(900_000), b" TJ ET".to_vec()].concat();
    let many = b"BT /F1 10 Tf (a) Tj ET\n".repeat(30_000);
    for (document, why) in [
        (page_with_content(&nested), "has neither an invoice number nor an amount"),
        (page_with_content(&many), "pieces of text"),
        (page_with_content(&b" ".repeat(2_000_000)), "cannot be read"),
        ([page(&[]), b" ".repeat(5_000_000)].concat(), "more than 4194304 bytes"),
        ([b"%PDF-1.7\n1 0 obj\n".to_vec(), b"[".repeat(3_000_000)].concat(), "is a PDF"),
        ([b"%PDF-1.7\n1 0 obj\n".to_vec(), b"<<".repeat(1_500_000)].concat(), "is a PDF"),
        (page(&[])[..300].to_vec(), "is a PDF"),
        // Small inputs that expand enormously: arrays, object streams, and one array that many
        // objects start before.
        (with_objects(b" ", &[array(3_900_000)]), "too complex for an invoice"),
        (with_objects(b" ", &[objects(&array(15_000_000))]), "is a PDF"),
        (with_objects(b" ", &vec![objects(&array(900_000)); 10]), "too complex for an invoice"),
        (with_objects(b" ", &vec![array(300_000); 12]), "too complex for an invoice"),
        ([page(&[]), b"<</Prev 9>> ".repeat(17)].concat(), "too complex for an invoice"),
    ] {
        let error = read_pdf(document).unwrap_err().to_string();
        assert!(error.contains(why), "{why}: {error}");
    }
    let loops = String::from_utf8_lossy(&page(&[])).replace("/Kids [3 0 R]", "/Kids [2 0 R]");
    read_pdf(loops.into_bytes()).unwrap_err();
    let encrypted = String::from_utf8_lossy(&page(&[])).replace(
        "/Root 1 0 R",
        "/Root 1 0 R /Encrypt <</Filter /Standard /V 1 /R 2 /O (x) /U (x) /P 0>> /ID [(a) (b)]",
    );
    read_pdf(encrypted.into_bytes()).unwrap_err();
    assert!(started.elapsed() < Duration::from_secs(300), "{:?}", started.elapsed());
}
