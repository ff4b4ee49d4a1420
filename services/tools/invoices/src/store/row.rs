use drawbridge_proto::invoices::v1::{Approval, InvoiceStatus, InvoiceSummary};
use drawbridge_sdk::transaction_token::Principal;
use sqlx::{ColumnIndex, Decode, FromRow, Row, Type};

/// The columns of an invoice in a list.
pub(super) const SUMMARY: &str = "id, owner, shared, kind, number, issue_date, due_date, \
    seller_name, seller_vat_id, buyer_name, currency, gross_amount, payable_amount, saved_at, \
    approved_by, approved_at, confirmed";
/// Invoices with their approvals.
pub(super) const FROM: &str = "FROM invoices LEFT JOIN approvals ON invoice_id = id";

/// An invoice in a list.
#[derive(Clone, Debug)]
pub(crate) struct StoredInvoice {
    pub(crate) id: String,
    pub(crate) owner: String,
    shared: bool,
    kind: i32,
    pub(crate) number: String,
    issue_date: String,
    due_date: String,
    pub(crate) seller_name: String,
    seller_vat_id: String,
    buyer_name: String,
    pub(crate) currency: String,
    pub(crate) gross_amount: String,
    pub(crate) payable_amount: String,
    saved_at: String,
    approved_by: Option<String>,
    approved_at: Option<String>,
    confirmed: Option<bool>,
}

impl<'r, R: Row> FromRow<'r, R> for StoredInvoice
where
    &'static str: ColumnIndex<R>,
    bool: Decode<'r, R::Database> + Type<R::Database>,
    i32: Decode<'r, R::Database> + Type<R::Database>,
    String: Decode<'r, R::Database> + Type<R::Database>,
{
    fn from_row(row: &'r R) -> Result<Self, sqlx::Error> {
        Ok(Self {
            id: row.try_get("id")?,
            owner: row.try_get("owner")?,
            shared: row.try_get("shared")?,
            kind: row.try_get("kind")?,
            number: row.try_get("number")?,
            issue_date: row.try_get("issue_date")?,
            due_date: row.try_get("due_date")?,
            seller_name: row.try_get("seller_name")?,
            seller_vat_id: row.try_get("seller_vat_id")?,
            buyer_name: row.try_get("buyer_name")?,
            currency: row.try_get("currency")?,
            gross_amount: row.try_get("gross_amount")?,
            payable_amount: row.try_get("payable_amount")?,
            saved_at: row.try_get("saved_at")?,
            approved_by: row.try_get("approved_by")?,
            approved_at: row.try_get("approved_at")?,
            confirmed: row.try_get("confirmed")?,
        })
    }
}

impl StoredInvoice {
    pub(crate) fn is_approved(&self) -> bool {
        self.approved_by.is_some()
    }
}

impl From<StoredInvoice> for InvoiceSummary {
    fn from(stored: StoredInvoice) -> Self {
        let status =
            if stored.is_approved() { InvoiceStatus::Approved } else { InvoiceStatus::Open };
        let approval = stored.approved_by.map(|principal| {
            let [subject, _, issuer] = Principal::parts(&principal);
            Approval {
                approved_by: subject,
                issuer,
                approved_at: stored.approved_at.unwrap_or_default(),
                confirmed: stored.confirmed.unwrap_or_default(),
            }
        });
        let [saved_by, _, _] = Principal::parts(&stored.owner);
        let non_empty = |text: String| Some(text).filter(|text| !text.is_empty());
        Self {
            uri: format!("invoice://{}", stored.id),
            invoice_id: stored.id,
            kind: stored.kind,
            number: stored.number,
            seller_name: stored.seller_name,
            seller_vat_id: stored.seller_vat_id,
            buyer_name: stored.buyer_name,
            issue_date: non_empty(stored.issue_date),
            due_date: non_empty(stored.due_date),
            currency: stored.currency,
            gross_amount: non_empty(stored.gross_amount),
            payable_amount: non_empty(stored.payable_amount),
            status: status.into(),
            shared: stored.shared,
            saved_by,
            saved_at: stored.saved_at,
            approval,
        }
    }
}
