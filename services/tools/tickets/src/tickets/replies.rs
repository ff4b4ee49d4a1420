use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    extract::Request as HttpRequest,
    http::{Method, StatusCode},
    middleware::{Next, from_fn},
    response::IntoResponse as _,
};
use drawbridge_proto::tickets::v1::{
    GetRequest, ReplyRequest, ReplyResponse, ticket_service_server::TicketService as _,
};
use serde_json::json;
use tonic::{Code, Status};
use wiremock::{Mock, ResponseTemplate, matchers::method};

use super::harness::{TOKEN, helpdesk, request_from, request_of_bob, serve, service, with_timeout};
use crate::{api::TicketApi, sample};

fn reply(key: &str, text: &str) -> ReplyRequest {
    ReplyRequest {
        ticket_id: "101".to_owned(),
        text: text.to_owned(),
        internal: false,
        idempotency_key: key.to_owned(),
    }
}

async fn post(service: &TicketApi, request: ReplyRequest) -> Result<ReplyResponse, Status> {
    service.reply(request_of_bob(request)).await.map(tonic::Response::into_inner)
}

/// The texts of the ticket's articles.
async fn texts(service: &TicketApi) -> Vec<String> {
    let request = request_of_bob(GetRequest { ticket_id: "101".to_owned() });
    let articles = service.get(request).await.unwrap().into_inner().articles;
    articles.into_iter().map(|article| article.text).collect()
}

async fn count(service: &TicketApi, text: &str) -> usize {
    texts(service).await.iter().filter(|existing| *existing == text).count()
}

/// A helpdesk that loses its first `times` responses to posts, and the number of posts.
fn losing_responses(times: u32) -> (Router, Arc<AtomicU32>) {
    let (remaining, posted) = (Arc::new(AtomicU32::new(times)), Arc::new(AtomicU32::new(0)));
    let counted = Arc::clone(&posted);
    let lose_response = from_fn(move |request: HttpRequest, next: Next| {
        let (remaining, posted) = (Arc::clone(&remaining), Arc::clone(&posted));
        async move {
            let is_post = request.method() == Method::POST;
            let response = next.run(request).await;
            if !is_post {
                return response;
            }
            posted.fetch_add(1, Ordering::SeqCst);
            let is_lost = remaining.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |remaining| {
                remaining.checked_sub(1)
            });
            if is_lost.is_ok() { StatusCode::BAD_GATEWAY.into_response() } else { response }
        }
    });
    (sample::router_of("acme", TOKEN).layer(lose_response), counted)
}

#[tokio::test]
async fn a_key_posts_one_text_once() {
    let url = serve(sample::router_of("acme", TOKEN)).await;
    let service = service(&url);
    let first = post(&service, reply("key-0001", "We are on it.")).await.unwrap();
    assert!(!first.already_posted && !first.created_at.is_empty());
    let repeated = post(&service, reply("key-0001", "We are on it.")).await.unwrap();
    assert_eq!(repeated, ReplyResponse { already_posted: true, ..first });
    assert_eq!(count(&service, "We are on it.").await, 1);

    let internal = ReplyRequest { internal: true, ..reply("key-0001", "We are on it.") };
    for other in [reply("key-0001", "We are not."), internal] {
        let error = post(&service, other).await.unwrap_err();
        assert_eq!(error.code(), Code::AlreadyExists, "{error:?}");
    }
    post(&service, reply("key-0002", "We are on it.")).await.unwrap();
    assert_eq!(count(&service, "We are on it.").await, 2, "another key is another reply");
    assert_eq!(count(&service, "We are not.").await, 0);
}

#[tokio::test]
async fn a_key_is_scoped_to_principal_and_ticket() {
    let url = serve(sample::router_of("acme", TOKEN)).await;
    let service = service(&url);
    post(&service, reply("key-0001", "One.")).await.unwrap();
    let of_alice = service
        .reply(request_from("alice", Some("acme"), reply("key-0001", "Two.")))
        .await
        .unwrap();
    assert!(!of_alice.into_inner().already_posted);
    let elsewhere = ReplyRequest { ticket_id: "102".to_owned(), ..reply("key-0001", "Three.") };
    assert!(!post(&service, elsewhere).await.unwrap().already_posted);
}

#[tokio::test]
async fn a_restarted_service_does_not_post_again_and_detects_another_text() {
    let url = serve(sample::router_of("acme", TOKEN)).await;
    let first = post(&service(&url), reply("key-0001", "We are on it.")).await.unwrap();
    let restarted = service(&url);
    let repeated = post(&restarted, reply("key-0001", "We are on it.")).await.unwrap();
    assert_eq!((repeated.article_id, repeated.already_posted), (first.article_id, true));
    let error = post(&service(&url), reply("key-0001", "We are not.")).await.unwrap_err();
    assert_eq!(error.code(), Code::AlreadyExists);
    assert_eq!(count(&restarted, "We are on it.").await, 1);
}

#[tokio::test]
async fn concurrent_calls_with_one_key_post_once() {
    let (routes, posted) = losing_responses(0);
    let service = Arc::new(service(&serve(routes).await));
    let calls = (0..8).map(|_| {
        let service = Arc::clone(&service);
        tokio::spawn(
            async move { post(&service, reply("key-0001", "We are on it.")).await.unwrap() },
        )
    });
    let responses = futures::future::join_all(calls.collect::<Vec<_>>()).await;
    let responses: Vec<_> = responses.into_iter().map(Result::unwrap).collect();
    assert_eq!(responses.iter().filter(|response| !response.already_posted).count(), 1);
    assert_eq!(posted.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_post_with_a_lost_response_is_found_when_the_key_is_repeated() {
    let (routes, posted) = losing_responses(1);
    let service = service(&serve(routes).await);
    let lost = post(&service, reply("key-0001", "We are on it.")).await.unwrap_err();
    assert_eq!(lost.code(), Code::Aborted, "{lost:?}");
    assert!(lost.message().contains("the same key"), "{lost:?}");
    assert_eq!(posted.load(Ordering::SeqCst), 1, "it is not retried");
    let repeated = post(&service, reply("key-0001", "We are on it.")).await.unwrap();
    assert!(repeated.already_posted);
    assert_eq!((posted.load(Ordering::SeqCst), count(&service, "We are on it.").await), (1, 1));
}

#[tokio::test]
async fn cancelling_a_call_does_not_cancel_its_post() {
    let (routes, posted) = losing_responses(0);
    let service = Arc::new(service(&serve(routes).await));
    let service_of_call = Arc::clone(&service);
    let call =
        tokio::spawn(
            async move { post(&service_of_call, reply("key-0001", "We are on it.")).await },
        );
    // Whether or not the post has started, one article remains.
    tokio::time::sleep(Duration::from_millis(5)).await;
    call.abort();
    post(&service, reply("key-0001", "We are on it.")).await.unwrap();
    assert_eq!(posted.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_rejected_post_is_not_retried_and_has_its_status() {
    for (status, code) in [
        (401, Code::FailedPrecondition),
        (403, Code::PermissionDenied),
        (404, Code::NotFound),
        (422, Code::FailedPrecondition),
        (429, Code::ResourceExhausted),
        // The outcome is unknown.
        (500, Code::Aborted),
        (503, Code::Aborted),
    ] {
        let server = helpdesk(json!([])).await;
        let response = ResponseTemplate::new(status).insert_header("retry-after", "0");
        Mock::given(method("POST")).respond_with(response).expect(1).mount(&server).await;
        let request =
            ReplyRequest { ticket_id: "7".to_owned(), ..reply("key-0001", "We are on it.") };
        let error = post(&service(&server.uri()), request).await.unwrap_err();
        assert_eq!(error.code(), code, "{status}: {error:?}");
    }
    let server = helpdesk(json!([])).await;
    let slow = ResponseTemplate::new(201).set_delay(Duration::from_secs(50));
    Mock::given(method("POST")).respond_with(slow).expect(1).mount(&server).await;
    let request = ReplyRequest { ticket_id: "7".to_owned(), ..reply("key-0001", "We are on it.") };
    let error = service(&server.uri())
        .reply(with_timeout(Duration::from_secs(4), request_of_bob(request)))
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::Aborted, "{error:?}");
}

#[tokio::test]
async fn an_invalid_reply_is_rejected() {
    let url = serve(sample::router_of("acme", TOKEN)).await;
    let service = service(&url);
    for (field, request) in [
        ("text", reply("key-0001", " \n")),
        ("text", reply("key-0001", &"x".repeat(20_001))),
        ("idempotency_key", reply("", "text")),
        ("idempotency_key", reply("short", "text")),
        ("idempotency_key", reply(&"k".repeat(129), "text")),
        ("idempotency_key", reply("a key with spaces", "text")),
        ("idempotency_key", reply("key>\r\nx: y", "text")),
        ("ticket_id", ReplyRequest { ticket_id: "x".to_owned(), ..reply("key-0001", "text") }),
    ] {
        let error = post(&service, request).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument);
        assert!(error.message().starts_with(&format!("`{field}`")), "{error:?}");
    }
    let missing = ReplyRequest { ticket_id: "999".to_owned(), ..reply("key-0001", "text") };
    assert_eq!(post(&service, missing).await.unwrap_err().code(), Code::NotFound);
}
