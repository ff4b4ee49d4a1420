//! The report: a table for people, or JSON.

use comfy_table::{Cell, Color};
use serde_json::{Value, json};

use super::check::{Checked, Level};
use crate::table;

/// How many findings there are of each level.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) failed: usize,
    pub(super) warnings: usize,
    ok: usize,
}

impl Counts {
    pub(super) fn of(checked: &[Checked]) -> Self {
        let mut counts = Self::default();
        for finding in checked.iter().flat_map(|checked| &checked.findings) {
            match finding.level {
                Level::Ok => counts.ok += 1,
                Level::Warning => counts.warnings += 1,
                Level::Failed => counts.failed += 1,
            }
        }
        counts
    }
}

pub(super) fn as_json(checked: &[Checked], is_good: bool) -> Value {
    let Counts { failed, warnings, ok } = Counts::of(checked);
    json!({
        "ok": is_good,
        "counts": { "ok": ok, "warning": warnings, "failed": failed },
        "checks": checked,
    })
}

/// A table with a row per finding, the worst ones last, where a terminal shows them; below it what
/// to do about them.
pub(super) fn as_text(checked: &[Checked]) -> String {
    let mut order: Vec<_> = checked.iter().collect();
    order.sort_by_key(|checked| checked.level());
    let mut rows = table::new();
    rows.set_header(["check", "subject", "", "finding"]);
    let mut steps = Vec::new();
    for Checked { area, subject, findings } in order {
        for (at, finding) in findings.iter().enumerate() {
            let (level, color) = match finding.level {
                Level::Ok => ("ok", Color::Green),
                Level::Warning => ("warning", Color::Yellow),
                Level::Failed => ("FAILED", Color::Red),
            };
            let (area, subject) = if at == 0 { (*area, subject.as_str()) } else { ("", "") };
            rows.add_row([
                Cell::new(area),
                Cell::new(subject),
                Cell::new(level).fg(color),
                Cell::new(&finding.finding),
            ]);
        }
        for finding in findings {
            let to_do = finding.to_do.as_ref();
            steps.extend(to_do.map(|to_do| format!("- {area} {subject}: {to_do}")));
        }
    }
    let Counts { failed, warnings, ok } = Counts::of(checked);
    let mut text = format!("{rows}\n");
    if !steps.is_empty() {
        text += &format!("\nWhat to do:\n{}\n", steps.join("\n"));
    }
    text + &format!("\n{ok} ok, {warnings} warnings, {failed} failed")
}

#[cfg(test)]
mod tests {
    use super::{super::check::Finding, *};

    #[test]
    fn the_worst_findings_are_last_with_what_to_do() {
        let check = |area, findings| Checked { area, subject: "x".to_owned(), findings };
        let checked = [
            check("redis", vec![Finding::failed("it is down", "start it")]),
            check("issuer", vec![Finding::ok("one key"), Finding::warning("slow", "wait")]),
            check("edge", vec![Finding::ok("401")]),
        ];
        let text = as_text(&checked);
        let place = |part: &str| text.find(part).unwrap_or_else(|| panic!("{part}: {text}"));
        assert!(place("401") < place("one key") && place("slow") < place("it is down"), "{text}");
        assert!(text.contains("- redis x: start it") && text.contains("- issuer x: wait"));
        assert!(text.ends_with("2 ok, 1 warnings, 1 failed"), "{text}");
        let json = as_json(&checked, false);
        assert_eq!(json["checks"][0]["findings"][0]["toDo"], "start it");
        assert_eq!(json["counts"]["failed"], 1);
    }
}
