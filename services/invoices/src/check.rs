//! The rules of EN 16931 that are checked, by their ids. What each of them says: docs/invoices.md.

use drawbridge_proto::invoices::v1::{AllowanceCharge, Invoice};
use rust_decimal::{Decimal, RoundingStrategy};

use crate::{decimal, findings::Findings};

mod line;
mod presence;
mod tax;
mod total;

/// How far a product may be off, as in the official validation artefacts: one unit of the currency. Sums are exact.
const PRODUCT_TOLERANCE: Decimal = Decimal::ONE;

/// Checks an invoice.
pub(crate) fn check(invoice: &Invoice, findings: &mut Findings) {
    presence::check(invoice, findings);
    for (index, line) in invoice.lines.iter().enumerate() {
        line::check(line, &format!("lines[{index}]"), findings);
    }
    total::check(invoice, findings);
    tax::check(invoice, findings);
}

/// To two decimals, as EN 16931 rounds amounts.
fn round(amount: Decimal) -> Decimal {
    amount.round_dp_with_strategy(2, RoundingStrategy::MidpointAwayFromZero)
}

/// The sum of what is there. Decimals of `decimal::parse` are too small to overflow it.
fn sum<'a>(amounts: impl IntoIterator<Item = &'a Option<String>>) -> Decimal {
    amounts.into_iter().filter_map(|amount| decimal::of(amount.as_ref())).sum()
}

/// Allowances or charges, with their places in the list.
fn of_kind(all: &[AllowanceCharge], charge: bool) -> impl Iterator<Item = (usize, &AllowanceCharge)> {
    all.iter().enumerate().filter(move |(_, item)| item.charge == charge)
}
