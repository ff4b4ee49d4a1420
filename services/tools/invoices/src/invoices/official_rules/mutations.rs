//! Mutations of documents: one change each, which may violate a rule.

use std::collections::BTreeSet;

use regex::Regex;
use rust_decimal::Decimal;

/// Elements of UBL to remove.
const UBL_PARTS: &str = "CustomizationID ID IssueDate InvoiceTypeCode CreditNoteTypeCode \
    DocumentCurrencyCode TaxCurrencyCode RegistrationName PostalAddress IdentificationCode \
    LineExtensionAmount TaxExclusiveAmount TaxInclusiveAmount PayableAmount PartyTaxScheme \
    CompanyID TaxTotal TaxSubtotal TaxableAmount TaxAmount Percent TaxExemptionReason \
    TaxExemptionReasonCode PaymentMeansCode PayeeFinancialAccount AllowanceChargeReason \
    AllowanceChargeReasonCode AllowanceCharge Amount DueDate PaymentTerms InvoiceLine \
    InvoicedQuantity Name PriceAmount ClassifiedTaxCategory TaxCategory AllowanceTotalAmount \
    ChargeTotalAmount PrepaidAmount PayableRoundingAmount PayeeParty TaxRepresentativeParty \
    PartyName PartyIdentification InvoicePeriod Note Contact";
/// Elements of CII to remove.
const CII_PARTS: &str = "GuidelineSpecifiedDocumentContextParameter ID IssueDateTime TypeCode \
    InvoiceCurrencyCode TaxCurrencyCode Name PostalTradeAddress CountryID LineTotalAmount \
    TaxBasisTotalAmount TaxTotalAmount GrandTotalAmount DuePayableAmount SpecifiedTaxRegistration \
    SpecifiedLegalOrganization ApplicableTradeTax CalculatedAmount BasisAmount CategoryCode \
    RateApplicablePercent ExemptionReason ExemptionReasonCode PayeePartyCreditorFinancialAccount \
    Reason ReasonCode SpecifiedTradeAllowanceCharge ActualAmount SpecifiedTradePaymentTerms \
    DueDateDateTime BilledQuantity IncludedSupplyChainTradeLineItem LineID ChargeAmount \
    AllowanceTotalAmount ChargeTotalAmount TotalPrepaidAmount RoundingAmount PayeeTradeParty \
    SellerTaxRepresentativeTradeParty GlobalID IncludedNote DefinedTradeContact";
/// Elements with amounts to change.
const AMOUNTS: &str = "LineExtensionAmount TaxExclusiveAmount TaxInclusiveAmount PayableAmount \
    TaxableAmount TaxAmount Amount AllowanceTotalAmount ChargeTotalAmount PrepaidAmount \
    PayableRoundingAmount PriceAmount LineTotalAmount TaxBasisTotalAmount TaxTotalAmount \
    GrandTotalAmount DuePayableAmount CalculatedAmount BasisAmount ActualAmount TotalPrepaidAmount \
    RoundingAmount ChargeAmount";
/// Replacements of an element's text.
const TEXTS: [(&str, &[&str]); 11] = [
    ("Percent", &["0", "7", "25.00"]),
    ("RateApplicablePercent", &["0", "7", "25.00"]),
    ("InvoiceTypeCode", &["384", "389", "326"]),
    ("CreditNoteTypeCode", &["396", "532", "261"]),
    ("PriceAmount", &["-1", "33.33333333333"]),
    ("ChargeAmount", &["-1", "33.33333333333"]),
    ("PaymentMeansCode", &["30", "58", "10"]),
    ("EndDate", &["1999-01-01"]),
    ("Name", &["Another name"]),
    ("Note", &["Another note"]),
    ("Description", &["Another description"]),
];
/// VAT categories.
const CATEGORIES: [&str; 10] = ["S", "Z", "E", "AE", "K", "G", "O", "L", "M", "B"];

/// All mutations of one document, by name.
pub(super) fn of_document(name: &str, document: &str) -> Vec<(String, String)> {
    let mut mutations = Vec::new();
    let mut add = |how: &str, text: String| {
        if text != document {
            mutations.push((format!("{name}.{}.{how}", mutations.len()), text));
        }
    };
    let is_cii = document.contains("CrossIndustryInvoice");
    for part in (if is_cii { CII_PARTS } else { UBL_PARTS }).split_whitespace() {
        for (place, range) in elements(document, part) {
            add(&format!("no-{part}-{place}"), replaced(document, range, ""));
        }
    }
    for part in AMOUNTS.split_whitespace() {
        for (place, range) in texts(document, part) {
            let Ok(amount) = document[range.clone()].trim().parse::<Decimal>() else { continue };
            for more in [Decimal::new(1, 2), Decimal::new(101, 2)] {
                let text = (amount + more).to_string();
                add(
                    &format!("{part}-{place}-plus-{more}"),
                    replaced(document, range.clone(), &text),
                );
            }
            let zeros =
                if amount.scale() == 0 { format!("{amount}.00") } else { format!("{amount}0") };
            add(&format!("{part}-{place}-zeros"), replaced(document, range, &zeros));
        }
    }
    for (part, values) in TEXTS {
        for (place, range) in texts(document, part) {
            for value in values {
                add(
                    &format!("{part}-{place}-{value}").replace(' ', "-"),
                    replaced(document, range.clone(), value),
                );
            }
        }
    }
    let categories: &[&str] =
        if is_cii { &["CategoryCode"] } else { &["ClassifiedTaxCategory", "TaxCategory"] };
    for part in categories {
        for (place, range) in texts(document, part) {
            // In UBL the code is the first identifier of its category.
            let range = if is_cii {
                range
            } else {
                let Some((_, inner)) = texts(&document[range.clone()], "ID").into_iter().next()
                else {
                    continue;
                };
                range.start + inner.start..range.start + inner.end
            };
            for category in CATEGORIES {
                add(
                    &format!("{part}-{place}-{category}"),
                    replaced(document, range.clone(), category),
                );
            }
        }
    }
    let unit = Regex::new(" unitCode=\"[^\"]*\"").unwrap();
    add("no-unit", unit.replace(document, "").into_owned());
    mutations
}

fn replaced(document: &str, range: std::ops::Range<usize>, by: &str) -> String {
    format!("{}{by}{}", &document[..range.start], &document[range.end..])
}

/// The first and last elements with this name, with their indexes.
fn elements(document: &str, name: &str) -> Vec<(usize, std::ops::Range<usize>)> {
    let pattern = format!(r"(?s)<(?:\w+:)?{name}(?:\s[^>]*[^>/])?>.*?</(?:\w+:)?{name}>");
    let found: Vec<_> =
        Regex::new(&pattern).unwrap().find_iter(document).map(|found| found.range()).collect();
    let places: BTreeSet<_> = [0, found.len().saturating_sub(1)].into();
    places.into_iter().filter_map(|place| Some((place, found.get(place)?.clone()))).collect()
}

/// Their texts.
fn texts(document: &str, name: &str) -> Vec<(usize, std::ops::Range<usize>)> {
    let inner = |(place, range): (usize, std::ops::Range<usize>)| {
        let element = &document[range.clone()];
        let (start, end) = (element.find('>').unwrap() + 1, element.rfind('<').unwrap());
        (place, range.start + start..range.start + end)
    };
    elements(document, name).into_iter().map(inner).collect()
}
