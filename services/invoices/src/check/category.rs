//! What the category of VAT asks of lines, allowances and charges, and of who sells and buys.

use drawbridge_proto::invoices::v1::{Invoice, Party, TaxCategory};
use rust_decimal::Decimal;

use super::{is_summed, tax::CATEGORIES};
use crate::{decimal, findings::Findings};

/// What a rate must be.
#[derive(Clone, Copy)]
enum Rate {
    Positive,
    NotNegative,
    Zero,
    /// There is none.
    Absent,
}

/// Where a category is used: the number of its rule about who is registered, and of its rule about
/// the rate.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Line,
    Allowance,
    Charge,
}

impl Place {
    fn rules(self) -> [&'static str; 2] {
        match self {
            Self::Line => ["02", "05"],
            Self::Allowance => ["03", "06"],
            Self::Charge => ["04", "07"],
        }
    }
}

/// A category as it is used, and where it stands.
struct Use<'a> {
    place: Place,
    tax: &'a TaxCategory,
    field: String,
}

pub(super) fn check(invoice: &Invoice, findings: &mut Findings) {
    let uses = uses(invoice, findings);
    for (code, name, _) in CATEGORIES {
        for place in [Place::Line, Place::Allowance, Place::Charge] {
            let here = || uses.iter().filter(|one| one.place == place && one.tax.code == code);
            if here().next().is_none() {
                continue;
            }
            let [registered, rated] = place.rules();
            if let Some(problem) = registration(code, invoice) {
                findings.error(&format!("BR-{name}-{registered}"), "seller", || problem.to_owned());
            }
            for one in here() {
                rate(code, one, &format!("BR-{name}-{rated}"), findings);
            }
        }
    }
    not_subject(invoice, &uses, findings);
    split_payment(invoice, &uses, findings);
    let is_delivered = invoice.delivery_date.is_some()
        || invoice.period_start.is_some()
        || invoice.period_end.is_some();
    let is_broken_down = |code: &str| breakdown(invoice).any(|own| own == code);
    findings.require(
        is_delivered || !is_broken_down("K"),
        "BR-IC-11",
        "delivery_date",
        "the date of delivery, or a period, of an intra-community supply",
    );
}

fn uses<'a>(invoice: &'a Invoice, findings: &Findings) -> Vec<Use<'a>> {
    let lines =
        invoice.lines.iter().enumerate().filter(|(_, line)| is_summed(line, findings.profile));
    let lines = lines.filter_map(|(index, line)| {
        let field = format!("lines[{index}].tax.percent");
        Some(Use { place: Place::Line, tax: line.tax.as_ref()?, field })
    });
    let others = invoice.allowances_charges.iter().enumerate().filter_map(|(index, item)| {
        let place = if item.charge { Place::Charge } else { Place::Allowance };
        Some(Use {
            place,
            tax: item.tax.as_ref()?,
            field: format!("allowances_charges[{index}].tax.percent"),
        })
    });
    lines.chain(others).collect()
}

fn breakdown(invoice: &Invoice) -> impl Iterator<Item = &str> {
    invoice.taxes.iter().filter_map(|tax| Some(tax.category.as_ref()?.code.as_str()))
}

/// What is missing, or there and must not be, of the parties' registrations for a category.
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
            "a VAT identifier or tax registration of the seller, or of the tax representative, is missing",
        ),
        "AE" if !seller || !buyer => Some(
            "reverse charge needs a registration of the seller, and the buyer's VAT identifier or registration",
        ),
        "K" if !seller_vat || !buyer_vat => Some(
            "an intra-community supply needs the VAT identifiers of the seller and of the buyer",
        ),
        "G" if !seller_vat => Some("an export needs the seller's VAT identifier"),
        "O" if seller_vat || buyer_vat => {
            Some("VAT identifiers are given, and what is sold is not subject to VAT")
        }
        _ => None,
    }
}

fn rate(code: &str, one: &Use<'_>, rule: &str, findings: &mut Findings) {
    let must = match code {
        "S" => Rate::Positive,
        "L" | "M" => Rate::NotNegative,
        "O" => Rate::Absent,
        "B" => return,
        _ => Rate::Zero,
    };
    let rate = decimal::of(one.tax.percent.as_ref());
    let (is_right, what) = match must {
        Rate::Positive => (rate.is_some_and(|rate| rate > Decimal::ZERO), "greater than 0"),
        Rate::NotNegative => (rate.is_some_and(|rate| rate >= Decimal::ZERO), "0 or greater"),
        Rate::Zero => (rate.is_some_and(|rate| rate.is_zero()), "0"),
        Rate::Absent => (rate.is_none(), "absent"),
    };
    if !is_right {
        findings.error(rule, &one.field, || {
            let said = rate.map_or_else(|| "nothing".to_owned(), |rate| rate.to_string());
            format!("{said} is said, and the rate of the category {code} must be {what}")
        });
    }
}

/// What is not subject to VAT does not share an invoice with what is.
fn not_subject(invoice: &Invoice, uses: &[Use<'_>], findings: &mut Findings) {
    if !breakdown(invoice).any(|code| code == "O") {
        return;
    }
    let is_other = |code: &str| !code.is_empty() && code != "O";
    let others = |place| uses.iter().any(|one| one.place == place && is_other(&one.tax.code));
    for (rule, is_broken, field) in [
        ("BR-O-11", breakdown(invoice).any(is_other), "taxes"),
        ("BR-O-12", others(Place::Line), "lines"),
        ("BR-O-13", others(Place::Allowance), "allowances_charges"),
        ("BR-O-14", others(Place::Charge), "allowances_charges"),
    ] {
        if is_broken {
            findings.error(rule, field, || {
                "what is not subject to VAT (O) stands beside another category".to_owned()
            });
        }
    }
}

/// Split payment is of Italy, and not beside the standard rate.
fn split_payment(invoice: &Invoice, uses: &[Use<'_>], findings: &mut Findings) {
    let is_used = |code: &str| {
        uses.iter().any(|one| one.tax.code == code) || breakdown(invoice).any(|own| own == code)
    };
    if !is_used("B") {
        return;
    }
    let parties = [&invoice.seller, &invoice.buyer, &invoice.payee, &invoice.tax_representative];
    let countries = parties.into_iter().flatten().filter_map(|party| party.address.as_ref());
    if countries.into_iter().any(|address| !address.country.is_empty() && address.country != "IT") {
        findings.error("BR-B-01", "taxes", || {
            "split payment (B) is for invoices within Italy".to_owned()
        });
    }
    if is_used("S") {
        findings.error("BR-B-02", "taxes", || {
            "split payment (B) stands beside the standard rate (S)".to_owned()
        });
    }
}
