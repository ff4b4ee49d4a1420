//! VAT by category and rate.

use std::collections::HashMap;

use drawbridge_proto::invoices::v1::{Invoice, Syntax, TaxCategory, TaxSubtotal};
use rust_decimal::Decimal;

use super::{PRODUCT_TOLERANCE, is_summed, round, tolerance};
use crate::{decimal, findings::Findings, profile::Profile};

/// A category's code in UNTDID 5305, its name in the ids of rules, and how it taxes.
pub(super) const CATEGORIES: [(&str, &str, Taxes); 10] = [
    ("S", "S", Taxes::AtRate),
    ("L", "AF", Taxes::AtRate),
    ("M", "AG", Taxes::AtRate),
    ("B", "B", Taxes::Split),
    ("Z", "Z", Taxes::Nothing),
    ("E", "E", Taxes::NothingBecause),
    ("AE", "AE", Taxes::NothingBecause),
    ("K", "IC", Taxes::NothingBecause),
    ("G", "G", Taxes::NothingBecause),
    ("O", "O", Taxes::NothingBecause),
];

/// How a category taxes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taxes {
    /// Each rate has a subtotal of its own.
    AtRate,
    /// Domestic split payment, which has no rules of its own here.
    Split,
    Nothing,
    /// Nothing, and the reason must be said.
    NothingBecause,
}

/// What lines, allowances and charges make of one category, and of one rate where rates count.
type Bases<'a> = HashMap<(&'a str, Option<Decimal>), Base>;

/// A sum, and of how many parts.
#[derive(Clone, Copy, Default)]
struct Base {
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
            Taxes::Split => continue,
            Taxes::AtRate => !is_used || subtotals > 0,
            Taxes::Nothing | Taxes::NothingBecause => {
                subtotals <= 1 && (!is_used || subtotals == 1)
            }
        };
        if !is_right {
            findings.error(&format!("BR-{name}-01"), "taxes", || {
                let must = if *taxes == Taxes::AtRate { "one for each rate" } else { "one" };
                format!("the category {code} has {subtotals} subtotals, and must have {must}")
            });
        }
    }
    for (index, tax) in invoice.taxes.iter().enumerate() {
        subtotal(tax, &bases, invoice.syntax(), &format!("taxes[{index}]"), findings);
    }
}

fn bases(invoice: &Invoice, profile: Profile) -> Bases<'_> {
    let lines = invoice.lines.iter().filter(|line| is_summed(line, profile));
    let lines = lines.map(|line| (&line.tax, &line.net_amount, false));
    let others =
        invoice.allowances_charges.iter().map(|item| (&item.tax, &item.amount, !item.charge));
    let mut bases = Bases::new();
    for (tax, amount, negative) in lines.chain(others) {
        let Some(tax) = tax else { continue };
        let amount = decimal::of(amount.as_ref()).unwrap_or_default();
        let base = bases.entry(key(tax)).or_default();
        base.amount += if negative { -amount } else { amount };
        base.parts += 1;
    }
    bases
}

/// By what amounts are added up: `25` and `25.00` are one rate.
fn key(tax: &TaxCategory) -> (&str, Option<Decimal>) {
    let at_rate =
        CATEGORIES.iter().any(|(code, _, taxes)| *code == tax.code && *taxes == Taxes::AtRate);
    (&tax.code, decimal::of(tax.percent.as_ref()).filter(|_| at_rate).map(|rate| rate.normalize()))
}

fn category(tax: &TaxSubtotal) -> (&str, Option<Decimal>) {
    tax.category
        .as_ref()
        .map(|category| (category.code.as_str(), decimal::of(category.percent.as_ref())))
        .unwrap_or_default()
}

fn subtotal(
    tax: &TaxSubtotal,
    bases: &Bases<'_>,
    syntax: Syntax,
    at: &str,
    findings: &mut Findings,
) {
    let field = |name: &str| format!("{at}.{name}");
    let (code, rate) = category(tax);
    let (base, amount) =
        (decimal::of(tax.taxable_amount.as_ref()), decimal::of(tax.tax_amount.as_ref()));
    findings.require(base.is_some(), "BR-45", &field("taxable_amount"), "the taxable amount");
    findings.require(amount.is_some(), "BR-46", &field("tax_amount"), "the tax");
    findings.require(!code.is_empty(), "BR-47", &field("category.code"), "the category");
    findings.require(
        rate.is_some() || code == "O",
        "BR-48",
        &field("category.percent"),
        "the rate",
    );
    let product = base.and_then(|base| base.checked_mul(rate.unwrap_or_default()));
    let expected = product.map(|product| round(product / Decimal::ONE_HUNDRED));
    let is_off = amount
        .zip(expected)
        .is_some_and(|(said, expected)| (said - expected).abs() > PRODUCT_TOLERANCE);
    let off = || format!("{} is said; base and rate make {}", shown(amount), shown(expected));
    if is_off {
        findings.error("BR-CO-17", &field("tax_amount"), off);
    }
    let Some((_, name, taxes)) = CATEGORIES.iter().find(|(own, ..)| *own == code) else {
        if !code.is_empty() {
            findings.error("BR-CL-17", &field("category.code"), || {
                format!("{code} is no VAT category")
            });
        }
        return;
    };
    let rule = |number: &str| format!("BR-{name}-{number}");
    match taxes {
        Taxes::Split => return,
        Taxes::AtRate if is_off => findings.error(&rule("09"), &field("tax_amount"), off),
        Taxes::Nothing | Taxes::NothingBecause
            if amount.is_some_and(|amount| !amount.is_zero()) =>
        {
            findings.error(&rule("09"), &field("tax_amount"), || {
                format!("{} must be 0", shown(amount))
            });
        }
        _ => {}
    }
    let is_explained = !tax.exemption_reason.is_empty() || !tax.exemption_reason_code.is_empty();
    if *taxes == Taxes::NothingBecause {
        findings.require(
            is_explained,
            &rule("10"),
            &field("exemption_reason"),
            "the reason for no VAT",
        );
    } else if is_explained {
        findings.error(&rule("10"), &field("exemption_reason"), || {
            format!("a reason for no VAT is said, and the category {code} has none")
        });
    }
    // Without a rate, nothing says which amounts belong to it.
    if *taxes == Taxes::AtRate && rate.is_none() {
        return;
    }
    let of_lines = tax
        .category
        .as_ref()
        .and_then(|category| bases.get(&key(category)))
        .copied()
        .unwrap_or_default();
    let of_rounding = tolerance(of_lines.parts, findings.profile);
    // The artefacts of UBL let a base at a rate be off by less than one unit, and those of CII do
    // not.
    let is_lenient = *taxes == Taxes::AtRate && syntax == Syntax::Ubl && of_lines.parts > 0;
    let is_off = |base| {
        let difference = (round(base) - round(of_lines.amount)).abs();
        difference > of_rounding && !(is_lenient && difference < PRODUCT_TOLERANCE)
    };
    if base.is_some_and(is_off) {
        findings.error(&rule("08"), &field("taxable_amount"), || {
            format!(
                "{} is said; lines, allowances and charges make {}",
                shown(base),
                of_lines.amount
            )
        });
    }
}

fn shown(amount: Option<Decimal>) -> String {
    amount.map_or_else(|| "nothing".to_owned(), |amount| amount.to_string())
}
