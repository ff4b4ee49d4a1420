//! What of an invoice is stored beside its document: what is listed, and what is searched.

use drawbridge_proto::invoices::v1::{ExtractResult, Party};
use prost::Message as _;
use sha2::{Digest as _, Sha256};

use crate::{decimal, error::InvoiceError, extract::Document};

/// The longest number of an invoice, in characters.
const NUMBER_CHARS_MAX: usize = 200;
/// How much of a name is listed, in characters. All of it stays in the invoice.
const NAME_CHARS_MAX: usize = 300;
/// How much of an invoice is searched, in bytes.
const TEXT_BYTES_MAX: usize = 64 * 1024;

/// An invoice that is to be stored.
#[derive(Debug)]
pub(crate) struct Columns {
    pub(super) kind: i32,
    /// The seller's VAT identifier, or else the name: with number and date it says which invoice this is.
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
    /// The amount due in a form that sorts as the numbers do.
    pub(super) payable_order: String,
    pub(super) supplier_text: String,
    pub(super) full_text: String,
    pub(super) digest: String,
    pub(super) extracted: Vec<u8>,
}

impl Columns {
    /// The texts that are stored.
    pub(super) fn texts(&self) -> Vec<&str> {
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

    /// What is stored of a document and what was read from it.
    ///
    /// # Errors
    /// When nothing says which invoice it is.
    pub(crate) fn of(document: &Document, extracted: &ExtractResult) -> Result<Self, InvoiceError> {
        let invoice = extracted.invoice.clone().unwrap_or_default();
        let (seller, buyer) =
            (invoice.seller.unwrap_or_default(), invoice.buyer.unwrap_or_default());
        let totals = invoice.totals.unwrap_or_default();
        let seller_key = if seller.vat_id.is_empty() { name(&seller) } else { &seller.vat_id };
        let seller_key = cut(&lower(seller_key), NAME_CHARS_MAX);
        let number = invoice.number.trim().to_owned();
        if number.is_empty() || seller_key.is_empty() {
            return Err(InvoiceError::document(
                "names no number or no seller, so it cannot be told from others",
            ));
        }
        if number.chars().count() > NUMBER_CHARS_MAX {
            return Err(InvoiceError::document(format!(
                "has a number of more than {NUMBER_CHARS_MAX} characters"
            )));
        }
        let supplier_text = text_of([&seller.name, &seller.trading_name, &seller.vat_id]);
        let parties: [&Party; 2] = [&seller, &buyer];
        let said = [
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
        let payable = decimal::of(totals.payable_amount.as_ref());
        Ok(Self {
            kind: invoice.kind,
            full_text: text_of(said),
            supplier_text,
            seller_key,
            number,
            issue_date: invoice.issue_date.unwrap_or_default(),
            due_date: invoice.due_date.unwrap_or_default(),
            seller_name: cut(name(&seller), NAME_CHARS_MAX),
            seller_vat_id: cut(&seller.vat_id, NAME_CHARS_MAX),
            buyer_name: cut(name(&buyer), NAME_CHARS_MAX),
            currency: cut(&invoice.currency, NAME_CHARS_MAX),
            gross_amount: totals.gross_amount.unwrap_or_default(),
            payable_amount: totals.payable_amount.unwrap_or_default(),
            payable_order: payable.map(decimal::order).unwrap_or_default(),
            digest: hex(&Sha256::digest(&document.bytes)),
            extracted: extracted.encode_to_vec(),
        })
    }
}

/// What a party is called: its legal name, or else the one that it trades under.
fn name(party: &Party) -> &str {
    if party.name.is_empty() { &party.trading_name } else { &party.name }
}

/// In one case, with single spaces.
pub(super) fn lower(text: &str) -> String {
    text.to_lowercase().split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A line for each text, in lower case, as much as is searched.
fn text_of<'a>(texts: impl IntoIterator<Item = &'a String>) -> String {
    let mut all = String::new();
    for text in texts.into_iter().filter(|text| !text.is_empty()) {
        all.push_str(&lower(
            text.get(..text.floor_char_boundary(TEXT_BYTES_MAX)).unwrap_or_default(),
        ));
        all.push('\n');
        if all.len() > TEXT_BYTES_MAX {
            all.truncate(all.floor_char_boundary(TEXT_BYTES_MAX));
            break;
        }
    }
    // PostgreSQL's text cannot hold it, and XML cannot either.
    all.retain(|char| char != '\0');
    all
}

fn cut(text: &str, chars_max: usize) -> String {
    text.chars().take(chars_max).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
