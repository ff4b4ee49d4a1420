//! Approves invoices, and requires the person's confirmation above a limit.

use drawbridge_proto::invoices::v1::{ApproveRequest, ApproveResponse};
use drawbridge_sdk::Confirmation;
use rust_decimal::Decimal;

use super::{InvoiceApi, review::sanitize};
use crate::{
    decimal,
    error::InvoiceError,
    store::{Access, CallerContext, StoredInvoice, approve::Approve, find::Find},
};

/// The amount above which a person must confirm.
#[derive(Clone, Debug)]
pub(crate) struct ApprovalLimit {
    pub(crate) amount: Decimal,
    /// No exchange rates are known, so amounts in another currency always require confirmation.
    pub(crate) currency: String,
}

impl ApprovalLimit {
    /// Whether a person must confirm it. Both the amount due and the total count, by absolute
    /// value.
    fn needs_confirmation(&self, stored: &StoredInvoice) -> bool {
        let amounts =
            [&stored.gross_amount, &stored.payable_amount].map(|text| decimal::parse(text));
        let largest = amounts.into_iter().flatten().map(|amount| amount.abs()).max();
        stored.currency != self.currency || largest.is_none_or(|largest| largest > self.amount)
    }
}

impl InvoiceApi {
    pub(super) async fn approve_invoice(
        &self,
        call: &CallerContext,
        request: ApproveRequest,
    ) -> Result<ApproveResponse, InvoiceError> {
        let ApproveRequest { invoice_id, interaction } = request;
        let find = Find { id: &invoice_id, access: Access::Approve };
        let (stored, _) = self.store.run(call, &find).await?.ok_or(InvoiceError::NotFound)?;
        if stored.is_approved() {
            return Ok(ApproveResponse { invoice: Some(stored.into()), input_required: None });
        }
        let confirmed = self.limit.needs_confirmation(&stored);
        if confirmed {
            let question = confirmation(&stored).check(&call.caller, interaction.as_ref())?;
            if question.is_some() {
                return Ok(ApproveResponse { invoice: None, input_required: question });
            }
        }
        let approved = self.store.run(call, &Approve { id: &invoice_id, confirmed }).await?;
        let (stored, is_new) = approved.ok_or(InvoiceError::NotFound)?;
        if is_new {
            tracing::info!(invoice = stored.id, confirmed, "approved");
        }
        Ok(ApproveResponse { invoice: Some(stored.into()), input_required: None })
    }
}

/// The request state: identifies the invoice and amounts that the person was asked about.
fn confirmation_state(stored: &StoredInvoice) -> Vec<u8> {
    [&stored.id, &stored.gross_amount, &stored.payable_amount, &stored.currency]
        .map(String::as_str)
        .join(" ")
        .into()
}

fn confirmation(stored: &StoredInvoice) -> Confirmation {
    let currency = sanitize(&stored.currency);
    let amount_text = |amount: &str| {
        if amount.is_empty() {
            "an unknown amount".to_owned()
        } else {
            format!("{amount} {currency}")
        }
    };
    let (due, total) = (amount_text(&stored.payable_amount), amount_text(&stored.gross_amount));
    let total = if due == total { String::new() } else { format!(", of a total of {total}") };
    let message = format!(
        "Approve invoice {} of {} for payment: {due}{total}? This cannot be undone.",
        sanitize(&stored.number),
        sanitize(&stored.seller_name),
    );
    Confirmation::new(message)
        .with_checkbox("approve", "Approve this invoice for payment")
        .with_state(confirmation_state(stored))
}
