use std::{
    collections::HashSet,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{Json, Router, extract::ConnectInfo, routing};
use drawbridge_proto::tickets::v1::{
    GetRequest, GetResponse, SearchRequest, ticket_service_server::TicketService as _,
};
use drawbridge_sdk::ServiceBuilder;
use serde_json::{Value, json};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;
use wiremock::{
    MockServer, ResponseTemplate,
    matchers::{any, header, query_param},
};

use super::harness::{
    TOKEN, get, helpdesk, ok, request_of_bob, serve, service, service_of, with_timeout,
};

/// A text in helpdesk errors that callers must not see.
const SECRET: &str = "stack trace of the helpdesk";

async fn read(url: &str) -> Result<GetResponse, Status> {
    let request = request_of_bob(GetRequest { ticket_id: "7".to_owned() });
    service(url).get(request).await.map(tonic::Response::into_inner)
}

/// The error of reading a ticket when the helpdesk sends this response, which must be requested
/// `times` times.
async fn read_error(response: ResponseTemplate, times: u64) -> Status {
    let server = MockServer::start().await;
    get("/api/v1/tickets/7").respond_with(response).expect(times).mount(&server).await;
    let status = read(&server.uri()).await.unwrap_err();
    assert!(!format!("{status:?}").contains(SECRET), "{status:?}");
    assert!(!format!("{status:?}").contains(&server.uri()), "{status:?}");
    status
}

fn retry_after(status: &Status) -> Option<Duration> {
    status.get_details_retry_info()?.retry_delay
}

#[tokio::test]
async fn a_search_is_one_request_with_the_tenants_token() {
    let server = MockServer::start().await;
    let found = json!([
        { "id": 7, "number": "26007", "title": "Printer", "state": "open",
          "priority": "2 normal", "group": "IT",
          "customer": "tim", "customer_id": 5, "owner": "-", "owner_id": 1, "organization": null,
          "updated_at": "2026-03-05T10:00:00.000Z", "unknown": { "more": [1, 2] } },
        { "id": 9 },
    ]);
    get("/api/v1/tickets/search")
        .and(header("authorization", format!("Token token={TOKEN}")))
        .and(header("accept", "application/json"))
        .and(query_param("query", "\"printer\" AND state.name:\"open\""))
        .and(query_param("expand", "true"))
        .and(query_param("page", "1"))
        .and(query_param("per_page", "2"))
        .and(query_param("sort_by", "updated_at"))
        .and(query_param("order_by", "desc"))
        .respond_with(ok(&found))
        .expect(1)
        .mount(&server)
        .await;
    get("/api/v1/tickets/search")
        .and(query_param("page", "2"))
        .respond_with(ok(&json!([])))
        .expect(1)
        .mount(&server)
        .await;
    let service = service(&server.uri());
    let mut request = SearchRequest {
        query: "printer".to_owned(),
        state: "open".to_owned(),
        page_size: Some(2),
        ..SearchRequest::default()
    };
    let page = service.search(request_of_bob(request.clone())).await.unwrap().into_inner();
    let [printer, bare] = &page.tickets[..] else { panic!("{page:?}") };
    assert_eq!((printer.ticket_id.as_str(), printer.title.as_str()), ("7", "Printer"));
    assert_eq!(printer.customer.as_ref().unwrap().login, "tim");
    assert!(
        printer.assignee.is_none() && bare.title.is_empty() && bare.customer.is_none(),
        "{page:?}"
    );

    request.page_token = page.next_page_token;
    let page = service.search(request_of_bob(request)).await.unwrap().into_inner();
    assert!(page.tickets.is_empty() && page.next_page_token.is_empty());
}

#[tokio::test]
async fn a_ticket_is_returned_with_plain_text_articles_and_people() {
    let server = MockServer::start().await;
    let ticket =
        json!({ "id": 7, "customer_id": 5, "customer": "tim", "owner_id": 6, "owner": "olga" });
    let articles = json!([
        { "id": 2, "from": "Olga", "sender": "Agent", "type": "note", "internal": true,
          "body": "a < b",
          "content_type": "text/plain",
          "attachments": [{ "filename": "log.txt", "size": "1" }, {}] },
        { "id": 1, "body": "<p>Hello,<br>the <b>printer</b></p>", "content_type": "text/html",
          "internal": false },
    ]);
    get("/api/v1/tickets/7")
        .and(query_param("expand", "true"))
        .respond_with(ok(&ticket))
        .mount(&server)
        .await;
    get("/api/v1/ticket_articles/by_ticket/7").respond_with(ok(&articles)).mount(&server).await;
    let tim = json!({
        "login": "tim", "firstname": "Tim", "lastname": "Tester", "email": "tim@acme.example",
    });
    get("/api/v1/users/5").respond_with(ok(&tim)).mount(&server).await;
    // The token may not read this user.
    get("/api/v1/users/6").respond_with(ResponseTemplate::new(403)).mount(&server).await;

    let whole = read(&server.uri()).await.unwrap();
    let texts: Vec<_> =
        whole.articles.iter().map(|article| (article.text.as_str(), article.internal)).collect();
    assert_eq!(texts, [("Hello,\nthe printer", false), ("a < b", true)]);
    assert_eq!(whole.articles[1].attachments, ["log.txt"]);
    let ticket = whole.ticket.unwrap();
    let (customer, assignee) = (ticket.customer.unwrap(), ticket.assignee.unwrap());
    assert_eq!(
        (customer.name.as_str(), customer.email.as_str()),
        ("Tim Tester", "tim@acme.example")
    );
    assert_eq!((assignee.login.as_str(), assignee.name.as_str()), ("olga", ""));
}

#[tokio::test]
async fn every_error_has_its_status_and_no_text_of_the_helpdesk() {
    let page = |status| ResponseTemplate::new(status).set_body_json(json!({ "error": SECRET }));
    for (status, times, code) in [
        (400, 1, Code::FailedPrecondition),
        // The reread token is the same.
        (401, 1, Code::FailedPrecondition),
        (403, 1, Code::PermissionDenied),
        (404, 1, Code::NotFound),
        (422, 1, Code::FailedPrecondition),
        (204, 1, Code::Internal),
        (408, 3, Code::Unavailable),
        (429, 3, Code::ResourceExhausted),
        (500, 3, Code::Unavailable),
        (502, 3, Code::Unavailable),
        (503, 3, Code::Unavailable),
    ] {
        let error = read_error(page(status), times).await;
        assert_eq!(error.code(), code, "{status}: {error:?}");
        assert_eq!(retry_after(&error).is_some(), times > 1, "{status}: {error:?}");
    }
}

#[tokio::test]
async fn a_read_is_retried_after_the_helpdesks_retry_after() {
    for (first, at_least) in [
        (ResponseTemplate::new(503), Duration::ZERO),
        (ResponseTemplate::new(429).insert_header("retry-after", "1"), Duration::from_secs(1)),
    ] {
        let server = helpdesk(json!([])).await;
        get("/api/v1/tickets/7")
            .respond_with(first)
            .up_to_n_times(1)
            .with_priority(1)
            .mount(&server)
            .await;
        let started = std::time::Instant::now();
        read(&server.uri()).await.unwrap();
        assert!(started.elapsed() >= at_least);
    }
}

#[tokio::test]
async fn a_busy_helpdesks_retry_after_is_capped_and_passed_on() {
    let soon = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(900);
    let date =
        jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&soon).unwrap();
    for (text, expected) in
        [("3000", 2990..=3000), (&*date, 800..=900), ("999999999", 3600..=3600), ("soon", 3..=3)]
    {
        let times = if text == "soon" { 3 } else { 1 };
        let busy =
            read_error(ResponseTemplate::new(429).insert_header("retry-after", text), times).await;
        assert_eq!(busy.code(), Code::ResourceExhausted);
        let after = retry_after(&busy).unwrap().as_secs();
        assert!(expected.contains(&after), "{text}: {after}");
    }
}

#[tokio::test]
async fn a_malformed_response_is_an_error() {
    let json = |text: &str| ResponseTemplate::new(200).set_body_raw(text, "application/json");
    for text in [
        "",
        "{\"id\": 7, \"title\": \"Prin",
        "[]",
        "null",
        "{}",
        "{\"id\": \"seven\"}",
        "{\"id\": -7}",
        "{\"id\": 7, \"title\": {\"a\": 1}}",
        // Another ticket than the requested one.
        "{\"id\": 8}",
        &"[".repeat(100_000),
    ] {
        let broken = read_error(json(text), 1).await;
        assert_eq!(broken.code(), Code::Internal, "{text:.50}: {broken:?}");
    }
    let login = ResponseTemplate::new(200)
        .set_body_raw(format!("<html>{SECRET}"), "text/html; charset=utf-8");
    assert_eq!(read_error(login, 3).await.code(), Code::Unavailable);
    let huge = json(&format!("{{\"id\": 7, \"title\": \"{}\"}}", "x".repeat(9 * 1024 * 1024)));
    assert_eq!(read_error(huge, 1).await.code(), Code::FailedPrecondition);
}

#[tokio::test]
async fn the_token_does_not_follow_a_redirect() {
    let elsewhere = MockServer::start().await;
    wiremock::Mock::given(any())
        .respond_with(ok(&json!({ "id": 7 })))
        .expect(0)
        .mount(&elsewhere)
        .await;
    for status in [301, 302, 307, 308] {
        let redirect = ResponseTemplate::new(status).insert_header("location", elsewhere.uri());
        assert_eq!(read_error(redirect, 1).await.code(), Code::Internal, "{status}");
    }
}

#[tokio::test]
async fn a_slow_or_unreachable_helpdesk_does_not_exceed_the_deadline() {
    let server = MockServer::start().await;
    let slow = ok(&json!({ "id": 7 })).set_delay(Duration::from_secs(50));
    get("/api/v1/tickets/7").respond_with(slow).mount(&server).await;
    let request = || request_of_bob(GetRequest { ticket_id: "7".to_owned() });
    let service_of = |url: &str| service(url);
    let error = service_of(&server.uri())
        .get(with_timeout(Duration::from_millis(300), request()))
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded, "{error:?}");
    let error =
        service_of(&server.uri()).get(with_timeout(Duration::ZERO, request())).await.unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded, "{error:?}");

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let unused_url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let error = service_of(&unused_url).get(request()).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable, "{error:?}");
    assert!(retry_after(&error).is_some() && !error.message().contains("127.0.0.1"), "{error:?}");
}

#[tokio::test]
async fn an_invalid_argument_never_reaches_the_helpdesk() {
    let server = MockServer::start().await;
    wiremock::Mock::given(any()).respond_with(ok(&json!([]))).expect(0).mount(&server).await;
    let service = service(&server.uri());
    for id in ["", "0", "7/../../users/1", "search?x", "７"] {
        let error =
            service.get(request_of_bob(GetRequest { ticket_id: id.to_owned() })).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "{id}: {error:?}");
    }
    let request = SearchRequest { page_size: Some(101), ..SearchRequest::default() };
    assert_eq!(
        service.search(request_of_bob(request)).await.unwrap_err().code(),
        Code::InvalidArgument
    );
    let anonymous = tonic::Request::new(SearchRequest::default());
    assert_eq!(service.search(anonymous).await.unwrap_err().code(), Code::Unauthenticated);
}

#[tokio::test]
async fn concurrent_requests_to_one_helpdesk_are_limited() {
    let (current, peak_requests) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (here, peak) = (Arc::clone(&current), Arc::clone(&peak_requests));
    let search = async move || -> Json<Value> {
        peak.fetch_max(here.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(20)).await;
        here.fetch_sub(1, Ordering::SeqCst);
        Json(json!([]))
    };
    let url = serve(Router::new().route("/api/v1/tickets/search", routing::get(search))).await;
    let service = Arc::new(service(&url));
    let calls = (0..64).map(|_| {
        let service = Arc::clone(&service);
        tokio::spawn(async move {
            service.search(request_of_bob(SearchRequest::default())).await.map(drop)
        })
    });
    for call in calls.collect::<Vec<_>>() {
        call.await.unwrap().unwrap();
    }
    let peak_requests = peak_requests.load(Ordering::SeqCst);
    assert!((2..=16).contains(&peak_requests), "{peak_requests}");
}

#[tokio::test]
async fn calls_share_connections() {
    let ports: Arc<Mutex<HashSet<u16>>> = Arc::default();
    let seen = Arc::clone(&ports);
    let search = async move |ConnectInfo(peer): ConnectInfo<SocketAddr>| -> Json<Value> {
        seen.lock().unwrap().insert(peer.port());
        Json(json!([]))
    };
    let routes = Router::new().route("/api/v1/tickets/search", routing::get(search));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let routes = routes.into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(async move { axum::serve(listener, routes).await });
    let service = service(&url);
    for _ in 0..10 {
        service.search(request_of_bob(SearchRequest::default())).await.unwrap();
    }
    assert_eq!(ports.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn the_readiness_notes_that_the_helpdesk_does_not_answer_until_it_does() {
    let builder = ServiceBuilder::new();
    let note = || builder.readiness().notes().get("helpdesk").cloned();
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let service = service_of(&builder, &format!("http://{}", socket.local_addr().unwrap()));
    let search = async || service.search(request_of_bob(SearchRequest::default())).await;
    for _ in 0..4 {
        assert_eq!(note(), None, "a few failures are no outage");
        assert_eq!(search().await.unwrap_err().code(), Code::Unavailable);
    }
    assert_eq!(note().as_deref(), Some("requests are not answered"));
    let routes =
        Router::new().route("/api/v1/tickets/search", routing::get(async || Json(json!([]))));
    let listener = socket.listen(16).unwrap();
    tokio::spawn(async move { axum::serve(listener, routes).await });
    while search().await.is_err() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(note(), None);
}
