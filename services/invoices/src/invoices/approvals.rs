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
use drawbridge_sdk::identity::{Actor, Caller, Facts};
use prost_types::{Struct, Value, value::Kind};
use tonic::{Code, Status};

use super::{
    UBL,
    people::{api, by, person},
    storage::save,
};
use crate::api::InvoiceApi;

async fn approve(
    api: &InvoiceApi,
    caller: &Caller,
    id: &str,
    interaction: Option<InputResponses>,
) -> Result<ApproveResponse, Status> {
    let request = ApproveRequest { invoice_id: id.to_owned(), interaction };
    Ok(api.approve(by(caller, request)).await?.into_inner())
}

/// What the person answers to what was asked.
fn answered(asked: &InputRequired, action: Action, approve: bool) -> InputResponses {
    let value = Value { kind: Some(Kind::BoolValue(approve)) };
    let content = Some(Struct { fields: [("approve".to_owned(), value)].into() });
    let result = ElicitResult { action: action.into(), content };
    let response = InputResponse { kind: Some(input_response::Kind::Elicitation(result)) };
    let responses = HashMap::from([("confirm".to_owned(), response)]);
    InputResponses { responses, state: asked.state.clone(), client: None }
}

/// An invoice in euros over so much.
fn over(amount: &str) -> String {
    let xml = UBL.replace("USD", "EUR").replace("DB-2026-0042", amount);
    xml.replace(">1155.26<", ">900.00<").replace(">1000.25<", &format!(">{amount}<"))
}

/// One that is shared in Acme.
async fn saved(api: &InvoiceApi, xml: &str) -> InvoiceSummary {
    save(api, &person("alice", Some("acme")), xml, true).await.unwrap().invoice.unwrap()
}

#[tokio::test]
async fn above_the_limit_nothing_is_approved_before_the_person_agrees() {
    let (api, carol) = (api().await, person("carol", Some("acme")));
    let invoice = saved(&api, &over("5000.01")).await;
    assert_eq!(invoice.status(), InvoiceStatus::Open);
    let id = &invoice.invoice_id;
    let asked = approve(&api, &carol, id, None).await.unwrap();
    assert!(asked.invoice.is_none());
    let asked = asked.input_required.unwrap();
    let Some(input_request::Kind::Form(form)) = &asked.requests["confirm"].kind else {
        panic!("{asked:?}")
    };
    for said in ["5000.01", "EUR", "Hanse Bolts"] {
        assert!(form.message.contains(said), "{}", form.message);
    }

    for (action, says) in [(Action::Decline, true), (Action::Cancel, true), (Action::Accept, false)]
    {
        let refused =
            approve(&api, &carol, id, Some(answered(&asked, action, says))).await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");
    }
    // An answer about another invoice is none.
    let other = saved(&api, &over("7000")).await;
    let again =
        approve(&api, &carol, &other.invoice_id, Some(answered(&asked, Action::Accept, true)))
            .await
            .unwrap();
    assert!(again.input_required.is_some());

    let yes = || Some(answered(&asked, Action::Accept, true));
    let approved = approve(&api, &carol, id, yes()).await.unwrap().invoice.unwrap();
    assert_eq!(approved.status(), InvoiceStatus::Approved);
    let approval = approved.approval.clone().unwrap();
    assert_eq!((approval.approved_by.as_str(), approval.confirmed), ("carol", true));
    // The first approval stays, whoever comes next.
    for caller in [&carol, &person("alice", Some("acme"))] {
        let again = approve(&api, caller, id, None).await.unwrap().invoice.unwrap();
        assert_eq!(again, approved);
    }
}

#[tokio::test]
async fn a_person_is_asked_above_the_limit_in_another_currency_and_without_an_amount() {
    let (api, carol) = (api().await, person("carol", Some("acme")));
    let silent = over("14.00").replace(">14.00<", "><").replace(">900.00<", "><");
    for (xml, asks) in [
        (over("1000.00"), false),
        (over("1000.01"), true),
        // What is given back counts, and so does the total.
        (over("-1000.01"), true),
        (over("12.00").replace(">900.00<", ">1000.01<"), true),
        (over("13.00").replace("EUR", "SEK"), true),
        (silent, true),
    ] {
        let invoice = saved(&api, &xml).await;
        let approved = approve(&api, &carol, &invoice.invoice_id, None).await.unwrap();
        assert_eq!(approved.input_required.is_some(), asks, "{invoice:?}");
        assert_eq!(approved.invoice.is_none(), asks);
    }
}

#[tokio::test]
async fn a_program_or_a_service_in_between_cannot_confirm_for_a_person() {
    let api = api().await;
    let invoice = saved(&api, &over("5000.01")).await;
    let carol = person("carol", Some("acme"));
    let asked =
        approve(&api, &carol, &invoice.invoice_id, None).await.unwrap().input_required.unwrap();
    let changed = |change: fn(&mut drawbridge_sdk::identity::TransactionClaims)| {
        let mut claims = (*carol.claims).clone();
        change(&mut claims);
        Caller { claims: claims.into(), ..carol.clone() }
    };
    let acting = changed(|claims| {
        claims.act = Some(Box::new(Actor { iss: "i".into(), sub: "relay".into(), act: None }));
    });
    let program =
        changed(|claims| claims.tctx.facts = Some(Facts { workload: true, ..Facts::default() }));
    for caller in [acting, program] {
        let answer = Some(answered(&asked, Action::Accept, true));
        let refused = approve(&api, &caller, &invoice.invoice_id, answer).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied, "{refused:?}");
    }
}

#[tokio::test]
async fn an_approver_approves_what_the_tenant_has_and_nothing_else() {
    let api = api().await;
    let alice = person("alice", Some("acme"));
    let private = save(&api, &alice, UBL, false).await.unwrap().invoice.unwrap();
    let nobodys = save(&api, &person("erin", None), UBL, false).await.unwrap().invoice.unwrap();
    let frank = person("frank", None);
    for (caller, invoice, code) in [
        (&person("dave", Some("umbrella")), &private, Code::NotFound),
        (&frank, &nobodys, Code::NotFound),
    ] {
        let refused = approve(&api, caller, &invoice.invoice_id, None).await.unwrap_err();
        assert_eq!(refused.code(), code, "{refused:?}");
    }
    let asked =
        approve(&api, &person("carol", Some("acme")), &private.invoice_id, None).await.unwrap();
    assert!(asked.input_required.is_some(), "carol sees what is alice's alone");
}
