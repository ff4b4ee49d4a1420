//! Checks the rules of EN 16931, by their ids. docs/reference/services/invoices.md describes each
//! rule.

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

/// The tolerance of a product, as in the official validation artefacts: one unit of the currency.
/// Sums are exact.
const PRODUCT_TOLERANCE: Decimal = Decimal::ONE;

/// The tolerance of a sum per part in an extension: one cent. Elsewhere sums are exact.
const PART_TOLERANCE: Decimal = Decimal::from_parts(1, 0, 0, false, 2);

/// Checks an invoice.
pub(crate) fn check(invoice: &Invoice, findings: &mut Findings) {
    findings.profile = Profile::of(&invoice.specification);
    if let Some(warning) = findings.profile.warning() {
        findings.warning("PROFILE", "specification", || warning.to_owned());
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

/// Rounds to two decimals, as EN 16931 rounds amounts.
fn round(amount: Decimal) -> Decimal {
    amount.round_dp_with_strategy(2, RoundingStrategy::MidpointAwayFromZero)
}

/// Whether a line counts towards the totals. In an extension, subtotals and remarks do not.
fn is_summed(line: &Line, profile: Profile) -> bool {
    profile != Profile::Extended || !matches!(line.status.as_str(), "GROUP" | "INFORMATION")
}

/// The tolerance of a sum of this many parts.
fn tolerance(parts: usize, profile: Profile) -> Decimal {
    if profile == Profile::Extended { PART_TOLERANCE * Decimal::from(parts) } else { Decimal::ZERO }
}

/// The sum of the present amounts. Decimals of `decimal::parse` are too small to overflow it.
fn sum_amounts<'a>(amounts: impl IntoIterator<Item = &'a Option<String>>) -> Decimal {
    amounts.into_iter().filter_map(|amount| decimal::parse_option(amount.as_ref())).sum()
}

/// Allowances or charges, with their indexes in the list.
fn allowances_or_charges(
    all: &[AllowanceCharge],
    charge: bool,
) -> impl Iterator<Item = (usize, &AllowanceCharge)> {
    all.iter().enumerate().filter(move |(_, item)| item.charge == charge)
}
