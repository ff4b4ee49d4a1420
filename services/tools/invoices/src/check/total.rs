//! Checks that the totals add up: to the cent, or in an extension to one cent per part.

use drawbridge_proto::invoices::v1::{Invoice, Syntax};
use rust_decimal::Decimal;

use super::{allowances_or_charges, is_summed, round, sum_amounts, tolerance};
use crate::{decimal, findings::Findings};

pub(super) fn check(invoice: &Invoice, findings: &mut Findings) {
    let [lines, allowances, charges, net, tax, gross, prepaid, rounding, payable] =
        amounts(invoice);
    let or_zero = |amount: Option<Decimal>| amount.unwrap_or_default();
    let total = |charge| {
        sum_amounts(
            allowances_or_charges(&invoice.allowances_charges, charge)
                .map(|(_, item)| &item.amount),
        )
    };
    let profile = findings.profile;
    let mut check_equal = |rule, field, actual, expected, parts, parts_name| {
        equal(findings, (rule, field), (actual, expected), (parts, parts_name));
    };
    let summed = || invoice.lines.iter().filter(|line| is_summed(line, profile));
    let line_sum = Some(sum_amounts(summed().map(|line| &line.net_amount)));
    let all = summed().count() + invoice.allowances_charges.len();
    check_equal(
        "BR-CO-10",
        "totals.line_net_amount",
        lines,
        line_sum,
        summed().count(),
        "the lines",
    );
    let mut missing = Vec::new();
    for (rule, field, charge, actual, what) in [
        ("BR-CO-11", "totals.allowance_amount", false, allowances, "the allowances"),
        ("BR-CO-12", "totals.charge_amount", true, charges, "the charges"),
    ] {
        let parts = allowances_or_charges(&invoice.allowances_charges, charge).count();
        match actual {
            Some(actual) => {
                check_equal(rule, field, Some(actual), Some(total(charge)), parts, what);
            }
            // An absent total means zero.
            None if parts > 0 => missing.push((rule, field, what, total(charge))),
            None => {}
        }
    }
    let expected = lines.map(|lines| lines - or_zero(allowances) + or_zero(charges));
    check_equal(
        "BR-CO-13",
        "totals.net_amount",
        net,
        expected,
        all,
        "lines, allowances and charges",
    );
    let tax_sum = sum_amounts(invoice.taxes.iter().map(|tax| &tax.tax_amount));
    let tax_sum =
        Some(tax_sum).filter(|_| !invoice.taxes.is_empty() || invoice.syntax() == Syntax::Cii);
    check_equal("BR-CO-14", "totals.tax_amount", tax, tax_sum, 0, "the VAT categories");
    let expected = net.map(|net| net + or_zero(tax));
    check_equal("BR-CO-15", "totals.gross_amount", gross, expected, all, "net amount and VAT");
    let expected = gross.map(|gross| gross - or_zero(prepaid) + or_zero(rounding));
    check_equal(
        "BR-CO-16",
        "totals.payable_amount",
        payable,
        expected,
        0,
        "gross, prepaid and rounding amount",
    );
    for (rule, field, what, sum_amounts) in missing {
        findings
            .error(rule, field, || format!("no amount is given; {what} add up to {sum_amounts}"));
    }
}

/// The totals that the invoice states.
fn amounts(invoice: &Invoice) -> [Option<Decimal>; 9] {
    let totals = invoice.totals.clone().unwrap_or_default();
    [
        &totals.line_net_amount,
        &totals.allowance_amount,
        &totals.charge_amount,
        &totals.net_amount,
        &totals.tax_amount,
        &totals.gross_amount,
        &totals.prepaid_amount,
        &totals.rounding_amount,
        &totals.payable_amount,
    ]
    .map(|amount| decimal::parse_option(amount.as_ref()))
}

/// Checks that an amount is what its parts give.
fn equal(
    findings: &mut Findings,
    (rule, field): (&str, &str),
    (actual, expected): (Option<Decimal>, Option<Decimal>),
    (parts, parts_name): (usize, &str),
) {
    let tolerance = tolerance(parts, findings.profile);
    if let (Some(actual), Some(expected)) = (actual, expected)
        && (round(actual) - round(expected)).abs() > tolerance
    {
        findings
            .error(rule, field, || format!("the amount is {actual}; {parts_name} give {expected}"));
    }
}
