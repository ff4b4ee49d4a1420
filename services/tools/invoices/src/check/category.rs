//! The requirements of VAT categories on lines, allowances, charges and the parties.

use drawbridge_proto::invoices::v1::{Invoice, Party, TaxCategory};
use rust_decimal::Decimal;

use super::{is_summed, tax::CATEGORIES};
use crate::{decimal, findings::Findings};

/// The required rate of a category.
#[derive(Clone, Copy)]
enum RateRequirement {
    Positive,
    NotNegative,
    Zero,
    /// No rate may be given.
    Absent,
}

/// Where a category is used. It determines the numbers of the rules about registrations and about
/// the rate.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Usage {
    Line,
    Allowance,
    Charge,
}

impl Usage {
    fn rules(self) -> [&'static str; 2] {
        match self {
            Self::Line => ["02", "05"],
            Self::Allowance => ["03", "06"],
            Self::Charge => ["04", "07"],
        }
    }
}

/// A use of a category, with its location.
struct CategoryUse<'a> {
    usage: Usage,
    tax: &'a TaxCategory,
    field: String,
}

pub(super) fn check(invoice: &Invoice, findings: &mut Findings) {
    let category_uses = category_uses(invoice, findings);
    for (code, name, _) in CATEGORIES {
        for usage in [Usage::Line, Usage::Allowance, Usage::Charge] {
            let uses_here = || {
                category_uses.iter().filter(|category_use| {
                    category_use.usage == usage && category_use.tax.code == code
                })
            };
            if uses_here().next().is_none() {
                continue;
            }
            let [registered, rated] = usage.rules();
            if let Some(problem) = registration(code, invoice) {
                findings.error(&format!("BR-{name}-{registered}"), "seller", || problem.to_owned());
            }
            for category_use in uses_here() {
                check_rate(code, category_use, &format!("BR-{name}-{rated}"), findings);
            }
        }
    }
    not_subject(invoice, &category_uses, findings);
    split_payment(invoice, &category_uses, findings);
    let is_delivered = invoice.delivery_date.is_some()
        || invoice.period_start.is_some()
        || invoice.period_end.is_some();
    let is_broken_down = |code: &str| breakdown(invoice).any(|used| used == code);
    findings.require(
        is_delivered || !is_broken_down("K"),
        "BR-IC-11",
        "delivery_date",
        "the date of delivery, or a period, of an intra-community supply",
    );
}

fn category_uses<'a>(invoice: &'a Invoice, findings: &Findings) -> Vec<CategoryUse<'a>> {
    let lines =
        invoice.lines.iter().enumerate().filter(|(_, line)| is_summed(line, findings.profile));
    let lines = lines.filter_map(|(index, line)| {
        let field = format!("lines[{index}].tax.percent");
        Some(CategoryUse { usage: Usage::Line, tax: line.tax.as_ref()?, field })
    });
    let others = invoice.allowances_charges.iter().enumerate().filter_map(|(index, item)| {
        let usage = if item.charge { Usage::Charge } else { Usage::Allowance };
        Some(CategoryUse {
            usage,
            tax: item.tax.as_ref()?,
            field: format!("allowances_charges[{index}].tax.percent"),
        })
    });
    lines.chain(others).collect()
}

fn breakdown(invoice: &Invoice) -> impl Iterator<Item = &str> {
    invoice.taxes.iter().filter_map(|tax| Some(tax.category.as_ref()?.code.as_str()))
}

/// The missing or forbidden registration of the parties for a category.
fn registration(code: &str, invoice: &Invoice) -> Option<&'static str> {
    let has_vat =
        |party: &Option<Party>| party.as_ref().is_some_and(|party| !party.vat_id.is_empty());
    let seller_vat = has_vat(&invoice.seller) || has_vat(&invoice.tax_representative);
    let seller = seller_vat
        || invoice.seller.as_ref().is_some_and(|party| !party.tax_registration.is_empty());
    let buyer_vat = has_vat(&invoice.buyer);
    let buyer =
        buyer_vat || invoice.buyer.as_ref().is_some_and(|party| party.legal_registration.is_some());
    match code {
        "S" | "Z" | "E" | "L" | "M" if !seller => Some(
            "a VAT identifier or tax registration of the seller, or of the tax representative, is \
             missing",
        ),
        "AE" if !seller || !buyer => Some(
            "reverse charge needs a registration of the seller, and the buyer's VAT identifier or \
             registration",
        ),
        "K" if !seller_vat || !buyer_vat => Some(
            "an intra-community supply needs the VAT identifiers of the seller and of the buyer",
        ),
        "G" if !seller_vat => Some("an export needs the seller's VAT identifier"),
        "O" if seller_vat || buyer_vat => {
            Some("VAT identifiers are given although the category O is not subject to VAT")
        }
        _ => None,
    }
}

fn check_rate(code: &str, category_use: &CategoryUse<'_>, rule: &str, findings: &mut Findings) {
    let requirement = match code {
        "S" => RateRequirement::Positive,
        "L" | "M" => RateRequirement::NotNegative,
        "O" => RateRequirement::Absent,
        "B" => return,
        _ => RateRequirement::Zero,
    };
    let rate = decimal::parse_option(category_use.tax.percent.as_ref());
    let (is_right, what) = match requirement {
        RateRequirement::Positive => {
            (rate.is_some_and(|rate| rate > Decimal::ZERO), "greater than 0")
        }
        RateRequirement::NotNegative => {
            (rate.is_some_and(|rate| rate >= Decimal::ZERO), "0 or greater")
        }
        RateRequirement::Zero => (rate.is_some_and(|rate| rate.is_zero()), "0"),
        RateRequirement::Absent => (rate.is_none(), "absent"),
    };
    if !is_right {
        findings.error(rule, &category_use.field, || {
            let said = rate.map_or_else(|| "nothing".to_owned(), |rate| rate.to_string());
            format!("the rate is {said}; the rate of the category {code} must be {what}")
        });
    }
}

/// The category "not subject to VAT" (O) excludes other categories on the same invoice.
fn not_subject(invoice: &Invoice, category_uses: &[CategoryUse<'_>], findings: &mut Findings) {
    if !breakdown(invoice).any(|code| code == "O") {
        return;
    }
    let is_other = |code: &str| !code.is_empty() && code != "O";
    let others = |usage| {
        category_uses
            .iter()
            .any(|category_use| category_use.usage == usage && is_other(&category_use.tax.code))
    };
    for (rule, is_broken, field) in [
        ("BR-O-11", breakdown(invoice).any(is_other), "taxes"),
        ("BR-O-12", others(Usage::Line), "lines"),
        ("BR-O-13", others(Usage::Allowance), "allowances_charges"),
        ("BR-O-14", others(Usage::Charge), "allowances_charges"),
    ] {
        if is_broken {
            findings.error(rule, field, || {
                "the category O (not subject to VAT) is combined with another category".to_owned()
            });
        }
    }
}

/// Split payment applies only in Italy, and not together with the standard rate.
fn split_payment(invoice: &Invoice, category_uses: &[CategoryUse<'_>], findings: &mut Findings) {
    let is_used = |code: &str| {
        category_uses.iter().any(|category_use| category_use.tax.code == code)
            || breakdown(invoice).any(|used| used == code)
    };
    if !is_used("B") {
        return;
    }
    let parties = [&invoice.seller, &invoice.buyer, &invoice.payee, &invoice.tax_representative];
    let countries = parties.into_iter().flatten().filter_map(|party| party.address.as_ref());
    if countries.into_iter().any(|address| !address.country.is_empty() && address.country != "IT") {
        findings.error("BR-B-01", "taxes", || {
            "split payment (B) applies only to invoices within Italy".to_owned()
        });
    }
    if is_used("S") {
        findings.error("BR-B-02", "taxes", || {
            "split payment (B) is combined with the standard rate (S)".to_owned()
        });
    }
}
