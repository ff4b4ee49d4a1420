//! Reads values of XML Schema types from elements. An invalid value is omitted and becomes a
//! finding.

use drawbridge_proto::invoices::v1::InvoiceKind;
use jiff::civil::Date;

use crate::{decimal, findings::Findings, xml::Element};

/// How much of an invalid value a finding quotes, in characters.
const QUOTED_CHARS_MAX: usize = 40;

/// Reads values, and collects findings about invalid ones.
#[derive(Debug, Default)]
pub(crate) struct Values {
    pub(crate) findings: Findings,
}

impl Values {
    /// A decimal, as text.
    pub(crate) fn decimal(&mut self, element: Option<&Element<'_>>, field: &str) -> Option<String> {
        let text = element?.text();
        let value = decimal::parse(text);
        if value.is_none() {
            self.report_invalid(field, "decimal", text);
        }
        Some(value?.to_string())
    }

    /// A date of UBL: `2026-11-23`, with or without a time zone.
    pub(crate) fn date(&mut self, element: Option<&Element<'_>>, field: &str) -> Option<String> {
        let text = element?.text();
        let value = text
            .get(..10)
            .filter(|_| is_time_zone(&text[10..]))
            .and_then(|date| parse_calendar_date(date, "%Y-%m-%d"));
        if value.is_none() {
            self.report_invalid(field, "date", text);
        }
        value
    }

    /// A date of CII in the format 102: `20261123`.
    pub(crate) fn date_102(
        &mut self,
        element: Option<&Element<'_>>,
        field: &str,
    ) -> Option<String> {
        let element = element?;
        let text = element.text();
        let is_102 =
            element.attribute("format").is_none_or(|format| format == "102") && text.len() == 8;
        let value = if is_102 { parse_calendar_date(text, "%Y%m%d") } else { None };
        if value.is_none() {
            self.report_invalid(field, "date", text);
        }
        value
    }

    fn report_invalid(&mut self, field: &str, kind: &str, text: &str) {
        self.findings.error("FORMAT", field, || {
            let quoted: String = text.chars().take(QUOTED_CHARS_MAX).collect();
            format!("`{quoted}` is not a valid {kind}")
        });
    }
}

/// The date in ISO 8601, if it exists in the calendar.
fn parse_calendar_date(text: &str, format: &str) -> Option<String> {
    let digits_only = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
    let date = Date::strptime(format, text).ok().filter(|_| digits_only)?;
    Some(date.to_string())
}

/// Whether the rest of an `xsd:date` is empty or a time zone.
fn is_time_zone(text: &str) -> bool {
    let digits = |range: std::ops::Range<usize>| {
        text.get(range).is_some_and(|part| part.bytes().all(|byte| byte.is_ascii_digit()))
    };
    match text.as_bytes() {
        [] | [b'Z'] => true,
        [b'+' | b'-', _, _, b':', _, _] => digits(1..3) && digits(4..6),
        _ => false,
    }
}

/// An element's text, or an empty text.
pub(crate) fn text(element: Option<&Element<'_>>) -> String {
    element.map(|element| element.text().to_owned()).unwrap_or_default()
}

/// Invoice or credit note, by the UNTDID 1001 code (BT-3). The credit note codes are those of EN
/// 16931's code list.
pub(crate) fn kind(type_code: &str) -> InvoiceKind {
    match type_code {
        "81" | "83" | "261" | "262" | "296" | "308" | "381" | "396" | "420" | "458" | "502"
        | "503" | "532" => InvoiceKind::CreditNote,
        _ => InvoiceKind::Invoice,
    }
}
