//! Parses dates, amounts and identifiers in common notations.

use std::sync::LazyLock;

use jiff::civil::Date;
use regex::Regex;
use rust_decimal::Decimal;

use crate::decimal;

/// Defines a static regular expression.
macro_rules! pattern {
    ($name:ident, $text:literal) => {
        pub(super) static $name: LazyLock<Regex> =
            LazyLock::new(|| Regex::new($text).expect("a valid pattern, as tested"));
    };
}

pattern!(ISO_DATE, r"\b(\d{4})-(\d{1,2})-(\d{1,2})\b");
pattern!(NUMERIC_DATE, r"\b(\d{1,2})([./-])\s?(\d{1,2})[./-]\s?(\d{4})\b");
pattern!(
    DAY_FIRST,
    r"(?i)\b(\d{1,2})(?:st|nd|rd|th|er)?\.?\s+(?:de\s+)?(\p{L}{3,10})\.?,?\s+(?:de\s+)?(\d{4})\b"
);
pattern!(MONTH_FIRST, r"(?i)\b(\p{L}{3,10})\.?\s+(\d{1,2})(?:st|nd|rd|th)?,?\s+(\d{4})\b");
pattern!(
    AMOUNT,
    r"[-−]?\s?\d{1,3}(?:[.,'’\u{a0}\u{202f} ]\d{3})*[.,]\d{2}\b|[-−]?\s?\d+[.,]\d{2}\b"
);
pattern!(
    VAT_ID,
    r"\b(?:AT\s?U\d{8}|BE\s?[01]?\d{9}|BG\s?\d{9,10}|CY\s?\d{8}[A-Z]|CZ\s?\d{8,10}|DE\s?\d{9}|DK\s?\d{8}|EE\s?\d{9}|EL\s?\d{9}|ES\s?[A-Z0-9]\d{7}[A-Z0-9]|FI\s?\d{8}|FR\s?[A-Z0-9]{2}\s?\d{9}|GB\s?\d{9}(?:\d{3})?|HR\s?\d{11}|HU\s?\d{8}|IE\s?\d[A-Z0-9+*]\d{5}[A-Z]{1,2}|IT\s?\d{11}|LT\s?(?:\d{12}|\d{9})|LU\s?\d{8}|LV\s?\d{11}|MT\s?\d{8}|NL\s?\d{9}B\d{2}|PL\s?\d{10}|PT\s?\d{9}|RO\s?\d{2,10}|SE\s?\d{12}|SI\s?\d{8}|SK\s?\d{10}|CHE[-\s]?\d{3}\.?\d{3}\.?\d{3})\b"
);
pattern!(IBAN, r"\b[A-Z]{2}\d{2}(?:\s?[A-Z0-9]{4}){2,7}(?:\s?[A-Z0-9]{1,3})?\b");
pattern!(
    CURRENCY,
    r"\b(?:EUR|USD|GBP|CHF|SEK|NOK|DKK|PLN|CZK|HUF|RON|BGN|CAD|AUD|JPY)\b|[€£]|US\$|\$"
);

const MONTHS: [&[&str]; 12] = [
    &["jan", "januar", "january", "janvier", "enero", "gennaio", "januari", "jänner"],
    &["feb", "februar", "february", "février", "fevrier", "febrero", "febbraio", "februari"],
    &["mar", "mär", "märz", "march", "mars", "marzo", "maart"],
    &["apr", "april", "avril", "abril", "aprile"],
    &["may", "mai", "mayo", "maggio", "mei"],
    &["jun", "juni", "june", "juin", "junio", "giugno"],
    &["jul", "juli", "july", "juillet", "julio", "luglio"],
    &["aug", "august", "août", "aout", "agosto", "augustus"],
    &["sep", "sept", "september", "septembre", "septiembre", "settembre"],
    &["oct", "okt", "october", "oktober", "octobre", "octubre", "ottobre"],
    &["nov", "november", "novembre", "noviembre"],
    &["dec", "dez", "dezember", "december", "décembre", "decembre", "diciembre", "dicembre"],
];

/// A date in ISO 8601, and whether it is unambiguous: 03/04/2026 is ambiguous, and is read day
/// first.
pub(super) fn date(text: &str) -> Option<(String, bool)> {
    let number = |text: &str| text.parse::<i16>().ok();
    let iso_date = |year: i16, month: i16, day: i16| {
        Date::new(year, month.try_into().ok()?, day.try_into().ok()?)
            .ok()
            .map(|date| date.to_string())
    };
    if let Some(found) = ISO_DATE.captures(text) {
        return Some((iso_date(number(&found[1])?, number(&found[2])?, number(&found[3])?)?, true));
    }
    if let Some(found) = NUMERIC_DATE.captures(text) {
        let (first, second, year) = (number(&found[1])?, number(&found[3])?, number(&found[4])?);
        // Dates with points are day first everywhere.
        let is_unambiguous = &found[2] == "." || first > 12 || second > 12 || first == second;
        let (day, month) = if second > 12 { (second, first) } else { (first, second) };
        return Some((iso_date(year, month, day)?, is_unambiguous));
    }
    for (pattern, day, month) in [(&*DAY_FIRST, 1, 2), (&*MONTH_FIRST, 2, 1)] {
        for found in pattern.captures_iter(text) {
            let name = found[month].to_lowercase();
            let Some(index) = MONTHS.iter().position(|names| names.contains(&name.as_str())) else {
                continue;
            };
            let month = i16::try_from(index + 1).ok()?;
            return Some((iso_date(number(&found[3])?, month, number(&found[day])?)?, true));
        }
    }
    None
}

/// The last amount in a text. Amounts have two decimals, after a point or a comma.
pub(super) fn amount(text: &str) -> Option<Decimal> {
    let found = AMOUNT.find_iter(text).last()?.as_str();
    let is_negative = found.starts_with(['-', '−']);
    let digits: String = found.chars().filter(char::is_ascii_digit).collect();
    let (whole, cents) = digits.split_at(digits.len().checked_sub(2)?);
    let value = decimal::parse(&format!("{whole}.{cents}"))?;
    Some(if is_negative { -value } else { value })
}

/// The code of the first currency in a text, and whether it is unambiguous.
pub(super) fn currency(text: &str) -> Option<(&str, bool)> {
    Some(match CURRENCY.find(text)?.as_str() {
        "€" => ("EUR", true),
        "£" => ("GBP", true),
        "US$" => ("USD", true),
        "$" => ("USD", false),
        code => (code, true),
    })
}

/// The first VAT identifier in a text, without spaces.
pub(super) fn vat_id(text: &str) -> Option<String> {
    Some(VAT_ID.find(text)?.as_str().split_whitespace().collect())
}

/// The first IBAN in a text with valid check digits, without spaces.
pub(super) fn iban(text: &str) -> Option<String> {
    IBAN.find_iter(text)
        .map(|found| found.as_str().split_whitespace().collect::<String>())
        .find_map(|found| {
            // The match may include following text.
            (15..=found.len().min(34))
                .rev()
                .map(|length| &found[..length])
                .find(|part| is_iban(part))
                .map(str::to_owned)
        })
}

/// ISO 13616: the rearranged text, read as a number, is 1 modulo 97.
fn is_iban(text: &str) -> bool {
    let rearranged = text[4..].chars().chain(text[..4].chars());
    let remainder =
        rearranged.filter_map(|char| char.to_digit(36)).fold(0_u32, |remainder, digit| {
            (if digit > 9 { remainder * 100 + digit } else { remainder * 10 + digit }) % 97
        });
    remainder == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pattern_compiles() {
        let all = [
            &ISO_DATE,
            &NUMERIC_DATE,
            &DAY_FIRST,
            &MONTH_FIRST,
            &AMOUNT,
            &VAT_ID,
            &IBAN,
            &CURRENCY,
        ];
        assert!(all.iter().all(|pattern| !pattern.as_str().is_empty()));
    }

    #[test]
    fn dates_are_parsed_in_common_notations() {
        for (text, expected) in [
            ("2026-11-23", Some(("2026-11-23", true))),
            ("23.11.2026", Some(("2026-11-23", true))),
            ("23. 11. 2026", Some(("2026-11-23", true))),
            ("11/23/2026", Some(("2026-11-23", true))),
            ("03/04/2026", Some(("2026-04-03", false))),
            ("3. März 2026", Some(("2026-03-03", true))),
            ("November 23rd, 2026", Some(("2026-11-23", true))),
            ("le 1er août 2026", Some(("2026-08-01", true))),
            ("23 de noviembre de 2026", Some(("2026-11-23", true))),
            ("31.02.2026", None),
            ("Order 12 Foo 2026", None),
            ("2026", None),
        ] {
            let expected = expected.map(|(date, is_unambiguous)| (date.to_owned(), is_unambiguous));
            assert_eq!(date(text), expected, "{text}");
        }
    }

    #[test]
    fn amounts_are_parsed_with_every_separator() {
        for (text, expected) in [
            ("1,234.56", Some("1234.56")),
            ("EUR 1.234,56", Some("1234.56")),
            ("1 234 567,89 €", Some("1234567.89")),
            ("1'234.50 CHF", Some("1234.50")),
            ("1234.56", Some("1234.56")),
            ("19 % 190,00", Some("190.00")),
            ("-12,00", Some("-12.00")),
            ("1234", None),
            ("v1.2.3", None),
        ] {
            assert_eq!(
                amount(text).map(|amount| amount.to_string()).as_deref(),
                expected,
                "{text}"
            );
        }
    }

    #[test]
    fn identifiers_are_distinguished_from_lookalikes() {
        assert_eq!(
            iban("IBAN: DE89 3704 0044 0532 0130 00").as_deref(),
            Some("DE89370400440532013000")
        );
        assert_eq!(iban("DE89 3704 0044 0532 0130 01"), None);
        assert_eq!(vat_id("USt-IdNr.: DE 123456789").as_deref(), Some("DE123456789"));
        assert_eq!(vat_id("TVA FR 40 303265045").as_deref(), Some("FR40303265045"));
        assert_eq!(vat_id("DE12345"), None);
        assert_eq!(currency("Total (CHF)"), Some(("CHF", true)));
        assert_eq!(currency("$ 12.00"), Some(("USD", false)));
    }
}
