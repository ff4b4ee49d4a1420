//! Lines that are parts of others: the rules of Factur-X EXTENDED.

use std::collections::HashMap;

use drawbridge_proto::invoices::v1::Line;
use rust_decimal::Decimal;

use super::{round, tolerance};
use crate::{decimal, findings::Findings};

pub(super) fn check(lines: &[Line], findings: &mut Findings) {
    // What the lines below each line come to, and how many they are. Remarks do not count.
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
                format!("there is no line `{}`", shown(&line.parent))
            });
            continue;
        };
        if let Some(net) =
            decimal::of(line.net_amount.as_ref()).filter(|_| line.status != "INFORMATION")
        {
            *sum += net;
            *count += 1;
        }
    }
    for (index, line) in lines.iter().enumerate().filter(|(_, line)| line.status == "GROUP") {
        let Some((sum, count)) = parts.get(line.id.as_str()).filter(|(_, count)| *count > 0) else {
            continue;
        };
        let Some(net) = decimal::of(line.net_amount.as_ref()) else { continue };
        if (round(net) - round(*sum)).abs() > tolerance(*count, findings.profile) {
            findings.error("BR-FXEXT-08", &format!("lines[{index}].net_amount"), || {
                format!("{net} is said; the parts make {sum}")
            });
        }
    }
}

fn shown(id: &str) -> String {
    id.chars().take(40).collect()
}
