//! The totals add up: to the cent, and in an extension to a cent for each part of a sum.

use drawbridge_proto::invoices::v1::{Invoice, Syntax};
use rust_decimal::Decimal;

use super::{is_summed, of_kind, round, sum, tolerance};
use crate::{decimal, findings::Findings};

pub(super) fn check(invoice: &Invoice, findings: &mut Findings) {
    let totals = invoice.totals.clone().unwrap_or_default();
    let [lines, allowances, charges, net, tax, gross, prepaid, rounding, payable] = [
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
    .map(|amount| decimal::of(amount.as_ref()));
    let or_zero = |amount: Option<Decimal>| amount.unwrap_or_default();
    let total =
        |charge| sum(of_kind(&invoice.allowances_charges, charge).map(|(_, item)| &item.amount));
    let profile = findings.profile;
    let mut equal = |rule, field, said: Option<Decimal>, expected: Option<Decimal>, parts, of| {
        if let (Some(said), Some(expected)) = (said, expected)
            && (round(said) - round(expected)).abs() > tolerance(parts, profile)
        {
            findings.error(rule, field, || format!("{said} is said; {of} make {expected}"));
        }
    };
    let summed = || invoice.lines.iter().filter(|line| is_summed(line, profile));
    let of_lines = Some(sum(summed().map(|line| &line.net_amount)));
    let all = summed().count() + invoice.allowances_charges.len();
    equal("BR-CO-10", "totals.line_net_amount", lines, of_lines, summed().count(), "the lines");
    let mut missing = Vec::new();
    for (rule, field, charge, said, what) in [
        ("BR-CO-11", "totals.allowance_amount", false, allowances, "the allowances"),
        ("BR-CO-12", "totals.charge_amount", true, charges, "the charges"),
    ] {
        let parts = of_kind(&invoice.allowances_charges, charge).count();
        match said {
            Some(said) => equal(rule, field, Some(said), Some(total(charge)), parts, what),
            // Nothing said means that there are none.
            None if parts > 0 => missing.push((rule, field, what, total(charge))),
            None => {}
        }
    }
    let expected = lines.map(|lines| lines - or_zero(allowances) + or_zero(charges));
    equal("BR-CO-13", "totals.net_amount", net, expected, all, "lines, allowances and charges");
    let of_taxes = sum(invoice.taxes.iter().map(|tax| &tax.tax_amount));
    let of_taxes =
        Some(of_taxes).filter(|_| !invoice.taxes.is_empty() || invoice.syntax() == Syntax::Cii);
    equal("BR-CO-14", "totals.tax_amount", tax, of_taxes, 0, "the VAT categories");
    let expected = net.map(|net| net + or_zero(tax));
    equal("BR-CO-15", "totals.gross_amount", gross, expected, all, "net amount and VAT");
    let expected = gross.map(|gross| gross - or_zero(prepaid) + or_zero(rounding));
    equal(
        "BR-CO-16",
        "totals.payable_amount",
        payable,
        expected,
        0,
        "gross, prepaid and rounding amount",
    );
    for (rule, field, what, sum) in missing {
        findings.error(rule, field, || format!("nothing is said; {what} make {sum}"));
    }
}
