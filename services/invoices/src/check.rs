//! The rules of EN 16931 that are checked, by their ids. What each of them says: docs/invoices.md.

use drawbridge_proto::invoices::v1::{AllowanceCharge, Invoice, Line};
use rust_decimal::{Decimal, RoundingStrategy};

use crate::{decimal, findings::Findings, profile::Profile};

mod category;
mod decimals;
mod line;
mod presence;
mod sublines;
mod tax;
mod total;

/// How far a product may be off, as in the official validation artefacts: one unit of the currency. Sums are exact.
const PRODUCT_TOLERANCE: Decimal = Decimal::ONE;

/// How far a sum may be off for each of its parts in an extension: a cent. Elsewhere sums are
/// exact.
const PART_TOLERANCE: Decimal = Decimal::from_parts(1, 0, 0, false, 2);

/// Checks an invoice.
pub(crate) fn check(invoice: &Invoice, findings: &mut Findings) {
    findings.profile = Profile::of(&invoice.specification);
    if let Some(note) = findings.profile.note() {
        findings.warning("PROFILE", "specification", || note.to_owned());
    }
    presence::check(invoice, findings);
    for (index, line) in invoice.lines.iter().enumerate() {
        line::check(line, &format!("lines[{index}]"), findings);
    }
    if findings.profile == Profile::Extended {
        sublines::check(&invoice.lines, findings);
    }
    total::check(invoice, findings);
    tax::check(invoice, findings);
    category::check(invoice, findings);
    decimals::check(invoice, findings);
}

/// To two decimals, as EN 16931 rounds amounts.
fn round(amount: Decimal) -> Decimal {
    amount.round_dp_with_strategy(2, RoundingStrategy::MidpointAwayFromZero)
}

/// Whether a line is part of the totals. In an extension, subtotals and remarks are not.
fn is_summed(line: &Line, profile: Profile) -> bool {
    profile != Profile::Extended || !matches!(line.status.as_str(), "GROUP" | "INFORMATION")
}

/// How far a sum of so many parts may be off.
fn tolerance(parts: usize, profile: Profile) -> Decimal {
    if profile == Profile::Extended { PART_TOLERANCE * Decimal::from(parts) } else { Decimal::ZERO }
}

/// The sum of what is there. Decimals of `decimal::parse` are too small to overflow it.
fn sum<'a>(amounts: impl IntoIterator<Item = &'a Option<String>>) -> Decimal {
    amounts.into_iter().filter_map(|amount| decimal::of(amount.as_ref())).sum()
}

/// Allowances or charges, with their places in the list.
fn of_kind(
    all: &[AllowanceCharge],
    charge: bool,
) -> impl Iterator<Item = (usize, &AllowanceCharge)> {
    all.iter().enumerate().filter(move |(_, item)| item.charge == charge)
}
