//! Small documents in the shapes that occur in practice, with their expected results.

use drawbridge_proto::invoices::v1::{ExtractResult, InvoiceKind, Severity};

use super::{CII, UBL, read};

/// A line of CII: its number, further elements of its line document, quantity, price and net
/// amount.
pub(super) fn line([id, document, quantity, price, net]: [&str; 5]) -> String {
    format!(
        "<ram:IncludedSupplyChainTradeLineItem><ram:AssociatedDocumentLineDocument>\
         <ram:LineID>{id}</ram:LineID>\
         {document}</ram:AssociatedDocumentLineDocument>\
         <ram:SpecifiedTradeProduct><ram:Name>Thing</ram:Name></ram:SpecifiedTradeProduct>\
         <ram:SpecifiedLineTradeAgreement><ram:NetPriceProductTradePrice>\
         <ram:ChargeAmount>{price}</ram:ChargeAmount>\
         </ram:NetPriceProductTradePrice></ram:SpecifiedLineTradeAgreement>\
         <ram:SpecifiedLineTradeDelivery>\
         <ram:BilledQuantity unitCode=\"C62\">{quantity}</ram:BilledQuantity>\
         </ram:SpecifiedLineTradeDelivery>\
         <ram:SpecifiedLineTradeSettlement><ram:ApplicableTradeTax><ram:TypeCode>VAT</ram:TypeCode>\
         <ram:CategoryCode>S</ram:CategoryCode>\
         <ram:RateApplicablePercent>19</ram:RateApplicablePercent>\
         </ram:ApplicableTradeTax><ram:SpecifiedTradeSettlementLineMonetarySummation>\
         <ram:LineTotalAmount>{net}</ram:LineTotalAmount>\
         </ram:SpecifiedTradeSettlementLineMonetarySummation>\
         </ram:SpecifiedLineTradeSettlement></ram:IncludedSupplyChainTradeLineItem>"
    )
}

/// An invoice of CII over 100.00 and VAT of 19.00: its specification, type, lines, and further
/// elements of its settlement before and within the totals.
pub(super) fn cii(
    specification: &str,
    type_code: &str,
    lines: &str,
    settlement: &str,
    totals: &str,
) -> String {
    let party = |name: &str, vat_id: &str| {
        format!(
            "<ram:Name>{name}</ram:Name><ram:PostalTradeAddress><ram:CountryID>DE</ram:CountryID>\
             </ram:PostalTradeAddress><ram:SpecifiedTaxRegistration><ram:ID \
             schemeID=\"VA\">{vat_id}</ram:ID>\
             </ram:SpecifiedTaxRegistration>"
        )
    };
    let namespace = "urn:un:unece:uncefact:data:standard";
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\
         <rsm:CrossIndustryInvoice xmlns:rsm=\"{namespace}:CrossIndustryInvoice:100\" \
         xmlns:ram=\"{namespace}:ReusableAggregateBusinessInformationEntity:100\" \
         xmlns:udt=\"{namespace}:UnqualifiedDataType:100\"><rsm:ExchangedDocumentContext>\
         <ram:GuidelineSpecifiedDocumentContextParameter><ram:ID>{specification}</ram:ID>\
         </ram:GuidelineSpecifiedDocumentContextParameter></rsm:ExchangedDocumentContext>\
         <rsm:ExchangedDocument>\
         <ram:ID>C-1</ram:ID><ram:TypeCode>{type_code}</ram:TypeCode><ram:IssueDateTime>\
         <udt:DateTimeString format=\"102\">20260105</udt:DateTimeString></ram:IssueDateTime>\
         </rsm:ExchangedDocument>\
         <rsm:SupplyChainTradeTransaction>{lines}<ram:ApplicableHeaderTradeAgreement>\
         <ram:SellerTradeParty>{}</ram:SellerTradeParty>\
         <ram:BuyerTradeParty>{}</ram:BuyerTradeParty>\
         </ram:ApplicableHeaderTradeAgreement><ram:ApplicableHeaderTradeDelivery/>\
         <ram:ApplicableHeaderTradeSettlement>\
         <ram:InvoiceCurrencyCode>EUR</ram:InvoiceCurrencyCode>{settlement}\
         <ram:SpecifiedTradeSettlementHeaderMonetarySummation>{totals}\
         </ram:SpecifiedTradeSettlementHeaderMonetarySummation>\
         </ram:ApplicableHeaderTradeSettlement>\
         </rsm:SupplyChainTradeTransaction></rsm:CrossIndustryInvoice>",
        party("Seller Ltd", "DE123456789"),
        party("Buyer Ltd", "DE987654321"),
    )
}

pub(super) const EN16931: &str = "urn:cen.eu:en16931:2017";
const EXTENDED: &str = "urn:cen.eu:en16931:2017#conformant#urn:factur-x.eu:1p0:extended";
pub(super) const TAX: &str = "<ram:ApplicableTradeTax>\
    <ram:CalculatedAmount>19.00</ram:CalculatedAmount><ram:TypeCode>VAT</ram:TypeCode>\
    <ram:BasisAmount>100.00</ram:BasisAmount><ram:CategoryCode>S</ram:CategoryCode>\
    <ram:RateApplicablePercent>19</ram:RateApplicablePercent></ram:ApplicableTradeTax>";
pub(super) const DUE: &str = "<ram:SpecifiedTradePaymentTerms><ram:DueDateDateTime>\
    <udt:DateTimeString format=\"102\">20260201\
    </udt:DateTimeString></ram:DueDateDateTime></ram:SpecifiedTradePaymentTerms>";
pub(super) const TOTALS: &str = "<ram:LineTotalAmount>100.00</ram:LineTotalAmount>\
    <ram:TaxBasisTotalAmount>100.00\
    </ram:TaxBasisTotalAmount><ram:TaxTotalAmount currencyID=\"EUR\">19.00</ram:TaxTotalAmount>\
    <ram:GrandTotalAmount>119.00</ram:GrandTotalAmount>\
    <ram:DuePayableAmount>119.00</ram:DuePayableAmount>";

fn rules_of(result: &ExtractResult) -> Vec<&str> {
    result.findings.iter().map(|finding| finding.rule.as_str()).collect()
}

#[track_caller]
fn valid(document: impl Into<Vec<u8>>) -> drawbridge_proto::invoices::v1::Invoice {
    let result = read(document).unwrap();
    assert_eq!(result.findings, []);
    result.invoice.unwrap()
}

fn status(code: &str, parent: &str) -> String {
    let parent = if parent.is_empty() {
        String::new()
    } else {
        format!("<ram:ParentLineID>{parent}</ram:ParentLineID>")
    };
    format!("{parent}<ram:LineStatusReasonCode>{code}</ram:LineStatusReasonCode>")
}

/// Three levels of lines: only details count.
fn sublines() -> [String; 5] {
    [
        line(["1", &status("GROUP", ""), "1", "100.00", "100.00"]),
        line(["1.1", &status("DETAIL", "1"), "1", "60.00", "60.00"]),
        line(["1.2", &status("GROUP", "1"), "1", "40.00", "40.00"]),
        line(["1.2.1", &status("DETAIL", "1.2"), "2", "20.00", "40.00"]),
        line(["2", &status("INFORMATION", ""), "5", "1.00", "5.00"]),
    ]
}

#[test]
fn subtotals_and_remarks_of_factur_x_extended_are_not_summed() {
    let settlement = format!("{TAX}{DUE}");
    let document = cii(EXTENDED, "380", &sublines().concat(), &settlement, TOTALS);
    let lines: Vec<_> = valid(document.clone())
        .lines
        .into_iter()
        .map(|line| [line.id, line.status, line.parent].join(" "))
        .collect();
    assert_eq!(
        lines,
        ["1 GROUP ", "1.1 DETAIL 1", "1.2 GROUP 1", "1.2.1 DETAIL 1.2", "2 INFORMATION "]
    );
    // EN 16931 itself sums all lines.
    let result = read(document.replace(EXTENDED, EN16931)).unwrap();
    assert_eq!(rules_of(&result), ["BR-CO-10", "BR-S-08"]);
    // A remark needs no amount, but a detail does.
    let bare = |status| document.replacen(&line(["2", status, "5", "1.00", "5.00"]), "", 1);
    assert_eq!(rules_of(&read(bare(&status("INFORMATION", ""))).unwrap()), [""; 0]);
    let unpriced = |code: &str| {
        let line = line(["3", &status(code, ""), "1", "9", "0"]);
        let line = line
            .replace("<ram:ChargeAmount>9</ram:ChargeAmount>", "")
            .replace(" unitCode=\"C62\"", "");
        cii(EXTENDED, "380", &format!("{}{line}", sublines().concat()), &settlement, TOTALS)
    };
    assert_eq!(rules_of(&read(unpriced("INFORMATION")).unwrap()), [""; 0]);
    assert_eq!(rules_of(&read(unpriced("DETAIL")).unwrap()), ["BR-23", "BR-26"]);
}

#[test]
fn sublines_have_a_status_and_a_parent_line_with_their_sum() {
    let settlement = format!("{TAX}{DUE}");
    let document = cii(EXTENDED, "380", &sublines().concat(), &settlement, TOTALS);
    for (from, to, found) in [
        ("<ram:ParentLineID>1.2<", "<ram:ParentLineID>9<", &["BR-FXEXT-11"][..]),
        (
            "1.2</ram:ParentLineID><ram:LineStatusReasonCode>DETAIL<",
            "1.2</ram:ParentLineID><ram:LineStatusReasonCode><",
            &["BR-FXEXT-06"],
        ),
        (
            "<ram:LineTotalAmount>40.00<",
            "<ram:LineTotalAmount>45.00<",
            &["BR-FXEXT-08", "BR-FXEXT-08"],
        ),
    ] {
        assert!(document.contains(from), "{from}");
        assert_eq!(rules_of(&read(document.replacen(from, to, 1)).unwrap()), found, "{to}");
    }
}

/// In an extension, each part of a sum may be rounded separately; in EN 16931 a sum is exact.
#[test]
fn sums_of_an_extension_have_a_tolerance_of_one_cent_per_part() {
    let lines: String =
        (1..=3).map(|id| line([&id.to_string(), "", "1", "33.33", "33.33"])).collect();
    let settlement = format!("{TAX}{DUE}");
    valid(cii(EXTENDED, "380", &lines, &settlement, TOTALS));
    assert_eq!(
        rules_of(&read(cii(EN16931, "380", &lines, &settlement, TOTALS)).unwrap()),
        ["BR-CO-10", "BR-S-08"]
    );
    let lines = format!("{lines}{}", line(["4", "", "1", "0.06", "0.06"]));
    assert_eq!(
        rules_of(&read(cii(EXTENDED, "380", &lines, &settlement, TOTALS)).unwrap()),
        ["BR-CO-10", "BR-S-08"]
    );
}

#[test]
fn logistics_charges_are_charges() {
    let charge = "<ram:SpecifiedLogisticsServiceCharge><ram:Description>Freight</ram:Description>\
        <ram:AppliedAmount>10.00</ram:AppliedAmount><ram:AppliedTradeTax>\
        <ram:TypeCode>VAT</ram:TypeCode>\
        <ram:CategoryCode>S</ram:CategoryCode>\
        <ram:RateApplicablePercent>19</ram:RateApplicablePercent>\
        </ram:AppliedTradeTax></ram:SpecifiedLogisticsServiceCharge>";
    let lines = line(["1", "", "1", "90.00", "90.00"]);
    let totals = TOTALS.replacen(
        "<ram:LineTotalAmount>100.00</ram:LineTotalAmount>",
        "<ram:LineTotalAmount>90.00</ram:LineTotalAmount>\
         <ram:ChargeTotalAmount>10.00</ram:ChargeTotalAmount>",
        1,
    );
    let invoice = valid(cii(EXTENDED, "380", &lines, &format!("{TAX}{charge}{DUE}"), &totals));
    let [charge] = invoice.allowances_charges.as_slice() else { panic!("{invoice:?}") };
    assert_eq!(
        (
            charge.charge,
            charge.amount.as_deref(),
            charge.reason.as_str(),
            charge.tax.as_ref().unwrap().code.as_str()
        ),
        (true, Some("10.00"), "Freight", "S")
    );
}

#[test]
fn every_credit_note_code_is_a_credit_note() {
    let lines = line(["1", "", "2", "50.00", "100.00"]);
    for code in
        ["81", "83", "261", "262", "296", "308", "381", "396", "420", "458", "502", "503", "532"]
    {
        // A refund is not due.
        let invoice = valid(cii(EN16931, code, &lines, TAX, TOTALS));
        assert_eq!((invoice.kind(), invoice.type_code.as_str()), (InvoiceKind::CreditNote, code));
        let ubl = UBL.replace("InvoiceTypeCode>380<", &format!("InvoiceTypeCode>{code}<"));
        assert_eq!(read(ubl).unwrap().invoice.unwrap().kind(), InvoiceKind::CreditNote, "{code}");
    }
    for code in ["380", "384", "389", "326", "751", "875"] {
        let result = read(cii(EN16931, code, &lines, TAX, TOTALS)).unwrap();
        assert_eq!(rules_of(&result), ["BR-CO-25"], "{code}");
        assert_eq!(result.invoice.unwrap().kind(), InvoiceKind::Invoice, "{code}");
    }
}

#[test]
fn the_vat_of_a_document_in_two_currencies_is_in_its_own_currency() {
    let (head, rest) = UBL.split_once("<cac:TaxTotal>").unwrap();
    let (_, rest) = rest.rsplit_once("</cac:TaxTotal>").unwrap();
    let total = |currency: &str, amounts: [&str; 2], of: [&str; 2]| {
        let subtotal = |rate: &str, [base, tax]: [&str; 2]| {
            format!(
                "<cac:TaxSubtotal><cbc:TaxableAmount \
                 currencyID=\"{currency}\">{base}</cbc:TaxableAmount>\
                 <cbc:TaxAmount currencyID=\"{currency}\">{tax}</cbc:TaxAmount><cac:TaxCategory>\
                 <cbc:ID>S</cbc:ID>\
                 <cbc:Percent>{rate}</cbc:Percent><cac:TaxScheme><cbc:ID>VAT</cbc:ID>\
                 </cac:TaxScheme>\
                 </cac:TaxCategory></cac:TaxSubtotal>"
            )
        };
        format!(
            "<cac:TaxTotal><cbc:TaxAmount currencyID=\"{currency}\">{}</cbc:TaxAmount>{}{}</cac:TaxTotal>",
            of[0],
            subtotal("19", amounts),
            of[1]
        )
    };
    let own = total(
        "USD",
        ["937.50", "178.13"],
        [
            "180.72",
            "<cac:TaxSubtotal><cbc:TaxableAmount currencyID=\"USD\">37.04</cbc:TaxableAmount>\
             <cbc:TaxAmount currencyID=\"USD\">2.59</cbc:TaxAmount><cac:TaxCategory>\
             <cbc:ID>S</cbc:ID><cbc:Percent>7</cbc:Percent><cac:TaxScheme><cbc:ID>VAT</cbc:ID>\
             </cac:TaxScheme></cac:TaxCategory></cac:TaxSubtotal>",
        ],
    );
    let other = total("EUR", ["800.00", "152.00"], ["160.00", ""]);
    for totals in [format!("{own}{other}"), format!("{other}{own}")] {
        let invoice = valid(format!("{head}{totals}{rest}"));
        let sums = invoice.totals.unwrap();
        assert_eq!(sums.tax_amount.as_deref(), Some("180.72"));
        assert_eq!(sums.tax_amount_in_tax_currency.as_deref(), Some("160.00"));
        assert_eq!(invoice.taxes.len(), 2);
    }
}

#[test]
fn prices_and_quantities_preserve_their_precision() {
    let settlement = format!("{TAX}{DUE}");
    let of = |quantity, price| {
        cii(EN16931, "380", &line(["1", "", quantity, price, "100.00"]), &settlement, TOTALS)
    };
    for (quantity, price, read_as) in [
        ("3", "33.33333333333", ["3", "33.33333333333"]),
        ("3", "33.333333333333333333", ["3", "33.333333333333333333"]),
        ("2.00000000000", "50.00", ["2", "50.00"]),
        ("2.000000000000000000000", "50.0000", ["2", "50.0000"]),
    ] {
        let line = valid(of(quantity, price)).lines.remove(0);
        assert_eq!([line.quantity.unwrap(), line.price.unwrap()], read_as);
    }
    assert_eq!(rules_of(&read(of("1", "100.0000000000000000001")).unwrap()), ["FORMAT", "BR-26"]);
}

#[test]
fn documents_in_other_encodings_give_the_same_invoice() {
    let invoice = |encoding: &str, seller: &str| {
        CII.replace("'utf-8'", &format!("'{encoding}'")).replacen("Fiscal N.V.", seller, 1)
    };
    let representative = |bytes: Vec<u8>| valid(bytes).tax_representative.unwrap().name;
    let one_byte = |text: &str, euro: u8| -> Vec<u8> {
        text.chars().map(|char| u8::try_from(char).unwrap_or(euro)).collect()
    };
    assert_eq!(representative(invoice("utf8", "Müller").into_bytes()), "Müller");
    assert_eq!(representative(one_byte(&invoice("ISO-8859-1", "Müller"), b'?')), "Müller");
    assert_eq!(representative(one_byte(&invoice("Windows-1252", "Müller €"), 0x80)), "Müller €");
    assert_eq!(representative(one_byte(&invoice("ISO-8859-15", "Müller €"), 0xa4)), "Müller €");
    let wide = invoice("UTF-16", "Müller €");
    let little: Vec<u8> = wide.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let big: Vec<u8> = wide.encode_utf16().flat_map(u16::to_be_bytes).collect();
    for bytes in [
        little.clone(),
        [b"\xff\xfe".to_vec(), little].concat(),
        big.clone(),
        [b"\xfe\xff".to_vec(), big].concat(),
    ] {
        assert_eq!(representative(bytes), "Müller €");
    }
}

#[test]
fn the_invoice_in_an_envelope_is_read() {
    let envelope = |contents: &str| {
        format!(
            "<?xml version=\"1.0\"?><StandardBusinessDocument \
             xmlns=\"http://www.unece.org/cefact/namespaces/StandardBusinessDocumentHeader\">\
             <StandardBusinessDocumentHeader><HeaderVersion>1.0</HeaderVersion>\
             </StandardBusinessDocumentHeader>\
             {contents}</StandardBusinessDocument>"
        )
    };
    let bare = |sample: &str| sample.split_once("?>").unwrap().1.to_owned();
    for sample in [UBL, CII] {
        assert_eq!(read(envelope(&bare(sample))).unwrap(), read(sample).unwrap());
    }
    for (contents, why) in [
        (bare(UBL).repeat(2), "several invoices"),
        (String::new(), "without an invoice"),
        ("<a xmlns='urn:a'/>".to_owned(), "without an invoice"),
    ] {
        let error = read(envelope(&contents)).unwrap_err().to_string();
        assert!(error.contains("envelope (SBDH)") && error.contains(why), "{error}");
    }
}

#[test]
fn a_profile_without_lines_causes_only_the_profile_warning() {
    let minimum = TOTALS.replacen("<ram:LineTotalAmount>100.00</ram:LineTotalAmount>", "", 1);
    let booked = |specification: &str, settlement: &str, totals: &str| {
        let result = read(cii(specification, "380", "", settlement, totals)).unwrap();
        let found: Vec<_> = result
            .findings
            .iter()
            .map(|found| (found.rule.clone(), found.severity(), found.message.clone()))
            .collect();
        found
    };
    for (specification, settlement, totals, name) in [
        ("urn:factur-x.eu:1p0:minimum", "", minimum.as_str(), "MINIMUM"),
        ("urn:zugferd.de:2p0:minimum", "", &minimum, "MINIMUM"),
        ("urn:factur-x.eu:1p0:basicwl", TAX, TOTALS, "BASIC WL"),
    ] {
        let found = booked(specification, settlement, totals);
        let [(rule, Severity::Warning, message)] = found.as_slice() else { panic!("{found:?}") };
        assert!(rule == "PROFILE" && message.contains(name), "{message}");
        // The parts that such a profile has are checked.
        let wrong = totals.replace("<ram:GrandTotalAmount>119.00</ram:GrandTotalAmount>", "");
        let rules_of: Vec<_> =
            booked(specification, settlement, &wrong).into_iter().map(|found| found.0).collect();
        assert_eq!(rules_of, ["PROFILE", "BR-14"], "{specification}");
    }
    let wrong = TOTALS.replace(">19.00<", ">19.01<");
    let rules_of: Vec<_> = booked("urn:factur-x.eu:1p0:basicwl", TAX, &wrong)
        .into_iter()
        .map(|found| found.0)
        .collect();
    assert_eq!(rules_of, ["PROFILE", "BR-CO-14", "BR-CO-15"]);
}
