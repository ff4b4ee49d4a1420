use super::{
    CII, UBL,
    field::{DUE, EN16931, TAX, TOTALS, cii, line},
    read,
};

/// Checks which rules a sample violates after replacing a text.
#[track_caller]
fn check(sample: &str, from: &str, to: &str, rules: &[&str]) {
    assert!(sample.contains(from), "the sample does not contain {from}");
    let result = read(sample.replacen(from, to, 1)).unwrap();
    let found: Vec<_> = result.findings.iter().map(|finding| finding.rule.as_str()).collect();
    assert_eq!(found, rules, "{from} -> {to}: {:#?}", result.findings);
}

#[test]
fn the_samples_violate_no_rule() {
    check(UBL, "Bolts", "Bolts", &[]);
    check(CII, "Pump", "Pump", &[]);
}

#[test]
fn a_missing_value_is_found() {
    check(
        UBL,
        "<cbc:CustomizationID>urn:cen.eu:en16931:2017</cbc:CustomizationID>",
        "",
        &["BR-01"],
    );
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
    check(
        UBL,
        "<cbc:AllowanceChargeReason>Dented boxes</cbc:AllowanceChargeReason>",
        "",
        &["BR-42"],
    );
    check(CII, "<ram:ReasonCode>FC</ram:ReasonCode>", "", &["BR-44"]);
    check(UBL, "<cbc:ID>DE00000000000000000000</cbc:ID>", "", &["BR-61"]);
    check(UBL, "currencyID=\"EUR\"", "currencyID=\"CHF\"", &["BR-53"]);
    check(CII, "<ram:ExemptionReason>Education</ram:ExemptionReason>", "", &["BR-E-10"]);
    check(UBL, "<cbc:Percent>7</cbc:Percent>", "", &["BR-48", "BR-CO-17", "BR-S-09"]);
    let timeless = UBL.replace("<cbc:DueDate>2026-04-30+02:00</cbc:DueDate>", "");
    check(&timeless, "<cbc:Note>30 days net</cbc:Note>", "", &["BR-CO-25"]);
}

#[test]
fn a_total_with_a_difference_of_one_cent_is_found() {
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
fn vat_beyond_the_tolerance_of_base_times_rate_is_found() {
    let tax = |to: &'static str| (">178.13<", to);
    let (from, to) = tax(">179.13<");
    check(UBL, from, to, &["BR-CO-14"]);
    let (from, to) = tax(">179.14<");
    check(UBL, from, to, &["BR-CO-14", "BR-CO-17", "BR-S-09"]);
    check(UBL, ">937.50<", ">938.51<", &["BR-S-08"]);
    check(
        CII,
        "<ram:CalculatedAmount>0<",
        "<ram:CalculatedAmount>0.01<",
        &["BR-CO-14", "BR-AE-09"],
    );
    check(CII, "<ram:BasisAmount>120.00<", "<ram:BasisAmount>120.01<", &["BR-E-08"]);
    check(CII, "<ram:CategoryCode>E<", "<ram:CategoryCode>Z<", &["BR-Z-01", "BR-E-08"]);
    check(
        UBL,
        "<cbc:ID>S</cbc:ID><cbc:Percent>7<",
        "<cbc:ID>X</cbc:ID><cbc:Percent>7<",
        &["BR-CL-17"],
    );
}

#[test]
fn a_line_amount_other_than_quantity_times_price_is_a_warning() {
    check(UBL, ">12.3456<", ">12.3656<", &["PEPPOL-EN16931-R120"]);
    check(UBL, ">12.3456<", ">12.3523<", &[]);
    check(UBL, ">4.20<", ">-4.20<", &["BR-27", "PEPPOL-EN16931-R120"]);
    // The largest decimals, and a division by almost zero.
    check(UBL, ">4.20<", ">99999999999999.99<", &["PEPPOL-EN16931-R120"]);
    check(UBL, "unitCode=\"H87\">100<", "unitCode=\"H87\">0<", &["PEPPOL-EN16931-R120"]);
    let large = UBL.replace(">4.20<", ">99999999999999<").replace(">250<", ">-79228162514264<");
    check(&large, "unitCode=\"H87\">100<", "unitCode=\"H87\">0.1<", &["PEPPOL-EN16931-R120"]);
}

#[test]
fn an_invalid_value_is_omitted_and_found() {
    check(UBL, ">2026-03-15<", ">2026-02-30<", &["FORMAT"]);
    check(UBL, ">2026-03-15<", ">15.03.2026<", &["FORMAT"]);
    check(CII, "format=\"102\">20260210<", "format=\"203\">202602100000<", &["FORMAT"]);
    check(UBL, ">1000.00<", ">1.000,00<", &["FORMAT"]);
    check(UBL, ">-0.01<", ">1e-2<", &["FORMAT", "BR-CO-16"]);
    check(UBL, "<cbc:EndDate>2026-03-31<", "<cbc:EndDate>2026-02-28<", &["BR-29"]);
    let result = read(UBL.replace(">2026-03-15<", ">soon<")).unwrap();
    assert_eq!(result.invoice.unwrap().delivery_date, None);
    assert_eq!(result.findings[0].field, "delivery_date");
    assert_eq!(result.findings[0].message, "`soon` is not a valid date");
}

#[test]
fn findings_are_bounded() {
    let line =
        "<cac:InvoiceLine><cbc:LineExtensionAmount>x</cbc:LineExtensionAmount></cac:InvoiceLine>";
    let result =
        read(UBL.replace("</Invoice>", &format!("{}</Invoice>", line.repeat(300)))).unwrap();
    assert_eq!((result.findings.len(), result.findings_truncated), (200, true));
}

/// An invoice over 100.00 in one category, with this rate and this VAT.
fn of_category(category: &str, rate: &str, vat: &str) -> String {
    let tax = TAX.replace(">19.00<", &format!(">{vat}<"));
    let due = if vat == "19.00" { "119.00" } else { "100.00" };
    let totals =
        TOTALS.replace(">19.00<", &format!(">{vat}<")).replace(">119.00<", &format!(">{due}<"));
    let document = cii(
        EN16931,
        "380",
        &line(["1", "", "1", "100.00", "100.00"]),
        &format!("{tax}{DUE}"),
        &totals,
    );
    let element = |rate| format!("<ram:RateApplicablePercent>{rate}</ram:RateApplicablePercent>");
    let rate = if rate.is_empty() { String::new() } else { element(rate) };
    document
        .replace("CategoryCode>S<", &format!("CategoryCode>{category}<"))
        .replace(&element("19"), &rate)
}

#[test]
fn each_vat_category_requires_its_rate_and_registrations() {
    let unregistered = |document: &str| {
        let (start, end) = ("<ram:SpecifiedTaxRegistration>", "</ram:SpecifiedTaxRegistration>");
        let mut document = document.to_owned();
        while let (Some(from), Some(to)) = (document.find(start), document.find(end)) {
            document.replace_range(from..to + end.len(), "");
        }
        document.replace("Seller Ltd</ram:Name>", "Seller Ltd</ram:Name><ram:ID>7</ram:ID>")
    };
    let found = |document: String| -> Vec<String> {
        read(document).unwrap().findings.into_iter().map(|finding| finding.rule).collect()
    };
    for (category, rate, vat, rules, rules_unregistered) in [
        ("S", "19", "19.00", &[][..], &["BR-S-02"][..]),
        ("S", "0", "0.00", &["BR-S-05"], &["BR-S-02", "BR-S-05"]),
        ("Z", "0", "0.00", &[], &["BR-Z-02"]),
        ("Z", "", "0.00", &["BR-48", "BR-Z-05"], &["BR-48", "BR-Z-02", "BR-Z-05"]),
        ("E", "0", "0.00", &["BR-E-10"], &["BR-E-10", "BR-E-02"]),
        ("AE", "0", "0.00", &["BR-AE-10"], &["BR-AE-10", "BR-AE-02"]),
        ("K", "0", "0.00", &["BR-IC-10", "BR-IC-11"], &["BR-IC-10", "BR-IC-02", "BR-IC-11"]),
        ("G", "0", "0.00", &["BR-G-10"], &["BR-G-10", "BR-G-02"]),
        ("O", "", "0.00", &["BR-O-10", "BR-O-02"], &["BR-O-10"]),
        ("O", "0", "0.00", &["BR-O-10", "BR-O-02", "BR-O-05"], &["BR-O-10", "BR-O-05"]),
        ("L", "0", "0.00", &[], &["BR-AF-02"]),
        ("B", "19", "19.00", &["BR-B-01"], &["BR-B-01"]),
    ] {
        let document = of_category(category, rate, vat);
        assert_eq!(found(unregistered(&document)), rules_unregistered, "{category} unregistered");
        assert_eq!(found(document), rules, "{category}");
    }
    let mixed = of_category("O", "", "0.00").replacen("CategoryCode>O<", "CategoryCode>S<", 1);
    assert!(found(mixed).contains(&"BR-O-12".to_owned()));
    let reason = |category, rate, vat| {
        let reason = "<ram:ExemptionReason>none</ram:ExemptionReason><ram:BasisAmount>";
        found(of_category(category, rate, vat).replace("<ram:BasisAmount>", reason))
    };
    assert_eq!(reason("S", "19", "19.00"), ["BR-S-10"]);
    assert_eq!(reason("Z", "0", "0.00"), ["BR-Z-10"]);
    assert_eq!(reason("E", "0", "0.00"), [""; 0]);
}

#[test]
fn amounts_have_two_decimals() {
    for (from, to, rules) in [
        (">999.54<", ">999.540<", &["BR-DEC-09"][..]),
        (">974.54<", ">974.540<", &["BR-DEC-12"]),
        (">178.13<", ">178.130<", &["BR-DEC-20"]),
        (">937.50<", ">937.500<", &["BR-DEC-19"]),
        (">1000.25<", ">1000.250<", &["BR-DEC-18"]),
        (">12.3456<", ">12.34560<", &[]),
    ] {
        check(UBL, from, to, rules);
    }
}
