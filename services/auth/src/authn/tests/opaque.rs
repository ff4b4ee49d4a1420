//! Opaque tokens.

use std::sync::atomic::{AtomicU32, Ordering};

use axum::{
    Form, Json, Router,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse as _, Response},
    routing::post,
};

use super::*;

/// A mock of an introspection endpoint that counts its requests.
#[derive(Clone, Default)]
struct MockEndpoint {
    response: Arc<std::sync::Mutex<(u16, Value)>>,
    requests: Arc<AtomicU32>,
}

impl MockEndpoint {
    fn set_response(&self, status: u16, body: Value) {
        *self.response.lock().unwrap() = (status, body);
    }

    fn requests(&self) -> u32 {
        self.requests.load(Ordering::SeqCst)
    }

    fn respond(&self) -> Response {
        self.requests.fetch_add(1, Ordering::SeqCst);
        let (status, body) = self.response.lock().unwrap().clone();
        (StatusCode::from_u16(status).unwrap(), Json(body)).into_response()
    }

    /// Serves `/introspect` and `/tokeninfo`, and returns their base URL.
    async fn start() -> (Self, String) {
        let endpoint = Self::default();
        let routes = Router::new()
            .route("/introspect", post(introspect))
            .route("/tokeninfo", post(token_info))
            .with_state(endpoint.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        (endpoint, url)
    }
}

async fn introspect(
    State(endpoint): State<MockEndpoint>,
    headers: HeaderMap,
    Form(form): Form<Vec<(String, String)>>,
) -> Response {
    // drawbridge:s%26cret
    let is_authorized = headers["authorization"] == "Basic ZHJhd2JyaWRnZTpzJTI2Y3JldA==";
    let form: Vec<_> = form.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let [("token", token), ("token_type_hint", "access_token")] = form.as_slice() else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    if !is_authorized || !token.starts_with("opaque-") {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    endpoint.respond()
}

async fn token_info(State(endpoint): State<MockEndpoint>, headers: HeaderMap) -> Response {
    assert_eq!(headers["authorization"], "Bearer ya29.a0AfB_opaque");
    endpoint.respond()
}

fn active() -> Value {
    json!({
        "active": true, "iss": "https://hydra.example", "sub": "alice", "aud": [EDGE], "client_id": "cli",
        "scope": "mcp", "exp": now() + 300, "token_type": "Bearer", "groups": ["engineering"], "jti": "t-1",
    })
}

async fn hydra() -> (Signed, MockEndpoint, TokenVerifier) {
    let (endpoint, url) = MockEndpoint::start().await;
    let signed = Signed::new();
    fs::write(signed.folder.path().join("secret"), "s&cret\n").unwrap();
    let verifier = signed.verifier(&format!(
        r#"
        [[issuers]]
        issuer = "https://hydra.example"
        allow_private_addresses = true
        [issuers.introspection]
        url = "{url}/introspect"
        client_id = "drawbridge"
        client_secret_file = "secret"
        "#
    ));
    (signed, endpoint, verifier)
}

#[tokio::test]
async fn an_opaque_token_has_the_claims_that_its_issuer_returns() {
    let (_signed, endpoint, verifier) = hydra().await;
    endpoint.set_response(200, active());
    let token = verifier.verify("opaque-1", EDGE, client_network()).await.unwrap();
    let alice = &token.identity;
    assert_eq!(alice.principal.issuer, "https://hydra.example");
    assert_eq!(
        (&alice.groups, token.id.as_deref()),
        (&vec!["engineering".to_owned()], Some("t-1"))
    );
    assert!(verifier.verify("opaque-1", EDGE, client_network()).await.is_ok());
    assert_eq!(endpoint.requests(), 1, "the result is cached");
    verifier.issuers.invalidate_verified();
    endpoint.set_response(200, json!({ "active": false }));
    assert!(matches!(
        verifier.verify("opaque-1", EDGE, client_network()).await,
        Err(TokenError::Inactive)
    ));
    assert!(matches!(
        verifier.verify("opaque-1", EDGE, client_network()).await,
        Err(TokenError::Inactive)
    ));
    assert_eq!(endpoint.requests(), 2, "an inactive result is cached too");
}

/// A token that was sent to each endpoint of an edge was introspected for each.
#[tokio::test]
async fn an_active_result_is_cached_for_every_resource_and_checked_for_each() {
    let (_signed, endpoint, verifier) = hydra().await;
    endpoint.set_response(200, active());
    for path in ["", "/a", "/b", "/c"] {
        let resource = format!("{EDGE}{path}");
        assert!(
            verifier.verify("opaque-1", &resource, client_network()).await.is_ok(),
            "{resource}"
        );
    }
    let elsewhere = format!("{EDGE}/a");
    endpoint.set_response(200, with(&active(), json!({ "aud": elsewhere })));
    assert!(verifier.verify("opaque-2", &elsewhere, client_network()).await.is_ok());
    let refused = verifier.verify("opaque-2", EDGE, client_network()).await;
    assert!(matches!(refused, Err(TokenError::Audience)), "{refused:?}");
    assert_eq!(endpoint.requests(), 2);
}

#[tokio::test]
async fn an_introspection_result_is_checked_like_a_jwt() {
    let (_signed, endpoint, verifier) = hydra().await;
    for (over, expected) in [
        (json!({ "active": null }), "not active"),
        (json!({ "active": "true" }), "not active"),
        (json!({ "token_type": "DPoP" }), "not active"),
        (json!({ "iss": "https://evil.example" }), "another issuer"),
        (json!({ "aud": "https://other.example" }), "another audience"),
        (json!({ "aud": null }), "missing or invalid"),
        (json!({ "sub": null }), "missing or invalid"),
        (json!({ "exp": now() - 60 }), "expired"),
        (json!({ "nbf": now() + 60 }), "not valid yet"),
        (json!({ "cnf": { "jkt": "k" } }), "bound"),
        (json!({ "groups": [1] }), "missing or invalid"),
    ] {
        endpoint.set_response(200, with(&active(), over.clone()));
        let token = format!("opaque-{expected}-{}", endpoint.requests()).replace(' ', "-");
        let refused =
            verifier.verify(&token, EDGE, client_network()).await.unwrap_err().to_string();
        assert!(refused.contains(expected), "{over}: {refused}");
    }
}

#[tokio::test]
async fn a_result_is_cached_no_longer_than_the_token_lives() {
    let (_signed, endpoint, verifier) = hydra().await;
    endpoint.set_response(200, with(&active(), json!({ "exp": now() })));
    for times in 1..=3 {
        assert!(
            verifier.verify("opaque-1", EDGE, client_network()).await.is_ok(),
            "it is within the leeway"
        );
        assert_eq!(endpoint.requests(), times);
    }
}

#[tokio::test]
async fn a_failed_introspection_leaves_the_token_unverified() {
    let (_signed, endpoint, verifier) = hydra().await;
    for (status, body) in [(500, json!({})), (401, json!({})), (200, json!([])), (302, json!({}))] {
        endpoint.set_response(status, body);
        let error = verifier.verify("opaque-1", EDGE, client_network()).await.unwrap_err();
        assert!(error.is_unavailable(), "{status}: {error}");
    }
    // The endpoint rejects the credentials for this token.
    assert!(verifier.verify("another", EDGE, client_network()).await.unwrap_err().is_unavailable());
}

/// Three hundred concurrent requests with one token cause one introspection, whatever the result.
#[tokio::test]
async fn concurrent_introspections_of_one_token_share_one_request() {
    let (_signed, endpoint, verifier) = hydra().await;
    for (answer, token) in [(active(), "opaque-1"), (json!({ "active": false }), "opaque-2")] {
        endpoint.set_response(200, answer);
        let before = endpoint.requests();
        let verify = (0..300).map(|_| verifier.verify(token, EDGE, client_network()));
        let verified = futures::future::join_all(verify).await;
        assert!(verified.iter().all(|verified| verified.is_ok() == (token == "opaque-1")));
        assert_eq!(endpoint.requests() - before, 1);
    }
}

#[tokio::test]
async fn a_jwt_is_never_introspected() {
    let (signed, endpoint, verifier) = hydra().await;
    endpoint.set_response(200, active());
    let foreign = signed
        .sign(&json!({ "alg": "RS256", "kid": KEY_ID }), &json!({ "iss": "https://a.example" }));
    let (head, _) = foreign.rsplit_once('.').unwrap();
    let encrypted = format!("{foreign}.a.b");
    let padded = foreign.replacen('.', "=.", 1);
    for token in [foreign.as_str(), head, &encrypted, &padded, "e30.e30.", "e30", "e30="] {
        assert!(verifier.verify(token, EDGE, client_network()).await.is_err(), "{token}");
    }
    assert_eq!(endpoint.requests(), 0);
}

#[tokio::test]
async fn google_access_tokens_are_introspected_and_id_tokens_are_rejected() {
    let (endpoint, url) = MockEndpoint::start().await;
    let signed = Signed::new();
    let verifier = signed.verifier(&format!(
        r#"
        [[issuers]]
        issuer = "https://accounts.google.com"
        preset = "google"
        audiences = ["1234-abc.apps.googleusercontent.com"]
        allow_private_addresses = true
        introspection.url = "{url}/tokeninfo"
        "#
    ));
    // Google writes numbers and booleans as strings.
    let info = json!({
        "azp": "1234-abc.apps.googleusercontent.com", "aud": "1234-abc.apps.googleusercontent.com",
        "sub": "110169484474386276334", "scope": "openid https://www.googleapis.com/auth/userinfo.email",
        "exp": (now() + 3_000).to_string(), "expires_in": "3000", "email": "alice@acme.example",
        "email_verified": "true", "access_type": "online",
    });
    endpoint.set_response(200, info.clone());
    let token = verifier.verify("ya29.a0AfB_opaque", EDGE, client_network()).await.unwrap();
    let alice = &token.identity;
    assert_eq!(alice.principal.issuer, "https://accounts.google.com");
    assert_eq!(alice.principal.subject, "110169484474386276334");
    assert_eq!(
        alice.principal.scopes,
        ["openid", "https://www.googleapis.com/auth/userinfo.email"]
    );
    assert_eq!(alice.email.as_deref(), Some("alice@acme.example"));
    assert!(alice.groups.is_empty() && alice.principal.tenant.is_empty() && !alice.workload);

    let refused = |over: Value| {
        verifier.issuers.invalidate_verified();
        endpoint.set_response(200, with(&info, over));
        verifier.verify("ya29.a0AfB_opaque", EDGE, client_network())
    };
    assert!(matches!(refused(json!({ "aud": "another app" })).await, Err(TokenError::Audience)));
    assert!(
        matches!(refused(json!({ "sub": null })).await, Err(TokenError::Claims)),
        "no scope `openid`"
    );
    let unverified =
        refused(json!({ "email_verified": "false", "hd": "acme.example" })).await.unwrap();
    assert_eq!(
        (unverified.identity.email.as_ref(), unverified.identity.principal.tenant.as_str()),
        (None, "acme.example")
    );
    verifier.issuers.invalidate_verified();
    endpoint.set_response(
        400,
        json!({ "error": "invalid_token", "error_description": "Invalid Value" }),
    );
    assert!(matches!(
        verifier.verify("ya29.a0AfB_opaque", EDGE, client_network()).await,
        Err(TokenError::Inactive)
    ));

    let id_token = json!({
        "iss": "https://accounts.google.com", "azp": "1234-abc.apps.googleusercontent.com",
        "aud": "1234-abc.apps.googleusercontent.com", "sub": "110169484474386276334", "hd": "acme.example",
        "email": "alice@acme.example", "email_verified": true, "iat": now(), "exp": now() + 3600,
    });
    let id_token = signed.sign(&json!({ "alg": "RS256", "kid": KEY_ID, "typ": "JWT" }), &id_token);
    assert!(matches!(
        verifier.verify(&id_token, EDGE, client_network()).await,
        Err(TokenError::Kind)
    ));
}
