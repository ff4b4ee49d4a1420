//! The totals add up: to the cent, and in an extension to a cent for each part of a sum.

use drawbridge_proto::invoices::v1::Invoice;
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
    let total = |charge| sum(of_kind(&invoice.allowances_charges, charge).map(|(_, item)| &item.amount));
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
    // Nothing said is zero: then there must be none.
    let (said, of) = (Some(or_zero(allowances)), Some(total(false)));
    equal("BR-CO-11", "totals.allowance_amount", said, of, all, "the allowances");
    let (said, of) = (Some(or_zero(charges)), Some(total(true)));
    equal("BR-CO-12", "totals.charge_amount", said, of, all, "the charges");
    let expected = lines.map(|lines| lines - or_zero(allowances) + or_zero(charges));
    equal("BR-CO-13", "totals.net_amount", net, expected, all, "lines, allowances and charges");
    let of_taxes = Some(sum(invoice.taxes.iter().map(|tax| &tax.tax_amount)));
    equal("BR-CO-14", "totals.tax_amount", Some(or_zero(tax)), of_taxes, 0, "the VAT categories");
    let expected = net.map(|net| net + or_zero(tax));
    equal("BR-CO-15", "totals.gross_amount", gross, expected, all, "net amount and VAT");
    let expected = gross.map(|gross| gross - or_zero(prepaid) + or_zero(rounding));
    equal("BR-CO-16", "totals.payable_amount", payable, expected, 0, "gross, prepaid and rounding amount");
}
