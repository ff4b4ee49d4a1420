//! Approves invoices, and requires the person's confirmation above a limit.

use std::collections::{BTreeMap, HashMap};

use drawbridge_proto::{
    invoices::v1::{ApproveRequest, ApproveResponse},
    mcp::v1::{
        ElicitForm, ElicitResult, InputRequest, InputRequired, InputResponses,
        elicit_result::Action, input_request, input_response,
    },
};
use prost_types::{ListValue, Struct, Value, value::Kind};
use rust_decimal::Decimal;

use super::{InvoiceApi, review::sanitize};
use crate::{
    decimal,
    error::InvoiceError,
    store::{Access, CallerContext, StoredInvoice, approve::Approve, find::Find},
};

/// The key of the elicitation request, and the field of its form.
const REQUEST_KEY: &str = "confirm";
const FIELD: &str = "approve";

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
            let claims = &call.caller.claims;
            let is_program = claims.tctx.facts.as_ref().is_none_or(|facts| facts.workload);
            // Only the edge asks the person itself. A program or an intermediate service could
            // forge the response.
            if claims.act.is_some() || is_program {
                return Err(InvoiceError::PersonNeeded);
            }
            match parse_confirmation(&interaction.unwrap_or_default(), &stored) {
                Some(true) => {}
                Some(false) => return Err(InvoiceError::NotConfirmed),
                None => {
                    return Ok(ApproveResponse {
                        invoice: None,
                        input_required: Some(confirmation_request(&stored)),
                    });
                }
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

/// The person's response about this invoice. None: not asked yet.
fn parse_confirmation(interaction: &InputResponses, stored: &StoredInvoice) -> Option<bool> {
    if interaction.state != confirmation_state(stored) {
        return None;
    }
    match interaction.responses.get(REQUEST_KEY)?.kind.as_ref()? {
        input_response::Kind::Elicitation(result) => {
            Some(result.action() == Action::Accept && is_confirmed(result))
        }
        _ => None,
    }
}

fn is_confirmed(result: &ElicitResult) -> bool {
    let field = result.content.as_ref().and_then(|content| content.fields.get(FIELD));
    matches!(field.and_then(|value| value.kind.as_ref()), Some(Kind::BoolValue(true)))
}

/// The request state: identifies the invoice and amounts that the person was asked about.
fn confirmation_state(stored: &StoredInvoice) -> Vec<u8> {
    [&stored.id, &stored.gross_amount, &stored.payable_amount, &stored.currency]
        .map(String::as_str)
        .join(" ")
        .into()
}

fn confirmation_request(stored: &StoredInvoice) -> InputRequired {
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
    let field =
        object([("type", text("boolean")), ("title", text("Approve this invoice for payment"))]);
    let schema = [
        ("type", text("object")),
        ("properties", object([(FIELD, field)])),
        ("required", Kind::ListValue(ListValue { values: vec![value(text(FIELD))] })),
    ];
    let form = ElicitForm { message, requested_schema: Some(fields(schema)) };
    let request = InputRequest { kind: Some(input_request::Kind::Form(form)) };
    InputRequired {
        requests: HashMap::from([(REQUEST_KEY.to_owned(), request)]),
        state: confirmation_state(stored),
    }
}

fn fields<const N: usize>(fields: [(&str, Kind); N]) -> Struct {
    let fields: BTreeMap<_, _> =
        fields.into_iter().map(|(name, kind)| (name.to_owned(), value(kind))).collect();
    Struct { fields }
}

fn object<const N: usize>(of: [(&str, Kind); N]) -> Kind {
    Kind::StructValue(fields(of))
}

fn text(text: &str) -> Kind {
    Kind::StringValue(text.to_owned())
}

fn value(kind: Kind) -> Value {
    Value { kind: Some(kind) }
}
