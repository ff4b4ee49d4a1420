//! Checks that amounts have at most two decimals.

use drawbridge_proto::invoices::v1::{AllowanceCharge, Invoice};

use crate::{decimal, findings::Findings};

/// The maximum digits after the point of an amount.
const DIGITS_MAX: u32 = 2;

pub(super) fn check(invoice: &Invoice, findings: &mut Findings) {
    let mut amount = |rule: &str, field: String, amount: &Option<String>| {
        if let Some(value) =
            decimal::parse_option(amount.as_ref()).filter(|value| value.scale() > DIGITS_MAX)
        {
            findings.error(rule, &field, || format!("{value} has more than {DIGITS_MAX} decimals"));
        }
    };
    let mut items = |all: &[AllowanceCharge], prefix: &str, rules: [[&str; 2]; 2]| {
        for (index, item) in all.iter().enumerate() {
            let [amount_rule, base_rule] = rules[usize::from(item.charge)];
            amount(
                amount_rule,
                format!("{prefix}allowances_charges[{index}].amount"),
                &item.amount,
            );
            amount(
                base_rule,
                format!("{prefix}allowances_charges[{index}].base_amount"),
                &item.base_amount,
            );
        }
    };
    items(
        &invoice.allowances_charges,
        "",
        [["BR-DEC-01", "BR-DEC-02"], ["BR-DEC-05", "BR-DEC-06"]],
    );
    for (index, line) in invoice.lines.iter().enumerate() {
        let rules = [["BR-DEC-24", "BR-DEC-25"], ["BR-DEC-27", "BR-DEC-28"]];
        items(&line.allowances_charges, &format!("lines[{index}]."), rules);
    }
    for (index, line) in invoice.lines.iter().enumerate() {
        amount("BR-DEC-23", format!("lines[{index}].net_amount"), &line.net_amount);
    }
    let totals = invoice.totals.clone().unwrap_or_default();
    for (rule, field, value) in [
        ("BR-DEC-09", "line_net_amount", &totals.line_net_amount),
        ("BR-DEC-10", "allowance_amount", &totals.allowance_amount),
        ("BR-DEC-11", "charge_amount", &totals.charge_amount),
        ("BR-DEC-12", "net_amount", &totals.net_amount),
        ("BR-DEC-13", "tax_amount", &totals.tax_amount),
        ("BR-DEC-14", "gross_amount", &totals.gross_amount),
        ("BR-DEC-15", "tax_amount_in_tax_currency", &totals.tax_amount_in_tax_currency),
        ("BR-DEC-16", "prepaid_amount", &totals.prepaid_amount),
        ("BR-DEC-17", "rounding_amount", &totals.rounding_amount),
        ("BR-DEC-18", "payable_amount", &totals.payable_amount),
    ] {
        amount(rule, format!("totals.{field}"), value);
    }
    for (index, tax) in invoice.taxes.iter().enumerate() {
        amount("BR-DEC-19", format!("taxes[{index}].taxable_amount"), &tax.taxable_amount);
        amount("BR-DEC-20", format!("taxes[{index}].tax_amount"), &tax.tax_amount);
    }
}
