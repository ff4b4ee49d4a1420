//! Checks the VAT breakdown by category and rate.

use std::collections::HashMap;

use drawbridge_proto::invoices::v1::{Invoice, Syntax, TaxCategory, TaxSubtotal};
use rust_decimal::Decimal;

use super::{PRODUCT_TOLERANCE, is_summed, round, tolerance};
use crate::{decimal, findings::Findings, profile::Profile};

/// A category's code in UNTDID 5305, its name in rule ids, and its taxation.
pub(super) const CATEGORIES: [(&str, &str, Taxation); 10] = [
    ("S", "S", Taxation::AtRate),
    ("L", "AF", Taxation::AtRate),
    ("M", "AG", Taxation::AtRate),
    ("B", "B", Taxation::Split),
    ("Z", "Z", Taxation::Nothing),
    ("E", "E", Taxation::NothingBecause),
    ("AE", "AE", Taxation::NothingBecause),
    ("K", "IC", Taxation::NothingBecause),
    ("G", "G", Taxation::NothingBecause),
    ("O", "O", Taxation::NothingBecause),
];

/// The taxation of a category.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taxation {
    /// Each rate has its own subtotal.
    AtRate,
    /// Domestic split payment, without rules here.
    Split,
    Nothing,
    /// No tax, with a required reason.
    NothingBecause,
}

/// The taxable bases of lines, allowances and charges, by category, and by rate where taxed at a
/// rate.
type TaxableBases<'a> = HashMap<(&'a str, Option<Decimal>), TaxableBase>;

/// A sum, and its number of parts.
#[derive(Clone, Copy, Default)]
struct TaxableBase {
    amount: Decimal,
    parts: usize,
}

pub(super) fn check(invoice: &Invoice, findings: &mut Findings) {
    findings.require(!invoice.taxes.is_empty(), "BR-CO-18", "taxes", "the VAT breakdown");
    let bases = bases(invoice, findings.profile);
    for (code, name, taxes) in &CATEGORIES {
        let is_used = bases.keys().any(|(used, _)| used == code);
        let subtotals = invoice.taxes.iter().filter(|tax| category(tax).0 == *code).count();
        let is_right = match taxes {
            Taxation::Split => continue,
            Taxation::AtRate => !is_used || subtotals > 0,
            Taxation::Nothing | Taxation::NothingBecause => {
                subtotals <= 1 && (!is_used || subtotals == 1)
            }
        };
        if !is_right {
            findings.error(&format!("BR-{name}-01"), "taxes", || {
                let expected_count =
                    if *taxes == Taxation::AtRate { "one for each rate" } else { "one" };
                format!(
                    "the category {code} has {subtotals} subtotals; it must have {expected_count}"
                )
            });
        }
    }
    for (index, tax) in invoice.taxes.iter().enumerate() {
        subtotal(tax, &bases, invoice.syntax(), &format!("taxes[{index}]"), findings);
    }
}

fn bases(invoice: &Invoice, profile: Profile) -> TaxableBases<'_> {
    let lines = invoice.lines.iter().filter(|line| is_summed(line, profile));
    let lines = lines.map(|line| (&line.tax, &line.net_amount, false));
    let others =
        invoice.allowances_charges.iter().map(|item| (&item.tax, &item.amount, !item.charge));
    let mut bases = TaxableBases::new();
    for (tax, amount, negative) in lines.chain(others) {
        let Some(tax) = tax else { continue };
        let amount = decimal::parse_option(amount.as_ref()).unwrap_or_default();
        let base = bases.entry(base_key(tax)).or_default();
        base.amount += if negative { -amount } else { amount };
        base.parts += 1;
    }
    bases
}

/// The key by which amounts are summed: `25` and `25.00` are the same rate.
fn base_key(tax: &TaxCategory) -> (&str, Option<Decimal>) {
    let at_rate =
        CATEGORIES.iter().any(|(code, _, taxes)| *code == tax.code && *taxes == Taxation::AtRate);
    (
        &tax.code,
        decimal::parse_option(tax.percent.as_ref())
            .filter(|_| at_rate)
            .map(|rate| rate.normalize()),
    )
}

fn category(tax: &TaxSubtotal) -> (&str, Option<Decimal>) {
    tax.category
        .as_ref()
        .map(|category| (category.code.as_str(), decimal::parse_option(category.percent.as_ref())))
        .unwrap_or_default()
}

fn subtotal(
    tax: &TaxSubtotal,
    bases: &TaxableBases<'_>,
    syntax: Syntax,
    path: &str,
    findings: &mut Findings,
) {
    let field = |name: &str| format!("{path}.{name}");
    let (code, rate) = category(tax);
    let (base, amount) = (
        decimal::parse_option(tax.taxable_amount.as_ref()),
        decimal::parse_option(tax.tax_amount.as_ref()),
    );
    findings.require(base.is_some(), "BR-45", &field("taxable_amount"), "the taxable amount");
    findings.require(amount.is_some(), "BR-46", &field("tax_amount"), "the tax");
    findings.require(!code.is_empty(), "BR-47", &field("category.code"), "the category");
    findings.require(
        rate.is_some() || code == "O",
        "BR-48",
        &field("category.percent"),
        "the rate",
    );
    let known = CATEGORIES.iter().find(|(known, ..)| *known == code);
    let category = known.map(|(_, name, taxes)| (*name, *taxes));
    tax_amount(category, (base, rate, amount), &field("tax_amount"), findings);
    if known.is_none() && !code.is_empty() {
        findings
            .error("BR-CL-17", &field("category.code"), || format!("{code} is not a VAT category"));
    }
    let Some((name, taxes)) = category.filter(|(_, taxes)| *taxes != Taxation::Split) else {
        return;
    };
    let rule = |number: &str| format!("BR-{name}-{number}");
    let is_explained = !tax.exemption_reason.is_empty() || !tax.exemption_reason_code.is_empty();
    if taxes == Taxation::NothingBecause {
        findings.require(
            is_explained,
            &rule("10"),
            &field("exemption_reason"),
            "the reason for no VAT",
        );
    } else if is_explained {
        findings.error(&rule("10"), &field("exemption_reason"), || {
            format!("a reason for no VAT is given, which the category {code} must not have")
        });
    }
    // Without a rate, the matching amounts are unknown.
    if taxes == Taxation::AtRate && rate.is_none() {
        return;
    }
    let computed =
        tax.category.as_ref().and_then(|category| bases.get(&base_key(category))).copied();
    let rule = (rule("08"), field("taxable_amount"));
    taxable_amount((taxes, syntax), base, computed.unwrap_or_default(), rule, findings);
}

/// Checks the tax of a subtotal, in a category with this name in rule ids.
fn tax_amount(
    category: Option<(&str, Taxation)>,
    (base, rate, amount): (Option<Decimal>, Option<Decimal>, Option<Decimal>),
    field: &str,
    findings: &mut Findings,
) {
    let product = base.and_then(|base| base.checked_mul(rate.unwrap_or_default()));
    let expected = product.map(|product| round(product / Decimal::ONE_HUNDRED));
    let is_mismatch = amount
        .zip(expected)
        .is_some_and(|(actual, expected)| (actual - expected).abs() > PRODUCT_TOLERANCE);
    let mismatch =
        || format!("the tax is {}; base and rate give {}", display(amount), display(expected));
    if is_mismatch {
        findings.error("BR-CO-17", field, mismatch);
    }
    let Some((name, taxes)) = category else { return };
    let rule = format!("BR-{name}-09");
    match taxes {
        Taxation::AtRate if is_mismatch => findings.error(&rule, field, mismatch),
        Taxation::Nothing | Taxation::NothingBecause
            if amount.is_some_and(|amount| !amount.is_zero()) =>
        {
            findings.error(&rule, field, || format!("{} must be 0", display(amount)));
        }
        _ => {}
    }
}

/// Checks the taxable amount of a subtotal, which `computed` are the parts of.
fn taxable_amount(
    (taxes, syntax): (Taxation, Syntax),
    base: Option<Decimal>,
    computed: TaxableBase,
    (rule, field): (String, String),
    findings: &mut Findings,
) {
    let rounding_tolerance = tolerance(computed.parts, findings.profile);
    // The UBL artefacts tolerate less than one unit for a base at a rate; those of CII tolerate
    // nothing.
    let is_lenient = taxes == Taxation::AtRate && syntax == Syntax::Ubl && computed.parts > 0;
    let is_mismatch = |base| {
        let difference = (round(base) - round(computed.amount)).abs();
        difference > rounding_tolerance && !(is_lenient && difference < PRODUCT_TOLERANCE)
    };
    if base.is_some_and(is_mismatch) {
        findings.error(&rule, &field, || {
            format!(
                "the base is {}; lines, allowances and charges add up to {}",
                display(base),
                computed.amount
            )
        });
    }
}

fn display(amount: Option<Decimal>) -> String {
    amount.map_or_else(|| "nothing".to_owned(), |amount| amount.to_string())
}
