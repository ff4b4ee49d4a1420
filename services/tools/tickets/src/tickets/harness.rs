use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::Router;
use drawbridge_sdk::{
    BlockingJobs, CallContext, RequestId, ServiceBuilder,
    credentials::{CredentialLimits, CredentialSource, Credentials, EmbeddedSource},
    transaction_token::{Principal, TransactionClaims, TransactionContext, VerifiedCaller},
};
use serde_json::{Value, json};
use tonic::Request;
use wiremock::{
    Mock, MockBuilder, MockServer, ResponseTemplate,
    matchers::{method, path},
};

use crate::{
    api::TicketApi,
    helpdesk::{BaseUrl, Helpdesk},
};

pub(super) const TOKEN: &str = "the-helpdesks-token";
/// Longer than any of these tests takes.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A request of a subject of a tenant.
pub(super) fn request_from<T>(subject: &str, tenant: Option<&str>, message: T) -> Request<T> {
    let claims = TransactionClaims {
        iss: "auth".into(),
        aud: "tickets".into(),
        sub: subject.into(),
        iat: 0,
        exp: 0,
        txn: "test".into(),
        scope: String::new(),
        tctx: TransactionContext {
            iss: "idp".into(),
            principal: Principal::new("idp", subject, tenant),
            tenant: tenant.map(str::to_owned),
            client_id: "test".into(),
            tool: "test".into(),
            rpc: "a.B/C".into(),
            message_sha256: None,
            facts: None,
        },
        act: None,
    };
    let mut request = Request::new(message);
    request
        .extensions_mut()
        .insert(VerifiedCaller { claims: Arc::new(claims), token: Arc::new("token".into()) });
    with_timeout(TIMEOUT, request)
}

/// A request of bob of acme.
pub(super) fn request_of_bob<T>(message: T) -> Request<T> {
    request_from("bob", Some("acme"), message)
}

/// The same request, with this timeout.
pub(super) fn with_timeout<T>(timeout: Duration, mut request: Request<T>) -> Request<T> {
    request.extensions_mut().insert(CallContext::new(RequestId::generate(), timeout));
    request
}

/// Credentials of acme for the helpdesk at this URL.
pub(super) fn credentials(url: &str) -> Credentials {
    let fields = [("url", url), ("token", TOKEN)]
        .map(|(name, text)| (name.to_owned(), text.to_owned().into()));
    let secret = ("acme/helpdesk".to_owned(), BTreeMap::from(fields));
    Credentials::new(
        CredentialSource::Embedded(EmbeddedSource::new(BTreeMap::from([secret]))),
        CredentialLimits::default(),
    )
}

/// A service that uses the helpdesk at this URL for acme.
pub(super) fn service(url: &str) -> TicketApi {
    service_of(&ServiceBuilder::new(), url)
}

/// The same, as a part of this service.
pub(super) fn service_of(builder: &ServiceBuilder, url: &str) -> TicketApi {
    let jobs = BlockingJobs::new(4);
    TicketApi::new(Helpdesk::new(credentials(url), None::<BaseUrl>, jobs, builder).unwrap())
}

/// Serves a helpdesk, and returns its URL.
pub(super) async fn serve(routes: Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, routes).await });
    url
}

pub(super) fn get(url_path: &str) -> MockBuilder {
    Mock::given(method("GET")).and(path(url_path))
}

pub(super) fn ok(body: &Value) -> ResponseTemplate {
    ResponseTemplate::new(200).set_body_json(body)
}

/// A helpdesk with ticket 7, which has these articles.
pub(super) async fn helpdesk(articles: Value) -> MockServer {
    let server = MockServer::start().await;
    let ticket = json!({
        "id": 7, "number": "26007", "title": "Printer", "state": "open", "article_count": 2,
    });
    get("/api/v1/tickets/7").respond_with(ok(&ticket)).mount(&server).await;
    get("/api/v1/ticket_articles/by_ticket/7").respond_with(ok(&articles)).mount(&server).await;
    server
}
