//! The stored columns of an invoice besides its document: for listing and for searching.

use data_encoding::HEXLOWER;
use drawbridge_proto::invoices::v1::{ExtractResult, Party};
use prost::Message as _;
use sha2::{Digest as _, Sha256};

use crate::{decimal, document::Document};

/// The longest invoice number, in characters.
const NUMBER_CHARS_MAX: usize = 200;
/// The maximum length of a listed name, in characters. The invoice has the full name.
const NAME_CHARS_MAX: usize = 300;
/// How much text of an invoice is searched, in bytes.
const TEXT_BYTES_MAX: usize = 64 * 1024;

/// Why an invoice cannot be stored.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ColumnsError {
    #[error("has no invoice number or no seller, so it cannot be identified")]
    Unidentified,
    #[error("has a number of more than {} characters", NUMBER_CHARS_MAX)]
    NumberTooLong,
}

/// An invoice to store.
#[derive(Debug)]
pub(crate) struct Columns {
    pub(super) kind: i32,
    /// The seller's VAT identifier, or else the name. With number and date it identifies the
    /// invoice.
    pub(super) seller_key: String,
    pub(super) number: String,
    pub(super) issue_date: String,
    pub(super) due_date: String,
    pub(super) seller_name: String,
    pub(super) seller_vat_id: String,
    pub(super) buyer_name: String,
    pub(super) currency: String,
    pub(super) gross_amount: String,
    pub(super) payable_amount: String,
    /// The sort key of the amount due.
    pub(super) payable_order: String,
    pub(super) supplier_text: String,
    pub(super) full_text: String,
    pub(super) digest: String,
    pub(super) extracted: Vec<u8>,
}

impl Columns {
    /// The texts that are stored.
    pub(super) fn bound_texts(&self) -> Vec<&str> {
        [
            &self.seller_key,
            &self.number,
            &self.issue_date,
            &self.due_date,
            &self.seller_name,
            &self.seller_vat_id,
            &self.buyer_name,
            &self.currency,
            &self.gross_amount,
            &self.payable_amount,
            &self.payable_order,
            &self.supplier_text,
            &self.full_text,
            &self.digest,
        ]
        .map(String::as_str)
        .to_vec()
    }

    /// The columns of a document and its extracted invoice.
    ///
    /// # Errors
    /// When the invoice has no number or no seller, or its number is too long.
    pub(crate) fn of(document: &Document, extracted: &ExtractResult) -> Result<Self, ColumnsError> {
        let invoice = extracted.invoice.clone().unwrap_or_default();
        let (seller, buyer) =
            (invoice.seller.unwrap_or_default(), invoice.buyer.unwrap_or_default());
        let totals = invoice.totals.unwrap_or_default();
        let seller_key =
            if seller.vat_id.is_empty() { display_name(&seller) } else { &seller.vat_id };
        let seller_key = truncate(&normalize(seller_key), NAME_CHARS_MAX);
        let number = invoice.number.trim().to_owned();
        if number.is_empty() || seller_key.is_empty() {
            return Err(ColumnsError::Unidentified);
        }
        if number.chars().count() > NUMBER_CHARS_MAX {
            return Err(ColumnsError::NumberTooLong);
        }
        let supplier_text = search_text([&seller.name, &seller.trading_name, &seller.vat_id]);
        let parties: [&Party; 2] = [&seller, &buyer];
        let searched = [
            &number,
            &invoice.buyer_reference,
            &invoice.order_reference,
            &invoice.contract_reference,
        ]
        .into_iter()
        .chain(
            parties.into_iter().flat_map(|party| [&party.name, &party.trading_name, &party.vat_id]),
        )
        .chain(&invoice.notes)
        .chain([&invoice.payment_terms])
        .chain(
            invoice
                .lines
                .iter()
                .flat_map(|line| [&line.item_name, &line.item_description, &line.note]),
        );
        let payable = decimal::parse_option(totals.payable_amount.as_ref());
        Ok(Self {
            kind: invoice.kind,
            full_text: search_text(searched),
            supplier_text,
            seller_key,
            number,
            issue_date: invoice.issue_date.unwrap_or_default(),
            due_date: invoice.due_date.unwrap_or_default(),
            seller_name: truncate(display_name(&seller), NAME_CHARS_MAX),
            seller_vat_id: truncate(&seller.vat_id, NAME_CHARS_MAX),
            buyer_name: truncate(display_name(&buyer), NAME_CHARS_MAX),
            currency: truncate(&invoice.currency, NAME_CHARS_MAX),
            gross_amount: totals.gross_amount.unwrap_or_default(),
            payable_amount: totals.payable_amount.unwrap_or_default(),
            payable_order: payable.map(decimal::sort_key).unwrap_or_default(),
            digest: HEXLOWER.encode(&Sha256::digest(&document.bytes)),
            extracted: extracted.encode_to_vec(),
        })
    }
}

/// A party's legal name, or else its trading name.
fn display_name(party: &Party) -> &str {
    if party.name.is_empty() { &party.trading_name } else { &party.name }
}

/// The text in lower case, with single spaces.
pub(super) fn normalize(text: &str) -> String {
    text.to_lowercase().split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The normalized texts, one per line, truncated to the searched length.
fn search_text<'a>(bound_texts: impl IntoIterator<Item = &'a String>) -> String {
    let mut all = String::new();
    for text in bound_texts.into_iter().filter(|text| !text.is_empty()) {
        all.push_str(&normalize(
            text.get(..text.floor_char_boundary(TEXT_BYTES_MAX)).unwrap_or_default(),
        ));
        all.push('\n');
        if all.len() > TEXT_BYTES_MAX {
            all.truncate(all.floor_char_boundary(TEXT_BYTES_MAX));
            break;
        }
    }
    // PostgreSQL's text type and XML do not allow NUL.
    all.retain(|char| char != '\0');
    all
}

fn truncate(text: &str, chars_max: usize) -> String {
    text.chars().take(chars_max).collect()
}
