//! Checks required values.

use drawbridge_proto::invoices::v1::{AllowanceCharge, Invoice, InvoiceKind, Party};
use rust_decimal::Decimal;

use crate::{decimal, findings::Findings};

pub(super) fn check(invoice: &Invoice, findings: &mut Findings) {
    let mut text = |rule, field, text: &str| findings.require(!text.is_empty(), rule, field, field);
    text("BR-01", "specification", &invoice.specification);
    text("BR-02", "number", &invoice.number);
    text("BR-03", "issue_date", invoice.issue_date.as_deref().unwrap_or_default());
    text("BR-04", "type_code", &invoice.type_code);
    text("BR-05", "currency", &invoice.currency);
    parties(invoice, findings);
    let totals = invoice.totals.clone().unwrap_or_default();
    for (rule, field, amount) in [
        ("BR-12", "totals.line_net_amount", &totals.line_net_amount),
        ("BR-13", "totals.net_amount", &totals.net_amount),
        ("BR-14", "totals.gross_amount", &totals.gross_amount),
        ("BR-15", "totals.payable_amount", &totals.payable_amount),
    ] {
        findings.require(amount.is_some(), rule, field, field);
    }
    findings.require(!invoice.lines.is_empty(), "BR-16", "lines", "a line");
    period(&invoice.period_start, &invoice.period_end, "BR-29", "period_end", findings);
    for (index, item) in invoice.allowances_charges.iter().enumerate() {
        let rules = if item.charge { ["BR-36", "BR-38"] } else { ["BR-31", "BR-33"] };
        let field = format!("allowances_charges[{index}]");
        allowance_charge(item, rules, &field, findings);
        let rule = if item.charge { "BR-37" } else { "BR-32" };
        let is_taxed = item.tax.as_ref().is_some_and(|tax| !tax.code.is_empty());
        findings.require(is_taxed, rule, &format!("{field}.tax.code"), "the VAT category");
    }
    for (index, means) in invoice.payment_means.iter().enumerate() {
        let field = |name: &str| format!("payment_means[{index}].{name}");
        findings.require(!means.code.is_empty(), "BR-49", &field("code"), "the code");
        if matches!(means.code.as_str(), "30" | "58") {
            findings.require(
                !means.account.is_empty(),
                "BR-61",
                &field("account"),
                "the account of a transfer",
            );
        }
    }
    if !invoice.tax_currency.is_empty() && invoice.tax_currency != invoice.currency {
        let present = totals.tax_amount_in_tax_currency.is_some();
        findings.require(
            present,
            "BR-53",
            "totals.tax_amount_in_tax_currency",
            "the VAT in that currency",
        );
    }
    let is_owed = decimal::parse_option(totals.payable_amount.as_ref()) > Some(Decimal::ZERO);
    if is_owed && invoice.kind() != InvoiceKind::CreditNote {
        let present = invoice.due_date.is_some() || !invoice.payment_terms.is_empty();
        findings.require(present, "BR-CO-25", "due_date", "the due date, or terms of payment,");
    }
}

fn parties(invoice: &Invoice, findings: &mut Findings) {
    let missing = Party::default();
    let seller = invoice.seller.as_ref().unwrap_or(&missing);
    let buyer = invoice.buyer.as_ref().unwrap_or(&missing);
    party(seller, ["BR-06", "BR-08", "BR-09"], "seller", findings);
    party(buyer, ["BR-07", "BR-10", "BR-11"], "buyer", findings);
    let is_identified = !seller.identifiers.is_empty()
        || seller.legal_registration.is_some()
        || !seller.vat_id.is_empty();
    findings.require(
        is_identified,
        "BR-CO-26",
        "seller",
        "an identifier, registration or VAT identifier",
    );
    if let Some(payee) = &invoice.payee {
        findings.require(!payee.name.is_empty(), "BR-17", "payee.name", "the name");
    }
    if let Some(representative) = &invoice.tax_representative {
        party(representative, ["BR-18", "BR-19", "BR-20"], "tax_representative", findings);
        let present = !representative.vat_id.is_empty();
        findings.require(present, "BR-56", "tax_representative.vat_id", "the VAT identifier");
    }
}

/// Checks name, address and country.
fn party(party: &Party, rules: [&str; 3], path: &str, findings: &mut Findings) {
    let address = party.address.as_ref();
    findings.require(!party.name.is_empty(), rules[0], &format!("{path}.name"), "the name");
    findings.require(address.is_some(), rules[1], &format!("{path}.address"), "the address");
    let has_country = address.is_some_and(|address| !address.country.is_empty());
    findings.require(has_country, rules[2], &format!("{path}.address.country"), "the country");
}

/// Checks amount and reason.
pub(super) fn allowance_charge(
    item: &AllowanceCharge,
    rules: [&str; 2],
    path: &str,
    findings: &mut Findings,
) {
    findings.require(item.amount.is_some(), rules[0], &format!("{path}.amount"), "the amount");
    let is_explained = !item.reason.is_empty() || !item.reason_code.is_empty();
    findings.require(is_explained, rules[1], &format!("{path}.reason"), "the reason");
}

/// Checks that a period does not end before it starts. ISO 8601 dates sort as text.
pub(super) fn period(
    start: &Option<String>,
    end: &Option<String>,
    rule: &str,
    field: &str,
    findings: &mut Findings,
) {
    if let (Some(start), Some(end)) = (start, end)
        && end < start
    {
        findings.error(rule, field, || format!("{end} is before the start, {start}"));
    }
}
