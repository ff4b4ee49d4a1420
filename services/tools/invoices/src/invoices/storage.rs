use drawbridge_proto::invoices::v1::{
    GetRequest, InvoiceStatus, SaveRequest, SaveResponse, SearchRequest, SearchResponse,
    invoice_service_server::InvoiceService as _,
};
use drawbridge_sdk::transaction_token::VerifiedCaller;
use futures::future::join_all;
use tonic::{Code, Status};

use super::{
    CII, UBL,
    callers::{api, call, person, request_by, store},
    no_cancellation,
};
use crate::{
    api::InvoiceApi,
    document::Document,
    extract::extract,
    store::{
        Access, Columns, DatabaseUrl, Scope, Store, StoreError, StoreOperation, Transaction,
        save::Save,
    },
};

pub(super) async fn save(
    api: &InvoiceApi,
    caller: &VerifiedCaller,
    xml: &str,
    shared: bool,
) -> Result<SaveResponse, Status> {
    let (document, media_type) = (Some(xml.into()), Some("application/xml".to_owned()));
    let request = SaveRequest { document, media_type, uri: None, shared };
    Ok(api.save(request_by(caller, request)).await?.into_inner())
}

async fn search(
    api: &InvoiceApi,
    caller: &VerifiedCaller,
    request: SearchRequest,
) -> SearchResponse {
    api.search(request_by(caller, request)).await.unwrap().into_inner()
}

/// The numbers of the found invoices, newest first.
async fn found_numbers(
    api: &InvoiceApi,
    caller: &VerifiedCaller,
    request: SearchRequest,
) -> Vec<String> {
    let found = search(api, caller, request).await;
    found.invoices.into_iter().map(|invoice| invoice.number).collect()
}

fn numbered_invoice(number: &str) -> String {
    UBL.replace("DB-2026-0042", number)
}

#[tokio::test]
async fn a_saved_invoice_has_the_values_of_its_document() {
    let (api, alice) = (api().await, person("alice", Some("acme")));
    let saved = save(&api, &alice, UBL, false).await.unwrap();
    assert!(saved.created && saved.findings.is_empty());
    let summary = saved.invoice.unwrap();
    assert_eq!(summary.uri, format!("invoice://{}", summary.invoice_id));
    assert_eq!((summary.number.as_str(), summary.payable_amount()), ("DB-2026-0042", "1000.25"));
    assert_eq!((summary.saved_by.as_str(), summary.status()), ("alice", InvoiceStatus::Open));
    assert!(summary.saved_at.ends_with('Z'), "{}", summary.saved_at);

    let request = GetRequest { invoice_id: summary.invoice_id.clone() };
    let got = api.get(request_by(&alice, request)).await.unwrap().into_inner();
    assert_eq!(got.summary, Some(summary));
    assert_eq!(got.invoice, super::read(UBL).unwrap().invoice);
}

#[tokio::test]
async fn a_seller_without_a_legal_name_is_listed_under_its_trading_name() {
    let (api, alice) = (api().await, person("alice", Some("acme")));
    let unnamed = UBL.replace("<cbc:RegistrationName>Hanse Bolts GmbH</cbc:RegistrationName>", "");
    let saved = save(&api, &alice, &unnamed, false).await.unwrap();
    assert_eq!(saved.invoice.unwrap().seller_name, "Hanse Bolts");
    assert_eq!(
        saved.findings.iter().map(|found| found.rule.as_str()).collect::<Vec<_>>(),
        ["BR-06"]
    );
}

#[tokio::test]
async fn saving_again_changes_only_visibility_and_another_document_is_rejected() {
    let (api, alice) = (api().await, person("alice", Some("acme")));
    let first = save(&api, &alice, UBL, false).await.unwrap().invoice.unwrap();
    let again = save(&api, &alice, UBL, false).await.unwrap();
    assert!(!again.created);
    assert_eq!(again.invoice.unwrap(), first);
    let shared = save(&api, &alice, UBL, true).await.unwrap();
    assert!(!shared.created);
    let shared = shared.invoice.unwrap();
    assert!(shared.shared && shared.invoice_id == first.invoice_id);

    let other = UBL.replace("1000.25", "9000.25");
    let refused = save(&api, &alice, &other, false).await.unwrap_err();
    assert_eq!(refused.code(), Code::AlreadyExists);
    assert!(refused.message().contains(&first.invoice_id), "{refused:?}");
    // Another caller's copy is a separate invoice.
    let bob = person("bob", Some("acme"));
    assert!(save(&api, &bob, &other, false).await.unwrap().created);
    let refused = save(&api, &alice, &numbered_invoice(" "), false).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
}

#[tokio::test]
async fn callers_see_their_own_invoices_and_those_shared_in_their_tenant() {
    let api = api().await;
    let (alice, bob) = (person("alice", Some("acme")), person("bob", Some("acme")));
    let (dave, without_tenant) = (person("dave", Some("umbrella")), person("erin", None));
    save(&api, &alice, &numbered_invoice("private"), false).await.unwrap();
    let shared =
        save(&api, &alice, &numbered_invoice("shared"), true).await.unwrap().invoice.unwrap();
    save(&api, &without_tenant, &numbered_invoice("without tenant"), false).await.unwrap();
    let all = SearchRequest::default;
    assert_eq!(found_numbers(&api, &alice, all()).await, ["shared", "private"]);
    assert_eq!(found_numbers(&api, &bob, all()).await, ["shared"]);
    assert_eq!(found_numbers(&api, &dave, all()).await, [""; 0]);
    assert_eq!(found_numbers(&api, &without_tenant, all()).await, ["without tenant"]);
    assert_eq!(found_numbers(&api, &person("frank", None), all()).await, [""; 0]);
    // The same name in another tenant is another principal.
    assert_eq!(found_numbers(&api, &person("alice", Some("umbrella")), all()).await, [""; 0]);
    let hidden =
        api.get(request_by(&dave, GetRequest { invoice_id: shared.invoice_id })).await.unwrap_err();
    assert_eq!(hidden.code(), Code::NotFound);
    let alone = save(&api, &without_tenant, UBL, true).await.unwrap_err();
    assert_eq!(alone.code(), Code::FailedPrecondition, "{alone:?}");
}

#[tokio::test]
async fn invoices_are_found_by_their_contents() {
    let (api, alice) = (api().await, person("alice", Some("acme")));
    save(&api, &alice, UBL, false).await.unwrap();
    save(&api, &alice, CII, false).await.unwrap();
    for amount in ["9.5", "100", "-3.25", "-20"] {
        let xml = numbered_invoice(amount).replace(">1000.25<", &format!(">{amount}<"));
        save(&api, &alice, &xml, false).await.unwrap();
    }
    let api = &api;
    let alice = &alice;
    let found = async |change: fn(&mut SearchRequest)| {
        let mut request = SearchRequest::default();
        change(&mut request);
        let mut found_numbers = found_numbers(api, alice, request).await;
        found_numbers.sort();
        found_numbers
    };
    assert_eq!(
        found(|request| request.number = Some(" DB-2026-0042 ".into())).await,
        ["DB-2026-0042"]
    );
    assert_eq!(found(|request| request.supplier = Some("hanse BOLTS".into())).await.len(), 5);
    assert_eq!(found(|request| request.supplier = Some("%".into())).await, [""; 0]);
    assert_eq!(found(|request| request.text = Some("cn-7".into())).await, ["CN-7"]);
    // Amounts are numbers, not text.
    assert_eq!(found(|request| request.amount_min = Some("100.00".into())).await.len(), 3);
    assert_eq!(
        found(|request| request.amount_max = Some("9.50".into())).await,
        ["-20", "-3.25", "9.5"]
    );
    assert_eq!(found(|request| request.amount_max = Some("-3.26".into())).await, ["-20"]);
    assert_eq!(found(|request| request.currency = Some("XXX".into())).await, [""; 0]);
    assert_eq!(found(|request| request.set_status(InvoiceStatus::Open)).await.len(), 6);
    assert_eq!(found(|request| request.set_status(InvoiceStatus::Approved)).await, [""; 0]);
    assert_eq!(found(|request| request.issued_from = Some("9999-01-01".into())).await, [""; 0]);
    assert_eq!(found(|request| request.issued_to = Some("9999-01-01".into())).await.len(), 6);
    let wrong = SearchRequest { amount_min: Some("1e9".into()), ..SearchRequest::default() };
    assert_eq!(
        api.search(request_by(alice, wrong)).await.unwrap_err().code(),
        Code::InvalidArgument
    );
}

#[tokio::test]
async fn pages_have_no_gaps() {
    let (api, alice) = (api().await, person("alice", Some("acme")));
    let expected: Vec<_> = (0..5).rev().map(|index| index.to_string()).collect();
    for number in expected.iter().rev() {
        save(&api, &alice, &numbered_invoice(number), false).await.unwrap();
        // Ids sort by the millisecond.
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    let (mut seen, mut page_token) = (Vec::new(), None);
    for left in [3, 1, 0] {
        let request = SearchRequest { page_size: Some(2), page_token, ..SearchRequest::default() };
        let page = search(&api, &alice, request).await;
        seen.extend(page.invoices.into_iter().map(|invoice| invoice.number));
        page_token = page.next_page_token;
        assert_eq!(page_token.is_none(), left == 0);
    }
    assert_eq!(seen, expected);
    let wrong = SearchRequest { page_token: Some("x".into()), ..SearchRequest::default() };
    assert_eq!(
        api.search(request_by(&alice, wrong)).await.unwrap_err().code(),
        Code::InvalidArgument
    );
}

/// An operation that fails after writing.
struct BrokenSave<'a>(Save<'a>);

impl StoreOperation for BrokenSave<'_> {
    const NAME: &'static str = "broken save";

    type Output = ();

    fn access(&self) -> Access {
        self.0.access()
    }

    fn bound_texts(&self) -> Vec<&str> {
        self.0.bound_texts()
    }

    async fn run(&self, transaction: &mut Transaction, scope: &Scope) -> Result<(), StoreError> {
        self.0.run(transaction, scope).await?;
        Err(StoreError::Timeout)
    }
}

#[tokio::test]
async fn a_failed_operation_is_rolled_back() {
    let (store, alice) = (store().await, person("alice", Some("acme")));
    let document = Document { media_type: "application/xml".to_owned(), bytes: UBL.into() };
    let columns =
        Columns::of(&document, &extract(&document, &no_cancellation(), |_| Ok(())).unwrap())
            .unwrap();
    let save = || Save { document: &document, columns: &columns, shared: false };
    store.run(&call(&alice), &BrokenSave(save())).await.unwrap_err();
    let (_, created) = store.run(&call(&alice), &save()).await.unwrap();
    assert!(created);
}

#[tokio::test]
async fn a_file_persists_invoices_and_allows_concurrent_writers() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("invoices.db").display());
    let open = async || {
        let DatabaseUrl::SqliteFile(options) = DatabaseUrl::parse(&url).unwrap() else {
            panic!("{url}")
        };
        Store::file(*options).await.unwrap()
    };
    let alice = call(&person("alice", Some("acme")));
    let document = Document { media_type: "application/xml".to_owned(), bytes: UBL.into() };
    let columns =
        Columns::of(&document, &extract(&document, &no_cancellation(), |_| Ok(())).unwrap())
            .unwrap();
    let save = Save { document: &document, columns: &columns, shared: false };
    let store = open().await;
    let saved = join_all((0..16).map(|_| store.run(&alice, &save))).await;
    assert_eq!(saved.into_iter().filter(|saved| saved.as_ref().unwrap().1).count(), 1);
    store.close().await;
    let (_, created) = open().await.run(&alice, &save).await.unwrap();
    assert!(!created);
}

/// Regression: SQLite ignored `\0` and the rest of the text, so that a filter matched everything.
#[tokio::test]
async fn a_text_with_nul_is_rejected_before_it_is_bound() {
    let (api, alice) = (api().await, person("alice", Some("acme")));
    save(&api, &alice, UBL, false).await.unwrap();
    let bound_texts = |set: fn(&mut SearchRequest, String)| {
        let mut request = SearchRequest::default();
        set(&mut request, "\0nothing of this name".to_owned());
        request
    };
    for (field, request) in [
        ("supplier", bound_texts(|request, text| request.supplier = Some(text))),
        ("number", bound_texts(|request, text| request.number = Some(text))),
        ("issued_from", bound_texts(|request, text| request.issued_from = Some(text))),
        ("issued_to", bound_texts(|request, text| request.issued_to = Some(text))),
        ("amount_min", bound_texts(|request, text| request.amount_min = Some(text))),
        ("amount_max", bound_texts(|request, text| request.amount_max = Some(text))),
        ("currency", bound_texts(|request, text| request.currency = Some(text))),
        ("text", bound_texts(|request, text| request.text = Some(text))),
        ("page_token", bound_texts(|request, text| request.page_token = Some(text))),
    ] {
        let refused = api.search(request_by(&alice, request)).await.map(drop).unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{field}: {refused:?}");
        assert!(refused.message().contains(field), "{field}: {refused:?}");
    }
    let request = GetRequest { invoice_id: "\0".to_owned() };
    let refused = api.get(request_by(&alice, request)).await.map(drop).unwrap_err();
    assert_eq!(
        (refused.code(), refused.message()),
        (Code::InvalidArgument, "a text must not contain NUL")
    );
    let long = SearchRequest { text: Some("x".repeat(501)), ..SearchRequest::default() };
    let refused = api.search(request_by(&alice, long)).await.map(drop).unwrap_err();
    assert_eq!(refused.message(), "`text`: must have at most 500 bytes");
}
