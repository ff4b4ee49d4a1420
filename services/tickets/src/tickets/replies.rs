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

use super::harness::{TOKEN, ask, from, helpdesk, serve, service, within};
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
    service.reply(ask(request)).await.map(tonic::Response::into_inner)
}

/// What stands on the ticket, by text.
async fn texts(service: &TicketApi) -> Vec<String> {
    let request = ask(GetRequest { ticket_id: "101".to_owned() });
    let articles = service.get(request).await.unwrap().into_inner().articles;
    articles.into_iter().map(|article| article.text).collect()
}

async fn count(service: &TicketApi, text: &str) -> usize {
    texts(service).await.iter().filter(|there| *there == text).count()
}

/// A helpdesk that forgets, so many times, to say that it has posted.
fn forgetful(times: u32) -> (Router, Arc<AtomicU32>) {
    let (left, posted) = (Arc::new(AtomicU32::new(times)), Arc::new(AtomicU32::new(0)));
    let counted = Arc::clone(&posted);
    let forget = from_fn(move |request: HttpRequest, next: Next| {
        let (left, posted) = (Arc::clone(&left), Arc::clone(&posted));
        async move {
            let is_post = request.method() == Method::POST;
            let answer = next.run(request).await;
            if !is_post {
                return answer;
            }
            posted.fetch_add(1, Ordering::SeqCst);
            let forgets =
                left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
            if forgets.is_ok() { StatusCode::BAD_GATEWAY.into_response() } else { answer }
        }
    });
    (sample::of("acme", TOKEN).layer(forget), counted)
}

#[tokio::test]
async fn a_key_posts_once_and_only_its_own_text() {
    let url = serve(sample::of("acme", TOKEN)).await;
    let service = service(&url);
    let first = post(&service, reply("key-0001", "We are on it.")).await.unwrap();
    assert!(!first.already_posted && !first.created_at.is_empty());
    let again = post(&service, reply("key-0001", "We are on it.")).await.unwrap();
    assert_eq!(again, ReplyResponse { already_posted: true, ..first });
    assert_eq!(count(&service, "We are on it.").await, 1);

    let internal = ReplyRequest { internal: true, ..reply("key-0001", "We are on it.") };
    for other in [reply("key-0001", "We are not."), internal] {
        let refused = post(&service, other).await.unwrap_err();
        assert_eq!(refused.code(), Code::AlreadyExists, "{refused:?}");
    }
    post(&service, reply("key-0002", "We are on it.")).await.unwrap();
    assert_eq!(count(&service, "We are on it.").await, 2, "another key is another reply");
    assert_eq!(count(&service, "We are not.").await, 0);
}

#[tokio::test]
async fn a_key_is_its_principals_own_and_its_tickets() {
    let url = serve(sample::of("acme", TOKEN)).await;
    let service = service(&url);
    post(&service, reply("key-0001", "One.")).await.unwrap();
    let of_alice =
        service.reply(from("alice", Some("acme"), reply("key-0001", "Two."))).await.unwrap();
    assert!(!of_alice.into_inner().already_posted);
    let elsewhere = ReplyRequest { ticket_id: "102".to_owned(), ..reply("key-0001", "Three.") };
    assert!(!post(&service, elsewhere).await.unwrap().already_posted);
}

#[tokio::test]
async fn a_restart_does_not_post_again_and_does_not_forget_the_text() {
    let url = serve(sample::of("acme", TOKEN)).await;
    let first = post(&service(&url), reply("key-0001", "We are on it.")).await.unwrap();
    let restarted = service(&url);
    let again = post(&restarted, reply("key-0001", "We are on it.")).await.unwrap();
    assert_eq!((again.article_id, again.already_posted), (first.article_id, true));
    let refused = post(&service(&url), reply("key-0001", "We are not.")).await.unwrap_err();
    assert_eq!(refused.code(), Code::AlreadyExists);
    assert_eq!(count(&restarted, "We are on it.").await, 1);
}

#[tokio::test]
async fn calls_at_once_with_one_key_post_once() {
    let (routes, posted) = forgetful(0);
    let service = Arc::new(service(&serve(routes).await));
    let calls = (0..8).map(|_| {
        let service = Arc::clone(&service);
        tokio::spawn(
            async move { post(&service, reply("key-0001", "We are on it.")).await.unwrap() },
        )
    });
    let answers = futures::future::join_all(calls.collect::<Vec<_>>()).await;
    let answers: Vec<_> = answers.into_iter().map(Result::unwrap).collect();
    assert_eq!(answers.iter().filter(|answer| !answer.already_posted).count(), 1);
    assert_eq!(posted.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_post_whose_answer_is_lost_is_found_when_the_key_comes_again() {
    let (routes, posted) = forgetful(1);
    let service = service(&serve(routes).await);
    let lost = post(&service, reply("key-0001", "We are on it.")).await.unwrap_err();
    assert_eq!(lost.code(), Code::Aborted, "{lost:?}");
    assert!(lost.message().contains("the same key"), "{lost:?}");
    assert_eq!(posted.load(Ordering::SeqCst), 1, "it is not repeated by itself");
    let again = post(&service, reply("key-0001", "We are on it.")).await.unwrap();
    assert!(again.already_posted);
    assert_eq!((posted.load(Ordering::SeqCst), count(&service, "We are on it.").await), (1, 1));
}

#[tokio::test]
async fn a_caller_who_goes_away_does_not_take_the_post_along() {
    let (routes, posted) = forgetful(0);
    let service = Arc::new(service(&serve(routes).await));
    let going = Arc::clone(&service);
    let call = tokio::spawn(async move { post(&going, reply("key-0001", "We are on it.")).await });
    // It has begun, or not; either way there is one article in the end.
    tokio::time::sleep(Duration::from_millis(5)).await;
    call.abort();
    post(&service, reply("key-0001", "We are on it.")).await.unwrap();
    assert_eq!(posted.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn what_the_helpdesk_refuses_was_not_posted_and_is_not_sent_again() {
    for (status, code) in [
        (401, Code::FailedPrecondition),
        (403, Code::PermissionDenied),
        (404, Code::NotFound),
        (422, Code::FailedPrecondition),
        (429, Code::ResourceExhausted),
        // Nobody knows.
        (500, Code::Aborted),
        (503, Code::Aborted),
    ] {
        let server = helpdesk(json!([])).await;
        let answer = ResponseTemplate::new(status).insert_header("retry-after", "0");
        Mock::given(method("POST")).respond_with(answer).expect(1).mount(&server).await;
        let request =
            ReplyRequest { ticket_id: "7".to_owned(), ..reply("key-0001", "We are on it.") };
        let refused = post(&service(&server.uri()), request).await.unwrap_err();
        assert_eq!(refused.code(), code, "{status}: {refused:?}");
    }
    let server = helpdesk(json!([])).await;
    let slow = ResponseTemplate::new(201).set_delay(Duration::from_secs(50));
    Mock::given(method("POST")).respond_with(slow).expect(1).mount(&server).await;
    let request = ReplyRequest { ticket_id: "7".to_owned(), ..reply("key-0001", "We are on it.") };
    let late = service(&server.uri())
        .reply(within(Duration::from_secs(4), ask(request)))
        .await
        .unwrap_err();
    assert_eq!(late.code(), Code::Aborted, "{late:?}");
}

#[tokio::test]
async fn a_reply_that_is_none_is_refused() {
    let url = serve(sample::of("acme", TOKEN)).await;
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
        let refused = post(&service, request).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(refused.message().starts_with(&format!("`{field}`")), "{refused:?}");
    }
    let missing = ReplyRequest { ticket_id: "999".to_owned(), ..reply("key-0001", "text") };
    assert_eq!(post(&service, missing).await.unwrap_err().code(), Code::NotFound);
}
