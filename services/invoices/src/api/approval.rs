//! Approving an invoice, and asking the person first where it is about much.

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

use super::{InvoiceApi, review::plain};
use crate::{
    decimal,
    error::InvoiceError,
    store::{Access, Asking, Stored, approve::Approve, find::Find},
};

/// The key of the one question, and of the one field of its form.
const QUESTION: &str = "confirm";
const FIELD: &str = "approve";

/// Above which amount a person is asked.
#[derive(Clone, Debug)]
pub(crate) struct Limit {
    pub(crate) amount: Decimal,
    /// Nobody here knows rates: amounts of another currency are always asked for.
    pub(crate) currency: String,
}

impl Limit {
    /// Whether a person must confirm it. What is due and the total both count, and so does an amount that is given back.
    fn needs_confirmation(&self, stored: &Stored) -> bool {
        let amounts =
            [&stored.gross_amount, &stored.payable_amount].map(|text| decimal::parse(text));
        let most = amounts.into_iter().flatten().map(|amount| amount.abs()).max();
        stored.currency != self.currency || most.is_none_or(|most| most > self.amount)
    }
}

impl InvoiceApi {
    pub(super) async fn approval(
        &self,
        asking: &Asking,
        request: ApproveRequest,
    ) -> Result<ApproveResponse, InvoiceError> {
        let ApproveRequest { invoice_id, interaction } = request;
        let find = Find { id: &invoice_id, access: Access::Approve };
        let (stored, _) = self.store.run(asking, &find).await?.ok_or(InvoiceError::NotFound)?;
        if stored.is_approved() {
            return Ok(ApproveResponse { invoice: Some(stored.into()), input_required: None });
        }
        let confirmed = self.limit.needs_confirmation(&stored);
        if confirmed {
            let claims = &asking.caller.claims;
            let is_program = claims.tctx.facts.as_ref().is_none_or(|facts| facts.workload);
            // Answers come from the edge, which asks the person who calls. Others could make them up.
            if claims.act.is_some() || is_program {
                return Err(InvoiceError::PersonNeeded);
            }
            match answer(&interaction.unwrap_or_default(), &stored) {
                Some(true) => {}
                Some(false) => return Err(InvoiceError::NotConfirmed),
                None => {
                    return Ok(ApproveResponse {
                        invoice: None,
                        input_required: Some(question(&stored)),
                    });
                }
            }
        }
        let approved = self.store.run(asking, &Approve { id: &invoice_id, confirmed }).await?;
        let (stored, made) = approved.ok_or(InvoiceError::NotFound)?;
        if made {
            tracing::info!(invoice = stored.id, confirmed, "approved");
        }
        Ok(ApproveResponse { invoice: Some(stored.into()), input_required: None })
    }
}

/// What the person said to the question about this very invoice. Absent: they were not asked yet.
fn answer(given: &InputResponses, stored: &Stored) -> Option<bool> {
    if given.state != state(stored) {
        return None;
    }
    match given.responses.get(QUESTION)?.kind.as_ref()? {
        input_response::Kind::Elicitation(result) => {
            Some(result.action() == Action::Accept && says_yes(result))
        }
        _ => None,
    }
}

fn says_yes(result: &ElicitResult) -> bool {
    let field = result.content.as_ref().and_then(|content| content.fields.get(FIELD));
    matches!(field.and_then(|value| value.kind.as_ref()), Some(Kind::BoolValue(true)))
}

/// What the person was asked about.
fn state(stored: &Stored) -> Vec<u8> {
    [&stored.id, &stored.gross_amount, &stored.payable_amount, &stored.currency]
        .map(String::as_str)
        .join(" ")
        .into()
}

fn question(stored: &Stored) -> InputRequired {
    let currency = plain(&stored.currency);
    let said = |amount: &str| {
        if amount.is_empty() {
            "an amount that is not said".to_owned()
        } else {
            format!("{amount} {currency}")
        }
    };
    let (due, total) = (said(&stored.payable_amount), said(&stored.gross_amount));
    let total = if due == total { String::new() } else { format!(", of a total of {total}") };
    let message = format!(
        "Approve invoice {} of {} for payment: {due}{total}? It cannot be taken back.",
        plain(&stored.number),
        plain(&stored.seller_name),
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
        requests: HashMap::from([(QUESTION.to_owned(), request)]),
        state: state(stored),
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
