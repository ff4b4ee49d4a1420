//! Tokens that mean something to their issuer alone.

use std::sync::atomic::{AtomicU32, Ordering};

use axum::{
    Form, Json, Router,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse as _, Response},
    routing::post,
};

use super::*;

/// What an endpoint answers, and how often it was asked.
#[derive(Clone, Default)]
struct Asked {
    answer: Arc<std::sync::Mutex<(u16, Value)>>,
    times: Arc<AtomicU32>,
}

impl Asked {
    fn answers(&self, status: u16, body: Value) {
        *self.answer.lock().unwrap() = (status, body);
    }

    fn times(&self) -> u32 {
        self.times.load(Ordering::SeqCst)
    }

    fn answer(&self) -> Response {
        self.times.fetch_add(1, Ordering::SeqCst);
        let (status, body) = self.answer.lock().unwrap().clone();
        (StatusCode::from_u16(status).unwrap(), Json(body)).into_response()
    }

    /// Starts the endpoints `/introspect` and `/tokeninfo`, and says where they are.
    async fn start() -> (Self, String) {
        let asked = Self::default();
        let routes = Router::new()
            .route("/introspect", post(introspect))
            .route("/tokeninfo", post(token_info))
            .with_state(asked.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        (asked, url)
    }
}

async fn introspect(
    State(asked): State<Asked>,
    headers: HeaderMap,
    Form(form): Form<Vec<(String, String)>>,
) -> Response {
    // drawbridge:s%26cret
    let right = headers["authorization"] == "Basic ZHJhd2JyaWRnZTpzJTI2Y3JldA==";
    let form: Vec<_> = form.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let [("token", token), ("token_type_hint", "access_token")] = form.as_slice() else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    if !right || !token.starts_with("opaque-") {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    asked.answer()
}

async fn token_info(State(asked): State<Asked>, headers: HeaderMap) -> Response {
    assert_eq!(headers["authorization"], "Bearer ya29.a0AfB_opaque");
    asked.answer()
}

fn active() -> Value {
    json!({
        "active": true, "iss": "https://hydra.example", "sub": "alice", "aud": [EDGE], "client_id": "cli",
        "scope": "mcp", "exp": now() + 300, "token_type": "Bearer", "groups": ["engineering"], "jti": "t-1",
    })
}

async fn hydra() -> (Signed, Asked, TokenVerifier) {
    let (asked, url) = Asked::start().await;
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
    (signed, asked, verifier)
}

#[tokio::test]
async fn an_opaque_token_is_what_its_issuer_says() {
    let (_signed, asked, verifier) = hydra().await;
    asked.answers(200, active());
    let token = verifier.verify("opaque-1", EDGE, somewhere()).await.unwrap();
    let alice = &token.identity;
    assert_eq!(alice.principal.issuer, "https://hydra.example");
    assert_eq!(
        (&alice.groups, token.id.as_deref()),
        (&vec!["engineering".to_owned()], Some("t-1"))
    );
    assert!(verifier.verify("opaque-1", EDGE, somewhere()).await.is_ok());
    assert_eq!(asked.times(), 1, "the answer is remembered");
    verifier.issuers.forget_verified();
    asked.answers(200, json!({ "active": false }));
    assert!(matches!(
        verifier.verify("opaque-1", EDGE, somewhere()).await,
        Err(TokenError::Inactive)
    ));
    assert!(matches!(
        verifier.verify("opaque-1", EDGE, somewhere()).await,
        Err(TokenError::Inactive)
    ));
    assert_eq!(asked.times(), 2, "a refusal is remembered too");
}

/// A token that is shown at each endpoint of an edge was asked about for each.
#[tokio::test]
async fn an_active_answer_is_remembered_for_every_resource_and_checked_for_each() {
    let (_signed, asked, verifier) = hydra().await;
    asked.answers(200, active());
    for path in ["", "/a", "/b", "/c"] {
        let resource = format!("{EDGE}{path}");
        assert!(verifier.verify("opaque-1", &resource, somewhere()).await.is_ok(), "{resource}");
    }
    let elsewhere = format!("{EDGE}/a");
    asked.answers(200, with(&active(), json!({ "aud": elsewhere })));
    assert!(verifier.verify("opaque-2", &elsewhere, somewhere()).await.is_ok());
    let refused = verifier.verify("opaque-2", EDGE, somewhere()).await;
    assert!(matches!(refused, Err(TokenError::Audience)), "{refused:?}");
    assert_eq!(asked.times(), 2);
}

#[tokio::test]
async fn an_answer_is_checked_like_a_jwt() {
    let (_signed, asked, verifier) = hydra().await;
    for (over, expected) in [
        (json!({ "active": null }), "not active"),
        (json!({ "active": "true" }), "not active"),
        (json!({ "token_type": "DPoP" }), "not active"),
        (json!({ "iss": "https://evil.example" }), "another issuer"),
        (json!({ "aud": "https://other.example" }), "another audience"),
        (json!({ "aud": null }), "not complete"),
        (json!({ "sub": null }), "not complete"),
        (json!({ "exp": now() - 60 }), "expired"),
        (json!({ "nbf": now() + 60 }), "not valid yet"),
        (json!({ "cnf": { "jkt": "k" } }), "bound"),
        (json!({ "groups": [1] }), "not complete"),
    ] {
        asked.answers(200, with(&active(), over.clone()));
        let token = format!("opaque-{expected}-{}", asked.times()).replace(' ', "-");
        let refused = verifier.verify(&token, EDGE, somewhere()).await.unwrap_err().to_string();
        assert!(refused.contains(expected), "{over}: {refused}");
    }
}

#[tokio::test]
async fn an_answer_is_remembered_no_longer_than_the_token_lasts() {
    let (_signed, asked, verifier) = hydra().await;
    asked.answers(200, with(&active(), json!({ "exp": now() })));
    for times in 1..=3 {
        assert!(
            verifier.verify("opaque-1", EDGE, somewhere()).await.is_ok(),
            "the leeway still lets it in"
        );
        assert_eq!(asked.times(), times);
    }
}

#[tokio::test]
async fn when_the_issuer_does_not_answer_nobody_can_say() {
    let (_signed, asked, verifier) = hydra().await;
    for (status, body) in [(500, json!({})), (401, json!({})), (200, json!([])), (302, json!({}))] {
        asked.answers(status, body);
        let error = verifier.verify("opaque-1", EDGE, somewhere()).await.unwrap_err();
        assert!(error.is_unavailable(), "{status}: {error}");
    }
    // This one's credentials are refused.
    assert!(verifier.verify("another", EDGE, somewhere()).await.unwrap_err().is_unavailable());
}

/// Three hundred requests that show one token at once are one question, whatever the answer.
#[tokio::test]
async fn an_opaque_token_is_asked_about_once_at_a_time() {
    let (_signed, asked, verifier) = hydra().await;
    for (answer, token) in [(active(), "opaque-1"), (json!({ "active": false }), "opaque-2")] {
        asked.answers(200, answer);
        let before = asked.times();
        let verify = (0..300).map(|_| verifier.verify(token, EDGE, somewhere()));
        let verified = futures::future::join_all(verify).await;
        assert!(verified.iter().all(|verified| verified.is_ok() == (token == "opaque-1")));
        assert_eq!(asked.times() - before, 1);
    }
}

#[tokio::test]
async fn a_jwt_is_never_sent_to_be_introspected() {
    let (signed, asked, verifier) = hydra().await;
    asked.answers(200, active());
    let foreign = signed
        .sign(&json!({ "alg": "RS256", "kid": KEY_ID }), &json!({ "iss": "https://a.example" }));
    let (head, _) = foreign.rsplit_once('.').unwrap();
    let encrypted = format!("{foreign}.a.b");
    let padded = foreign.replacen('.', "=.", 1);
    for token in [foreign.as_str(), head, &encrypted, &padded, "e30.e30.", "e30", "e30="] {
        assert!(verifier.verify(token, EDGE, somewhere()).await.is_err(), "{token}");
    }
    assert_eq!(asked.times(), 0);
}

#[tokio::test]
async fn google_tells_what_its_access_tokens_mean_and_its_id_tokens_are_refused() {
    let (asked, url) = Asked::start().await;
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
    // Google writes numbers and truths as texts.
    let info = json!({
        "azp": "1234-abc.apps.googleusercontent.com", "aud": "1234-abc.apps.googleusercontent.com",
        "sub": "110169484474386276334", "scope": "openid https://www.googleapis.com/auth/userinfo.email",
        "exp": (now() + 3_000).to_string(), "expires_in": "3000", "email": "alice@acme.example",
        "email_verified": "true", "access_type": "online",
    });
    asked.answers(200, info.clone());
    let token = verifier.verify("ya29.a0AfB_opaque", EDGE, somewhere()).await.unwrap();
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
        verifier.issuers.forget_verified();
        asked.answers(200, with(&info, over));
        verifier.verify("ya29.a0AfB_opaque", EDGE, somewhere())
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
    verifier.issuers.forget_verified();
    asked.answers(400, json!({ "error": "invalid_token", "error_description": "Invalid Value" }));
    assert!(matches!(
        verifier.verify("ya29.a0AfB_opaque", EDGE, somewhere()).await,
        Err(TokenError::Inactive)
    ));

    let id_token = json!({
        "iss": "https://accounts.google.com", "azp": "1234-abc.apps.googleusercontent.com",
        "aud": "1234-abc.apps.googleusercontent.com", "sub": "110169484474386276334", "hd": "acme.example",
        "email": "alice@acme.example", "email_verified": true, "iat": now(), "exp": now() + 3600,
    });
    let id_token = signed.sign(&json!({ "alg": "RS256", "kid": KEY_ID, "typ": "JWT" }), &id_token);
    assert!(matches!(verifier.verify(&id_token, EDGE, somewhere()).await, Err(TokenError::Kind)));
}
