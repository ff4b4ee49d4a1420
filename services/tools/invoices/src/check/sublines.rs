//! Checks the rules of Factur-X EXTENDED about sublines.

use std::collections::HashMap;

use drawbridge_proto::invoices::v1::Line;
use rust_decimal::Decimal;

use super::{round, tolerance};
use crate::{decimal, findings::Findings};

pub(super) fn check(lines: &[Line], findings: &mut Findings) {
    // The sum and number of sublines per line, without remarks.
    let mut parts: HashMap<&str, (Decimal, usize)> =
        lines.iter().map(|line| (line.id.as_str(), (Decimal::ZERO, 0))).collect();
    for (index, line) in lines.iter().enumerate().filter(|(_, line)| !line.parent.is_empty()) {
        let field = |name: &str| format!("lines[{index}].{name}");
        findings.require(
            !line.status.is_empty(),
            "BR-FXEXT-06",
            &field("status"),
            "the status of a part",
        );
        let Some((sum, count)) = parts.get_mut(line.parent.as_str()) else {
            findings.error("BR-FXEXT-11", &field("parent"), || {
                format!("no line `{}`", truncate(&line.parent))
            });
            continue;
        };
        if let Some(net) =
            decimal::parse_option(line.net_amount.as_ref()).filter(|_| line.status != "INFORMATION")
        {
            *sum += net;
            *count += 1;
        }
    }
    for (index, line) in lines.iter().enumerate().filter(|(_, line)| line.status == "GROUP") {
        let Some((sum, count)) = parts.get(line.id.as_str()).filter(|(_, count)| *count > 0) else {
            continue;
        };
        let Some(net) = decimal::parse_option(line.net_amount.as_ref()) else { continue };
        if (round(net) - round(*sum)).abs() > tolerance(*count, findings.profile) {
            findings.error("BR-FXEXT-08", &format!("lines[{index}].net_amount"), || {
                format!("the amount is {net}; the sublines add up to {sum}")
            });
        }
    }
}

fn truncate(id: &str) -> String {
    id.chars().take(40).collect()
}
