//! Finds invoice fields in text by common labels.
//!
//! A label in one of six languages precedes its value: on the same line, or as the head of the
//! column below. The confidence of a field depends on the label, on the value's position, and on
//! whether the value can be verified. Fields that are not found are absent; line items and names
//! are not guessed.

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

/// The rule id of the finding that fields come from the text.
pub(crate) const RULE: &str = "TEXT";
/// The message of that finding.
pub(crate) const NOT_CHECKED: &str = "fields come from its text, and rules are not checked";

/// An unambiguous label with its value on the same line.
const CONFIDENCE_SURE: f64 = 0.9;
/// An ambiguous label.
const CONFIDENCE_LIKELY: f64 = 0.6;
/// The value is below the label.
const FACTOR_BELOW: f64 = 0.8;
/// An ambiguous value.
const FACTOR_DOUBTFUL: f64 = 0.5;
/// A verified value: an IBAN with valid check digits, or amounts that add up.
const CONFIDENCE_CHECKED: f64 = 0.97;

/// Finds the fields of an invoice in the lines of a PDF.
///
/// # Errors
/// When there is neither a number nor an amount: it is not an invoice, or has no text.
pub(crate) fn read(lines: &[String]) -> Result<ExtractResult, InvoiceError> {
    let text = TextLines {
        lines: lines.iter().map(|line| (line.as_str(), line.to_lowercase())).collect(),
    };
    let mut confidences = Vec::new();
    let mut record = |field: &str, confidence: f64| {
        confidences.push(Confidence { field: field.to_owned(), confidence });
    };
    let mut take = |field: &str, found: Option<Detected<String>>| {
        found.map(|found| {
            record(field, found.confidence);
            found.value
        })
    };
    let number = take("number", text.find_labelled(&NUMBER, invoice_number));
    let day = |labels| text.find_labelled(labels, date).map(Detected::into_value);
    let issue_date = take("issue_date", day(&ISSUED));
    let due_date = take("due_date", day(&DUE));
    let totals = text.totals();
    if number.is_none() && totals.is_empty() {
        return Err(InvoiceError::document(
            "is a PDF without an attached invoice (Factur-X, ZUGFeRD), and its text has neither \
             an invoice number nor an amount",
        ));
    }
    let currency = take("currency", text.currency());
    let seller = take("seller.vat_id", text.sellers_vat_id());
    let account = text.first(iban).map(|value| Detected { value, confidence: CONFIDENCE_CHECKED });
    let account = take("payment_means[0].account", account);
    let mut amount = |field: &'static str| {
        let found = totals.iter().find(|(name, _)| *name == field).map(|(_, found)| found);
        let found = found
            .map(|found| Detected { value: found.value.to_string(), confidence: found.confidence });
        take(&format!("totals.{field}"), found)
    };
    let totals = Totals {
        net_amount: amount("net_amount"),
        tax_amount: amount("tax_amount"),
        gross_amount: amount("gross_amount"),
        payable_amount: amount("payable_amount"),
        ..Totals::default()
    };
    let invoice = Invoice {
        syntax: Syntax::PdfText.into(),
        kind: text.kind().into(),
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
    Ok(ExtractResult {
        invoice: Some(invoice),
        findings: vec![not_electronic()],
        findings_truncated: false,
        confidences,
    })
}

fn not_electronic() -> Finding {
    Finding {
        rule: RULE.to_owned(),
        severity: Severity::Warning.into(),
        message: format!("the document is not an electronic invoice: {NOT_CHECKED}"),
        field: String::new(),
    }
}

/// A value with its confidence.
#[derive(Clone, Debug)]
struct Detected<T> {
    value: T,
    confidence: f64,
}

impl Detected<(String, bool)> {
    /// The value, with less confidence if it is ambiguous.
    fn into_value(self) -> Detected<String> {
        let Detected { value: (value, is_unambiguous), confidence } = self;
        Detected {
            value,
            confidence: if is_unambiguous { confidence } else { confidence * FACTOR_DOUBTFUL },
        }
    }
}

/// Lines, and the same lines in lower case.
struct TextLines<'a> {
    lines: Vec<(&'a str, String)>,
}

impl TextLines<'_> {
    /// The value of a label with the highest confidence; the first of equal ones.
    fn find_labelled<T>(
        &self,
        labels: &Labels,
        value: impl Fn(&str) -> Option<T>,
    ) -> Option<Detected<T>> {
        let mut best: Option<Detected<T>> = None;
        let kinds: [(_, f64, &[&str]); 2] = [
            (labels.sure, CONFIDENCE_SURE, &[]),
            (labels.likely, CONFIDENCE_LIKELY, labels.excluded),
        ];
        for (labels, confidence, excluded) in kinds {
            for (index, (_, lower)) in self.lines.iter().enumerate() {
                budget::check_time();
                if excluded.iter().any(|word| after_label(lower, word).is_some()) {
                    continue;
                }
                let found =
                    labels.iter().find_map(|label| self.find_at(index, label, confidence, &value));
                if let Some(found) = found.filter(|found| {
                    best.as_ref().is_none_or(|best| found.confidence > best.confidence)
                }) {
                    best = Some(found);
                }
            }
        }
        best
    }

    /// The value of a label on one line: after it, or in its column on the next line.
    fn find_at<T>(
        &self,
        index: usize,
        label: &str,
        confidence: f64,
        value: impl Fn(&str) -> Option<T>,
    ) -> Option<Detected<T>> {
        let (_, lower) = self.lines.get(index)?;
        let (line, _) = self.lines.get(index)?;
        for (column, (cell, original)) in lower.split(COLUMN).zip(line.split(COLUMN)).enumerate() {
            let Some(after) = after_label(cell, label) else { continue };
            budget::check_time();
            // Lower case may have another length: then the whole cell is read.
            let rest =
                original.get(after..).filter(|_| original.len() == cell.len()).unwrap_or(original);
            let others = line.split(COLUMN).skip(column + 1);
            let others = others.inspect(|_| budget::check_time());
            let behind = value(rest).or_else(|| { others }.find_map(&value));
            if let Some(value) = behind {
                return Some(Detected { value, confidence });
            }
            let (below, _) = self.lines.get(index + 1)?;
            let below = below.split(COLUMN).nth(column).and_then(&value);
            if let Some(value) = below {
                return Some(Detected { value, confidence: confidence * FACTOR_BELOW });
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

    fn kind(&self) -> InvoiceKind {
        if self.contains_any(CREDIT_NOTE) { InvoiceKind::CreditNote } else { InvoiceKind::Invoice }
    }

    fn contains_any(&self, words: &[&str]) -> bool {
        self.lines
            .iter()
            .any(|(_, line)| words.iter().any(|word| after_label(line, word).is_some()))
    }

    /// The totals of the document. Amounts that add up verify one another.
    fn totals(&self) -> Vec<(&'static str, Detected<Decimal>)> {
        let find = |labels| self.find_labelled(labels, amount);
        let (net, tax, mut gross) = (find(&NET), find(&TAX), find(&GROSS));
        let payable = find(&PAYABLE);
        let adds_up = matches!((&net, &tax, &gross), (Some(net), Some(tax), Some(gross))
            if net.value + tax.value == gross.value);
        // The amount due is the total if no other total is given.
        if gross.is_none()
            && net.as_ref().zip(tax.as_ref()).map(|(net, tax)| net.value + tax.value)
                == payable.as_ref().map(|payable| payable.value)
        {
            gross.clone_from(&payable);
        }
        let payable = payable.or_else(|| {
            gross
                .clone()
                .map(|gross| Detected { confidence: gross.confidence * FACTOR_BELOW, ..gross })
        });
        let found = [
            ("net_amount", net),
            ("tax_amount", tax),
            ("gross_amount", gross),
            ("payable_amount", payable),
        ];
        let found = found.into_iter().filter_map(|(field, found)| Some((field, found?)));
        let checked = |(field, found): (&'static str, Detected<Decimal>)| {
            let confidence = if adds_up && field != "payable_amount" {
                CONFIDENCE_CHECKED
            } else {
                found.confidence
            };
            (field, Detected { confidence, ..found })
        };
        found.map(checked).collect()
    }

    /// The currency next to the totals, or else the first one anywhere.
    fn currency(&self) -> Option<Detected<String>> {
        let named = |confidence: f64, (code, into_value): (&str, bool)| Detected {
            value: code.to_owned(),
            confidence: if into_value { confidence } else { confidence * FACTOR_DOUBTFUL },
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
        beside.map(|found| named(CONFIDENCE_SURE, found)).or_else(|| {
            self.lines
                .iter()
                .find_map(|(line, _)| currency(line))
                .map(|found| named(CONFIDENCE_LIKELY, found))
        })
    }

    /// The first VAT identifier that is not labelled as the buyer's: the seller's is in the head or
    /// foot of the page.
    fn sellers_vat_id(&self) -> Option<Detected<String>> {
        let of_buyer = |cell: &str| BUYERS.iter().any(|word| cell.to_lowercase().contains(word));
        let ids = self.lines.iter().flat_map(|(line, _)| {
            // The previous cell may be the label.
            let cells = line
                .split(COLUMN)
                .scan("", |before, cell| Some((std::mem::replace(before, cell), cell)));
            cells
                .filter(|(before, cell)| !of_buyer(before) && !of_buyer(cell))
                .filter_map(|(_, cell)| vat_id(cell))
        });
        let mut ids: Vec<_> = ids.collect();
        ids.dedup();
        let confidence = if ids.len() == 1 { CONFIDENCE_SURE } else { FACTOR_DOUBTFUL };
        ids.into_iter().next().map(|value| Detected { value, confidence })
    }
}

/// The end of a label in a text, if it occurs there as whole words.
fn after_label(lower: &str, label: &str) -> Option<usize> {
    lower.match_indices(label).find_map(|(start, _)| {
        let end = start + label.len();
        let before = lower[..start].chars().next_back();
        let after = lower[end..].chars().next();
        let is_word = |char: Option<char>| char.is_some_and(char::is_alphanumeric);
        let continues = is_word(after) && label.ends_with(char::is_alphanumeric);
        (!is_word(before) && !continues).then_some(end)
    })
}

/// The first word, if it contains a digit and is not a date.
fn invoice_number(text: &str) -> Option<String> {
    let text = text.trim_start_matches(|char: char| ":.#°º".contains(char) || char.is_whitespace());
    let text = text.strip_prefix("Nr.").or_else(|| text.strip_prefix("No.")).unwrap_or(text);
    let word = text.split_whitespace().next()?.trim_matches([',', ';', ':', '.', '#', '(', ')']);
    let is_number = (1..=40).contains(&word.chars().count())
        && word.contains(|char: char| char.is_ascii_digit())
        && word.chars().all(|char| char.is_alphanumeric() || "-/._#".contains(char))
        && date(word).is_none();
    is_number.then(|| word.to_owned())
}
