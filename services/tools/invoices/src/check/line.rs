//! Checks the rules of one line.

use drawbridge_proto::invoices::v1::Line;
use rust_decimal::Decimal;

use super::{allowances_or_charges, is_summed, presence, round, sum_amounts};
use crate::{decimal, findings::Findings};

/// The tolerance of the net amount, as in the rules of Peppol.
const NET_TOLERANCE: Decimal = Decimal::from_parts(2, 0, 0, false, 2);

pub(super) fn check(line: &Line, path: &str, findings: &mut Findings) {
    let is_summed = is_summed(line, findings.profile);
    let mut require = |present, rule, name: &str| {
        findings.require(present, rule, &format!("{path}.{name}"), &format!("the line's {name}"));
    };
    require(!line.id.is_empty(), "BR-21", "id");
    require(!line.item_name.is_empty(), "BR-25", "item_name");
    if is_summed {
        require(line.quantity.is_some(), "BR-22", "quantity");
        require(!line.unit.is_empty(), "BR-23", "unit");
        require(line.net_amount.is_some(), "BR-24", "net_amount");
        require(line.price.is_some(), "BR-26", "price");
        require(line.tax.as_ref().is_some_and(|tax| !tax.code.is_empty()), "BR-CO-04", "tax.code");
    }
    if decimal::parse_option(line.price.as_ref()).is_some_and(|price| price.is_sign_negative()) {
        findings.error("BR-27", &format!("{path}.price"), || "the price is negative".to_owned());
    }
    presence::period(
        &line.period_start,
        &line.period_end,
        "BR-30",
        &format!("{path}.period_end"),
        findings,
    );
    for (index, item) in line.allowances_charges.iter().enumerate() {
        let rules = if item.charge { ["BR-43", "BR-44"] } else { ["BR-41", "BR-42"] };
        presence::allowance_charge(
            item,
            rules,
            &format!("{path}.allowances_charges[{index}]"),
            findings,
        );
    }
    if is_summed {
        net_amount(line, path, findings);
    }
}

/// EN 16931 defines the net amount without a rule; Peppol and XRechnung have one.
fn net_amount(line: &Line, path: &str, findings: &mut Findings) {
    let (Some(net), Some(quantity), Some(price)) = (
        decimal::parse_option(line.net_amount.as_ref()),
        decimal::parse_option(line.quantity.as_ref()),
        decimal::parse_option(line.price.as_ref()),
    ) else {
        return;
    };
    let base = decimal::parse_option(line.price_base_quantity.as_ref()).unwrap_or(Decimal::ONE);
    let total = |charge| {
        sum_amounts(
            allowances_or_charges(&line.allowances_charges, charge).map(|(_, item)| &item.amount),
        )
    };
    let expected = quantity
        .checked_mul(price)
        .and_then(|product| product.checked_div(base))
        .and_then(|product| round(product).checked_add(total(true))?.checked_sub(total(false)));
    let difference = expected.and_then(|expected| net.checked_sub(expected));
    if difference.is_none_or(|difference| difference.abs() > NET_TOLERANCE) {
        findings.warning("PEPPOL-EN16931-R120", &format!("{path}.net_amount"), || {
            let expected =
                expected.map_or_else(|| "no amount".to_owned(), |expected| expected.to_string());
            format!("the amount is {net}; quantity, price, allowances and charges give {expected}")
        });
    }
}
