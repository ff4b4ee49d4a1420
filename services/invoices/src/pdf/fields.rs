//! What an invoice says in its text, found by the labels that invoices commonly have.
//!
//! A label in one of six languages stands before its value: on the same line, or at the head of the column below. How sure a
//! field is follows from the label, from where the value stands, and from whether the value checks itself. What is not found
//! is absent: nothing is made up, and no line items or names are guessed.

use drawbridge_proto::invoices::v1::{
    Confidence, ExtractResult, Finding, Invoice, InvoiceKind, Party, PaymentMeans, Severity,
    Syntax, Totals,
};
use rust_decimal::Decimal;

use super::{
    budget,
    labels::{BUYERS, CREDIT_NOTE, DUE, GROSS, ISSUED, Labels, NET, NUMBER, PAYABLE, TAX},
    text::COLUMN,
    values::{amount, currency, date, iban, vat_id},
};
use crate::error::InvoiceError;

/// The rule of the finding that the text was read.
pub(crate) const RULE: &str = "TEXT";
/// What it says.
pub(crate) const NOT_CHECKED: &str = "its fields are found in its text, and rules are not checked";

/// A label that means one thing, and its value on the same line.
const SURE: f64 = 0.9;
/// A label that often means it.
const LIKELY: f64 = 0.6;
/// The value stands below the label.
const BELOW: f64 = 0.8;
/// A value that could be read otherwise.
const DOUBTFUL: f64 = 0.5;
/// A value that checks itself, as an IBAN does, or amounts that add up.
const CHECKED: f64 = 0.97;

/// Reads what the lines of a PDF say.
///
/// # Errors
/// When they name neither a number nor an amount: it is no invoice, or none with text.
pub(crate) fn read(lines: &[String]) -> Result<ExtractResult, InvoiceError> {
    let text =
        Text { lines: lines.iter().map(|line| (line.as_str(), line.to_lowercase())).collect() };
    let mut confidences = Vec::new();
    let mut sure = |field: &str, confidence: f64| {
        confidences.push(Confidence { field: field.to_owned(), confidence });
    };
    let mut note = |field: &str, found: Option<Found<String>>| {
        found.map(|found| {
            sure(field, found.confidence);
            found.value
        })
    };
    let number = note("number", text.labelled(&NUMBER, invoice_number));
    let day = |labels| text.labelled(labels, date).map(Found::certain);
    let issue_date = note("issue_date", day(&ISSUED));
    let due_date = note("due_date", day(&DUE));
    let totals = text.totals();
    if number.is_none() && totals.is_empty() {
        return Err(InvoiceError::document(
            "is a PDF without an attached invoice (Factur-X, ZUGFeRD), and its text names no number and no amount of one",
        ));
    }
    let currency = note("currency", text.currency());
    let seller = note("seller.vat_id", text.sellers_vat_id());
    let account = text.first(iban).map(|value| Found { value, confidence: CHECKED });
    let account = note("payment_means[0].account", account);
    let mut amount = |field: &'static str| {
        let found = totals.iter().find(|(name, _)| *name == field).map(|(_, found)| found);
        let found = found
            .map(|found| Found { value: found.value.to_string(), confidence: found.confidence });
        note(&format!("totals.{field}"), found)
    };
    let totals = Totals {
        net_amount: amount("net_amount"),
        tax_amount: amount("tax_amount"),
        gross_amount: amount("gross_amount"),
        payable_amount: amount("payable_amount"),
        ..Totals::default()
    };
    let kind = if text.says(CREDIT_NOTE) { InvoiceKind::CreditNote } else { InvoiceKind::Invoice };
    let invoice = Invoice {
        syntax: Syntax::PdfText.into(),
        kind: kind.into(),
        number: number.unwrap_or_default(),
        issue_date,
        due_date,
        currency: currency.unwrap_or_default(),
        seller: seller.map(|vat_id| Party { vat_id, ..Party::default() }),
        payment_means: account
            .map(|account| PaymentMeans { account, ..PaymentMeans::default() })
            .into_iter()
            .collect(),
        totals: Some(totals),
        ..Invoice::default()
    };
    let finding = Finding {
        rule: RULE.to_owned(),
        severity: Severity::Warning.into(),
        message: format!("the document is no electronic invoice: {NOT_CHECKED}"),
        field: String::new(),
    };
    Ok(ExtractResult {
        invoice: Some(invoice),
        findings: vec![finding],
        findings_truncated: false,
        confidences,
    })
}

/// A value, and how sure it is.
#[derive(Clone, Debug)]
struct Found<T> {
    value: T,
    confidence: f64,
}

impl Found<(String, bool)> {
    /// The value alone, which is less sure when there is a doubt.
    fn certain(self) -> Found<String> {
        let Found { value: (value, one_way), confidence } = self;
        Found { value, confidence: if one_way { confidence } else { confidence * DOUBTFUL } }
    }
}

/// Lines, and the same in lower case.
struct Text<'a> {
    lines: Vec<(&'a str, String)>,
}

impl Text<'_> {
    /// The surest value of a label: of those that are as sure, the first.
    fn labelled<T>(&self, labels: &Labels, value: impl Fn(&str) -> Option<T>) -> Option<Found<T>> {
        let mut best: Option<Found<T>> = None;
        let kinds: [(_, f64, &[&str]); 2] =
            [(labels.sure, SURE, &[]), (labels.likely, LIKELY, labels.not)];
        for (labels, confidence, not) in kinds {
            for (index, (_, lower)) in self.lines.iter().enumerate() {
                budget::check_time();
                if not.iter().any(|word| after_label(lower, word).is_some()) {
                    continue;
                }
                let found =
                    labels.iter().find_map(|label| self.at(index, label, confidence, &value));
                if let Some(found) = found.filter(|found| {
                    best.as_ref().is_none_or(|best| found.confidence > best.confidence)
                }) {
                    best = Some(found);
                }
            }
        }
        best
    }

    /// The value of a label on one line: behind it, or in its column on the next.
    fn at<T>(
        &self,
        index: usize,
        label: &str,
        confidence: f64,
        value: impl Fn(&str) -> Option<T>,
    ) -> Option<Found<T>> {
        let (_, lower) = self.lines.get(index)?;
        let (line, _) = self.lines.get(index)?;
        for (column, (cell, own)) in lower.split(COLUMN).zip(line.split(COLUMN)).enumerate() {
            let Some(after) = after_label(cell, label) else { continue };
            budget::check_time();
            // Lower case may be longer than what it is of: then the cell is read as a whole.
            let rest = own.get(after..).filter(|_| own.len() == cell.len()).unwrap_or(own);
            let others = line.split(COLUMN).skip(column + 1);
            let others = others.inspect(|_| budget::check_time());
            let behind = value(rest).or_else(|| { others }.find_map(&value));
            if let Some(value) = behind {
                return Some(Found { value, confidence });
            }
            let (below, _) = self.lines.get(index + 1)?;
            let below = below.split(COLUMN).nth(column).and_then(&value);
            if let Some(value) = below {
                return Some(Found { value, confidence: confidence * BELOW });
            }
        }
        None
    }

    fn first<T>(&self, value: impl Fn(&str) -> Option<T>) -> Option<T> {
        self.lines.iter().find_map(|(line, _)| {
            budget::check_time();
            value(line)
        })
    }

    fn says(&self, words: &[&str]) -> bool {
        self.lines
            .iter()
            .any(|(_, line)| words.iter().any(|word| after_label(line, word).is_some()))
    }

    /// The amounts of the whole document. Those that add up check one another.
    fn totals(&self) -> Vec<(&'static str, Found<Decimal>)> {
        let find = |labels| self.labelled(labels, amount);
        let (net, tax, mut gross) = (find(&NET), find(&TAX), find(&GROSS));
        let payable = find(&PAYABLE);
        let adds_up = matches!((&net, &tax, &gross), (Some(net), Some(tax), Some(gross))
            if net.value + tax.value == gross.value);
        // What is due is the total, where nothing else is said to be.
        if gross.is_none()
            && net.as_ref().zip(tax.as_ref()).map(|(net, tax)| net.value + tax.value)
                == payable.as_ref().map(|payable| payable.value)
        {
            gross.clone_from(&payable);
        }
        let payable = payable.or_else(|| {
            gross.clone().map(|gross| Found { confidence: gross.confidence * BELOW, ..gross })
        });
        let found = [
            ("net_amount", net),
            ("tax_amount", tax),
            ("gross_amount", gross),
            ("payable_amount", payable),
        ];
        let found = found.into_iter().filter_map(|(field, found)| Some((field, found?)));
        let checked = |(field, found): (&'static str, Found<Decimal>)| {
            let confidence =
                if adds_up && field != "payable_amount" { CHECKED } else { found.confidence };
            (field, Found { confidence, ..found })
        };
        found.map(checked).collect()
    }

    /// The currency that stands beside the totals, or else anywhere.
    fn currency(&self) -> Option<Found<String>> {
        let named = |confidence: f64, (code, certain): (&str, bool)| Found {
            value: code.to_owned(),
            confidence: if certain { confidence } else { confidence * DOUBTFUL },
        };
        let labels = [PAYABLE.sure, GROSS.sure, GROSS.likely];
        let is_total = |lower: &str| {
            labels
                .iter()
                .any(|labels| labels.iter().any(|label| after_label(lower, label).is_some()))
        };
        let totals =
            self.lines.iter().filter(|(line, lower)| is_total(lower) && amount(line).is_some());
        let beside = totals.filter_map(|(line, _)| currency(line)).next();
        beside.map(|found| named(SURE, found)).or_else(|| {
            self.lines.iter().find_map(|(line, _)| currency(line)).map(|found| named(LIKELY, found))
        })
    }

    /// The first VAT identifier: the seller's stands in the head or the foot of the page, the buyer's says so.
    fn sellers_vat_id(&self) -> Option<Found<String>> {
        let of_buyer = |cell: &str| BUYERS.iter().any(|word| cell.to_lowercase().contains(word));
        let ids = self.lines.iter().flat_map(|(line, _)| {
            // The cell before may be the label.
            let cells = line
                .split(COLUMN)
                .scan("", |before, cell| Some((std::mem::replace(before, cell), cell)));
            cells
                .filter(|(before, cell)| !of_buyer(before) && !of_buyer(cell))
                .filter_map(|(_, cell)| vat_id(cell))
        });
        let mut ids: Vec<_> = ids.collect();
        ids.dedup();
        let confidence = if ids.len() == 1 { SURE } else { DOUBTFUL };
        ids.into_iter().next().map(|value| Found { value, confidence })
    }
}

/// Where a label ends in a text, if it stands there as words of their own.
fn after_label(lower: &str, label: &str) -> Option<usize> {
    lower.match_indices(label).find_map(|(start, _)| {
        let end = start + label.len();
        let before = lower[..start].chars().next_back();
        let after = lower[end..].chars().next();
        let is_word = |char: Option<char>| char.is_some_and(char::is_alphanumeric);
        let goes_on = is_word(after) && label.ends_with(char::is_alphanumeric);
        (!is_word(before) && !goes_on).then_some(end)
    })
}

/// The first word that has a digit and is no date: numbers of invoices have one.
fn invoice_number(text: &str) -> Option<String> {
    let text = text.trim_start_matches(|char: char| ":.#°º".contains(char) || char.is_whitespace());
    let text = text.strip_prefix("Nr.").or_else(|| text.strip_prefix("No.")).unwrap_or(text);
    let word = text.split_whitespace().next()?.trim_matches([',', ';', ':', '.', '#', '(', ')']);
    let is_one = (1..=40).contains(&word.chars().count())
        && word.contains(|char: char| char.is_ascii_digit())
        && word.chars().all(|char| char.is_alphanumeric() || "-/._#".contains(char))
        && date(word).is_none();
    is_one.then(|| word.to_owned())
}
