use std::collections::HashMap;

use drawbridge_proto::{
    invoices::v1::{
        ApproveRequest, ApproveResponse, InvoiceStatus, InvoiceSummary,
        invoice_service_server::InvoiceService as _,
    },
    mcp::v1::{
        ElicitResult, InputRequired, InputResponse, InputResponses, elicit_result::Action,
        input_request, input_response,
    },
};
use drawbridge_sdk::transaction_token::{Actor, SubjectFacts, VerifiedCaller};
use prost_types::{Struct, Value, value::Kind};
use tonic::{Code, Status};

use super::{
    UBL,
    callers::{api, person, request_by},
    storage::save,
};
use crate::api::InvoiceApi;

async fn approve(
    api: &InvoiceApi,
    caller: &VerifiedCaller,
    id: &str,
    interaction: Option<InputResponses>,
) -> Result<ApproveResponse, Status> {
    let request = ApproveRequest { invoice_id: id.to_owned(), interaction };
    Ok(api.approve(request_by(caller, request)).await?.into_inner())
}

/// The person's response to a confirmation request.
fn respond(elicitation: &InputRequired, action: Action, approve: bool) -> InputResponses {
    let value = Value { kind: Some(Kind::BoolValue(approve)) };
    let content = Some(Struct { fields: [("approve".to_owned(), value)].into() });
    let result = ElicitResult { action: action.into(), content };
    let response = InputResponse { kind: Some(input_response::Kind::Elicitation(result)) };
    let responses = HashMap::from([("confirm".to_owned(), response)]);
    InputResponses { responses, state: elicitation.state.clone(), client: None }
}

/// An invoice in EUR over this amount.
fn invoice_over(amount: &str) -> String {
    let xml = UBL.replace("USD", "EUR").replace("DB-2026-0042", amount);
    xml.replace(">1155.26<", ">900.00<").replace(">1000.25<", &format!(">{amount}<"))
}

/// Saves an invoice that is shared in the tenant.
async fn save_shared(api: &InvoiceApi, xml: &str) -> InvoiceSummary {
    save(api, &person("alice", Some("acme")), xml, true).await.unwrap().invoice.unwrap()
}

#[tokio::test]
async fn above_the_limit_an_invoice_is_approved_only_after_confirmation() {
    let (api, carol) = (api().await, person("carol", Some("acme")));
    let invoice = save_shared(&api, &invoice_over("5000.01")).await;
    assert_eq!(invoice.status(), InvoiceStatus::Open);
    let id = &invoice.invoice_id;
    let elicitation = approve(&api, &carol, id, None).await.unwrap();
    assert!(elicitation.invoice.is_none());
    let elicitation = elicitation.input_required.unwrap();
    let Some(input_request::Kind::Form(form)) = &elicitation.requests["confirm"].kind else {
        panic!("{elicitation:?}")
    };
    for said in ["5000.01", "EUR", "Hanse Bolts"] {
        assert!(form.message.contains(said), "{}", form.message);
    }

    for (action, approves) in
        [(Action::Decline, true), (Action::Cancel, true), (Action::Accept, false)]
    {
        let error = approve(&api, &carol, id, Some(respond(&elicitation, action, approves)))
            .await
            .unwrap_err();
        assert_eq!(error.code(), Code::FailedPrecondition, "{error:?}");
    }
    // A response about another invoice does not count.
    let other = save_shared(&api, &invoice_over("7000")).await;
    let repeated =
        approve(&api, &carol, &other.invoice_id, Some(respond(&elicitation, Action::Accept, true)))
            .await
            .unwrap();
    assert!(repeated.input_required.is_some());

    let yes = || Some(respond(&elicitation, Action::Accept, true));
    let approved = approve(&api, &carol, id, yes()).await.unwrap().invoice.unwrap();
    assert_eq!(approved.status(), InvoiceStatus::Approved);
    let approval = approved.approval.clone().unwrap();
    assert_eq!((approval.approved_by.as_str(), approval.confirmed), ("carol", true));
    // The first approval is permanent.
    for caller in [&carol, &person("alice", Some("acme"))] {
        let repeated = approve(&api, caller, id, None).await.unwrap().invoice.unwrap();
        assert_eq!(repeated, approved);
    }
}

#[tokio::test]
async fn confirmation_is_required_above_the_limit_in_another_currency_and_without_an_amount() {
    let (api, carol) = (api().await, person("carol", Some("acme")));
    let silent = invoice_over("14.00").replace(">14.00<", "><").replace(">900.00<", "><");
    for (xml, asks) in [
        (invoice_over("1000.00"), false),
        (invoice_over("1000.01"), true),
        // Refunds count by absolute value, and the total counts too.
        (invoice_over("-1000.01"), true),
        (invoice_over("12.00").replace(">900.00<", ">1000.01<"), true),
        (invoice_over("13.00").replace("EUR", "SEK"), true),
        (silent, true),
    ] {
        let invoice = save_shared(&api, &xml).await;
        let approved = approve(&api, &carol, &invoice.invoice_id, None).await.unwrap();
        assert_eq!(approved.input_required.is_some(), asks, "{invoice:?}");
        assert_eq!(approved.invoice.is_none(), asks);
    }
}

#[tokio::test]
async fn a_program_or_an_intermediate_service_cannot_confirm() {
    let api = api().await;
    let invoice = save_shared(&api, &invoice_over("5000.01")).await;
    let carol = person("carol", Some("acme"));
    let elicitation =
        approve(&api, &carol, &invoice.invoice_id, None).await.unwrap().input_required.unwrap();
    let changed = |change: fn(&mut drawbridge_sdk::transaction_token::TransactionClaims)| {
        let mut claims = (*carol.claims).clone();
        change(&mut claims);
        VerifiedCaller { claims: claims.into(), ..carol.clone() }
    };
    let acting = changed(|claims| {
        claims.act = Some(Box::new(Actor { iss: "i".into(), sub: "relay".into(), act: None }));
    });
    let program = changed(|claims| {
        claims.tctx.facts = Some(SubjectFacts { workload: true, ..SubjectFacts::default() });
    });
    for caller in [acting, program] {
        let answer = Some(respond(&elicitation, Action::Accept, true));
        let error = approve(&api, &caller, &invoice.invoice_id, answer).await.unwrap_err();
        assert_eq!(error.code(), Code::PermissionDenied, "{error:?}");
    }
}

#[tokio::test]
async fn an_approver_approves_only_invoices_of_the_tenant() {
    let api = api().await;
    let alice = person("alice", Some("acme"));
    let private = save(&api, &alice, UBL, false).await.unwrap().invoice.unwrap();
    let nobodys = save(&api, &person("erin", None), UBL, false).await.unwrap().invoice.unwrap();
    let frank = person("frank", None);
    for (caller, invoice, code) in [
        (&person("dave", Some("umbrella")), &private, Code::NotFound),
        (&frank, &nobodys, Code::NotFound),
    ] {
        let error = approve(&api, caller, &invoice.invoice_id, None).await.unwrap_err();
        assert_eq!(error.code(), code, "{error:?}");
    }
    let elicitation =
        approve(&api, &person("carol", Some("acme")), &private.invoice_id, None).await.unwrap();
    assert!(elicitation.input_required.is_some(), "carol sees alice's private invoice");
}
