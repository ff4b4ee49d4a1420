use drawbridge_proto::invoices::v1::{Approval, InvoiceStatus, InvoiceSummary};
use drawbridge_sdk::identity::Principal;

/// What of a stored invoice is told in a list.
pub(super) const SUMMARY: &str = "id, owner, shared, kind, number, issue_date, due_date, seller_name, seller_vat_id, \
     buyer_name, currency, gross_amount, payable_amount, saved_at, approved_by, approved_at, confirmed";
/// Invoices with their approvals.
pub(super) const FROM: &str = "FROM invoices LEFT JOIN approvals ON invoice_id = id";

/// An invoice in a list.
#[derive(Clone, Debug, sqlx::FromRow)]
pub(crate) struct Stored {
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

impl Stored {
    pub(crate) fn is_approved(&self) -> bool {
        self.approved_by.is_some()
    }
}

impl From<Stored> for InvoiceSummary {
    fn from(stored: Stored) -> Self {
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
        let said = |text: String| Some(text).filter(|text| !text.is_empty());
        Self {
            uri: format!("invoice://{}", stored.id),
            invoice_id: stored.id,
            kind: stored.kind,
            number: stored.number,
            seller_name: stored.seller_name,
            seller_vat_id: stored.seller_vat_id,
            buyer_name: stored.buyer_name,
            issue_date: said(stored.issue_date),
            due_date: said(stored.due_date),
            currency: stored.currency,
            gross_amount: said(stored.gross_amount),
            payable_amount: said(stored.payable_amount),
            status: status.into(),
            shared: stored.shared,
            saved_by,
            saved_at: stored.saved_at,
            approval,
        }
    }
}
