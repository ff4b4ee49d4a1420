use super::{CII, UBL, read};

/// The rules that a sample breaks when one text in it is replaced by another.
#[track_caller]
fn check(sample: &str, from: &str, to: &str, rules: &[&str]) {
    assert!(sample.contains(from), "the sample does not hold {from}");
    let result = read(sample.replacen(from, to, 1)).unwrap();
    let found: Vec<_> = result.findings.iter().map(|finding| finding.rule.as_str()).collect();
    assert_eq!(found, rules, "{from} -> {to}: {:#?}", result.findings);
}

#[test]
fn the_samples_break_no_rule() {
    check(UBL, "Bolts", "Bolts", &[]);
    check(CII, "Pump", "Pump", &[]);
}

#[test]
fn what_is_missing_is_found() {
    check(UBL, "<cbc:CustomizationID>urn:cen.eu:en16931:2017</cbc:CustomizationID>", "", &["BR-01"]);
    check(CII, "<ram:ID>CN-7</ram:ID>", "<ram:ID> </ram:ID>", &["BR-02"]);
    check(UBL, "<cbc:IssueDate>2026-03-31</cbc:IssueDate>", "", &["BR-03"]);
    check(UBL, "<cbc:InvoiceTypeCode>380</cbc:InvoiceTypeCode>", "", &["BR-04"]);
    check(UBL, "<cbc:RegistrationName>Acme Inc.</cbc:RegistrationName>", "", &["BR-07"]);
    check(UBL, "<cbc:IdentificationCode>US</cbc:IdentificationCode>", "", &["BR-11"]);
    check(
        CII,
        "<ram:PostalTradeAddress><ram:CountryID>BE</ram:CountryID></ram:PostalTradeAddress>",
        "",
        &["BR-10", "BR-11"],
    );
    check(CII, "<ram:DuePayableAmount>625.00</ram:DuePayableAmount>", "", &["BR-15"]);
    check(CII, "<ram:Name>Fiscal N.V.</ram:Name>", "", &["BR-18"]);
    check(CII, "<ram:Name>Collector N.V.</ram:Name>", "", &["BR-17"]);
    check(CII, "<ram:LineID>2</ram:LineID>", "", &["BR-21"]);
    check(CII, " unitCode=\"HUR\"", "", &["BR-23"]);
    check(CII, "<ram:Name>Training</ram:Name>", "", &["BR-25"]);
    check(CII, "<ram:ChargeAmount>80.00</ram:ChargeAmount>", "", &["BR-26"]);
    check(CII, "<ram:Reason>Restocking</ram:Reason>", "", &["BR-33"]);
    check(UBL, "<cbc:AllowanceChargeReason>Freight</cbc:AllowanceChargeReason>", "", &["BR-38"]);
    check(UBL, "<cbc:AllowanceChargeReason>Dented boxes</cbc:AllowanceChargeReason>", "", &["BR-42"]);
    check(CII, "<ram:ReasonCode>FC</ram:ReasonCode>", "", &["BR-44"]);
    check(UBL, "<cbc:ID>DE00000000000000000000</cbc:ID>", "", &["BR-61"]);
    check(UBL, "currencyID=\"EUR\"", "currencyID=\"CHF\"", &["BR-53"]);
    check(CII, "<ram:ExemptionReason>Education</ram:ExemptionReason>", "", &["BR-E-10"]);
    check(UBL, "<cbc:Percent>7</cbc:Percent>", "", &["BR-48", "BR-CO-17", "BR-S-09", "BR-S-08"]);
    let timeless = UBL.replace("<cbc:DueDate>2026-04-30+02:00</cbc:DueDate>", "");
    check(&timeless, "<cbc:Note>30 days net</cbc:Note>", "", &["BR-CO-25"]);
}

#[test]
fn a_total_that_is_off_by_a_cent_is_found() {
    for (from, to, rules) in [
        (">999.54<", ">999.55<", &["BR-CO-10", "BR-CO-13"][..]),
        (
            "AllowanceTotalAmount currencyID=\"USD\">50.00",
            "AllowanceTotalAmount currencyID=\"USD\">50.01",
            &["BR-CO-11", "BR-CO-13"],
        ),
        (
            "ChargeTotalAmount currencyID=\"USD\">25.00",
            "ChargeTotalAmount currencyID=\"USD\">24.99",
            &["BR-CO-12", "BR-CO-13"],
        ),
        (">974.54<", ">974.53<", &["BR-CO-13", "BR-CO-15"]),
        (">180.72<", ">180.73<", &["BR-CO-14", "BR-CO-15"]),
        (">1155.26<", ">1155.27<", &["BR-CO-15", "BR-CO-16"]),
        (">1000.25<", ">1000.26<", &["BR-CO-16"]),
        (">-0.01<", ">0.01<", &["BR-CO-16"]),
    ] {
        check(UBL, from, to, rules);
    }
}

#[test]
fn vat_that_is_not_base_times_rate_is_found_beyond_its_tolerance() {
    let tax = |to: &'static str| (">178.13<", to);
    let (from, to) = tax(">179.13<");
    check(UBL, from, to, &["BR-CO-14"]);
    let (from, to) = tax(">179.14<");
    check(UBL, from, to, &["BR-CO-14", "BR-CO-17", "BR-S-09"]);
    check(UBL, ">937.50<", ">938.51<", &["BR-S-08"]);
    check(CII, "<ram:CalculatedAmount>0<", "<ram:CalculatedAmount>0.01<", &["BR-CO-14", "BR-AE-09"]);
    check(CII, "<ram:BasisAmount>120.00<", "<ram:BasisAmount>120.01<", &["BR-E-08"]);
    check(CII, "<ram:CategoryCode>E<", "<ram:CategoryCode>Z<", &["BR-Z-01", "BR-E-08"]);
    check(UBL, "<cbc:ID>S</cbc:ID><cbc:Percent>7<", "<cbc:ID>X</cbc:ID><cbc:Percent>7<", &["BR-CL-17"]);
}

#[test]
fn a_line_that_is_not_quantity_times_price_deserves_a_look() {
    check(UBL, ">12.3456<", ">12.3656<", &["PEPPOL-EN16931-R120"]);
    check(UBL, ">12.3456<", ">12.3523<", &[]);
    check(UBL, ">4.20<", ">-4.20<", &["BR-27", "PEPPOL-EN16931-R120"]);
    // Decimals that are as large as they may be, and a division by next to nothing.
    check(UBL, ">4.20<", ">99999999999999.99<", &["PEPPOL-EN16931-R120"]);
    check(UBL, "unitCode=\"H87\">100<", "unitCode=\"H87\">0<", &["PEPPOL-EN16931-R120"]);
    let large = UBL.replace(">4.20<", ">99999999999999<").replace(">250<", ">-79228162514264<");
    check(&large, "unitCode=\"H87\">100<", "unitCode=\"H87\">0.1<", &["PEPPOL-EN16931-R120"]);
}

#[test]
fn a_value_that_cannot_be_read_is_left_out_and_found() {
    check(UBL, ">2026-03-15<", ">2026-02-30<", &["FORMAT"]);
    check(UBL, ">2026-03-15<", ">15.03.2026<", &["FORMAT"]);
    check(CII, "format=\"102\">20260210<", "format=\"203\">202602100000<", &["FORMAT"]);
    check(UBL, ">1000.00<", ">1.000,00<", &["FORMAT"]);
    check(UBL, ">-0.01<", ">1e-2<", &["FORMAT", "BR-CO-16"]);
    check(UBL, "<cbc:EndDate>2026-03-31<", "<cbc:EndDate>2026-02-28<", &["BR-29"]);
    let result = read(UBL.replace(">2026-03-15<", ">soon<")).unwrap();
    assert_eq!(result.invoice.unwrap().delivery_date, None);
    assert_eq!(result.findings[0].field, "delivery_date");
    assert_eq!(result.findings[0].message, "`soon` is no date that can be read");
}

#[test]
fn findings_are_bounded() {
    let line = "<cac:InvoiceLine><cbc:LineExtensionAmount>x</cbc:LineExtensionAmount></cac:InvoiceLine>";
    let result = read(UBL.replace("</Invoice>", &format!("{}</Invoice>", line.repeat(300)))).unwrap();
    assert_eq!((result.findings.len(), result.findings_truncated), (200, true));
}
