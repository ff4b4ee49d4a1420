//! Values of XML Schema's types, taken out of elements. What is no value is left out and becomes a finding.

use drawbridge_proto::invoices::v1::InvoiceKind;
use jiff::civil::Date;

use crate::{decimal, findings::Findings, xml::Element};

/// How much of a wrong value a finding shows, in characters.
const SHOWN_CHARS_MAX: usize = 40;

/// Takes values, and notes those that are none.
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
            self.wrong(field, "decimal", text);
        }
        Some(value?.to_string())
    }

    /// A date of UBL: `2026-11-23`, with a time zone or without.
    pub(crate) fn date(&mut self, element: Option<&Element<'_>>, field: &str) -> Option<String> {
        let text = element?.text();
        let value = text
            .get(..10)
            .filter(|_| is_zone(&text[10..]))
            .and_then(|date| calendar(date, "%Y-%m-%d"));
        if value.is_none() {
            self.wrong(field, "date", text);
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
        let value = if is_102 { calendar(text, "%Y%m%d") } else { None };
        if value.is_none() {
            self.wrong(field, "date", text);
        }
        value
    }

    fn wrong(&mut self, field: &str, kind: &str, text: &str) {
        self.findings.error("FORMAT", field, || {
            let shown: String = text.chars().take(SHOWN_CHARS_MAX).collect();
            format!("`{shown}` is no {kind} that can be read")
        });
    }
}

/// The date in ISO 8601, when the calendar has it.
fn calendar(text: &str, format: &str) -> Option<String> {
    let digits_only = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
    let date = Date::strptime(format, text).ok().filter(|_| digits_only)?;
    Some(date.to_string())
}

/// Whether the rest of an `xsd:date` is a time zone, or nothing.
fn is_zone(text: &str) -> bool {
    let digits = |range: std::ops::Range<usize>| {
        text.get(range).is_some_and(|part| part.bytes().all(|byte| byte.is_ascii_digit()))
    };
    match text.as_bytes() {
        [] | [b'Z'] => true,
        [b'+' | b'-', _, _, b':', _, _] => digits(1..3) && digits(4..6),
        _ => false,
    }
}

/// An element's text, or nothing.
pub(crate) fn text(element: Option<&Element<'_>>) -> String {
    element.map(|element| element.text().to_owned()).unwrap_or_default()
}

/// Which way the money goes, by a code of UNTDID 1001 (BT-3). The credit notes are those of EN
/// 16931's code list.
pub(crate) fn kind(type_code: &str) -> InvoiceKind {
    match type_code {
        "81" | "83" | "261" | "262" | "296" | "308" | "381" | "396" | "420" | "458" | "502"
        | "503" | "532" => InvoiceKind::CreditNote,
        _ => InvoiceKind::Invoice,
    }
}
