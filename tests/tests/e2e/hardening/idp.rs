//! The development authorization server.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use drawbridge_tests::TestMesh;
use http::StatusCode;
use reqwest::{Response, redirect::Policy};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use url::Url;

const REDIRECT_URI: &str = "http://127.0.0.1:1/callback";
const VERIFIER: &str = "a-verifier-that-only-a-test-would-use-0123456789";

/// A browser and a client at the authorization server of a mesh.
struct Session<'a> {
    mesh: &'a TestMesh,
    http: reqwest::Client,
}

impl<'a> Session<'a> {
    fn new(mesh: &'a TestMesh) -> Self {
        let http = reqwest::Client::builder().redirect(Policy::none()).build().expect("a client");
        Self { mesh, http }
    }

    fn url(&self, path: &str) -> Url {
        self.mesh.mesh.state.issuer.join(path).expect("a URL")
    }

    async fn register(&self, changes: Value) -> Response {
        let mut metadata = json!({
            "redirect_uris": [REDIRECT_URI],
            "token_endpoint_auth_method": "none",
            "grant_types": ["authorization_code", "refresh_token"],
        });
        metadata
            .as_object_mut()
            .expect("an object")
            .extend(changes.as_object().expect("an object").clone());
        self.http.post(self.url("/register")).json(&metadata).send().await.expect("an answer")
    }

    async fn client(&self) -> String {
        let registered: Value = self.register(json!({})).await.json().await.expect("JSON");
        registered["client_id"].as_str().expect("a client id").to_owned()
    }

    async fn authorize(&self, client_id: &str, resource: &str) -> Response {
        let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(VERIFIER));
        let query = [
            ("response_type", "code"),
            ("client_id", client_id),
            ("redirect_uri", REDIRECT_URI),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
            ("resource", resource),
            ("state", "test"),
        ];
        self.http.get(self.url("/authorize")).query(&query).send().await.expect("a page")
    }

    /// Starts a sign-in and returns its id.
    async fn begin(&self, client_id: &str) -> String {
        let page = self.authorize(client_id, self.mesh.mesh.mcp_url.as_str()).await;
        let page = page.text().await.expect("a text");
        let (_, rest) =
            page.split_once(r#"name="request" value=""#).unwrap_or_else(|| panic!("{page}"));
        rest.split_once('"').expect("a value").0.to_owned()
    }

    async fn sign_in(&self, request: &str, user: &str, password: &str) -> Response {
        let form = [
            ("request", request),
            ("username", user),
            ("password", password),
            ("decision", "allow"),
        ];
        self.http.post(self.url("/authorize")).form(&form).send().await.expect("an answer")
    }

    async fn code(&self, client_id: &str) -> String {
        let request = self.begin(client_id).await;
        let answer = self.sign_in(&request, "alice", "alice").await;
        assert_eq!(answer.status(), StatusCode::SEE_OTHER);
        let location =
            answer.headers()["location"].to_str().expect("a text").parse::<Url>().expect("a URL");
        location.query_pairs().find(|(name, _)| name == "code").expect("a code").1.into_owned()
    }

    async fn token(&self, form: &[(&str, &str)]) -> (StatusCode, Value) {
        let answer = self.http.post(self.url("/token")).form(form).send().await.expect("an answer");
        (answer.status(), answer.json().await.expect("JSON"))
    }

    async fn redeem(&self, client_id: &str, code: &str) -> (StatusCode, Value) {
        self.token(&[
            ("grant_type", "authorization_code"),
            ("client_id", client_id),
            ("code", code),
            ("code_verifier", VERIFIER),
        ])
        .await
    }

    async fn refresh(&self, client_id: &str, tokens: &Value) -> (StatusCode, Value) {
        let token = tokens["refresh_token"].as_str().expect("a refresh token");
        let form =
            [("grant_type", "refresh_token"), ("client_id", client_id), ("refresh_token", token)];
        self.token(&form).await
    }

    /// The status of a request at the edge with an access token.
    async fn at_the_edge(&self, tokens: &Value) -> StatusCode {
        let client =
            self.mesh.client_with(tokens["access_token"].as_str().expect("an access token"));
        client.call("tools/list", json!({})).await.status
    }

    /// Waits until the edge rejects an access token.
    async fn wait_until_rejected(&self, tokens: &Value) {
        while self.at_the_edge(tokens).await != StatusCode::UNAUTHORIZED {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }
}

#[tokio::test]
async fn guessing_a_password_locks_that_user_and_not_the_others() {
    let mesh = TestMesh::start().await;
    let session = Session::new(&mesh);
    let client = session.client().await;
    // Each guess uses a new sign-in, so that no sign-in reaches its own limit.
    for guess in 0..5 {
        let request = session.begin(&client).await;
        let answer = session.sign_in(&request, "alice", &guess.to_string()).await;
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "{guess}");
    }
    let request = session.begin(&client).await;
    let locked = session.sign_in(&request, "alice", "alice").await;
    assert_eq!(locked.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(locked.headers()["retry-after"], "60");
    let other = session.sign_in(&request, "bob", "bob").await;
    assert_eq!(other.status(), StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn sign_ins_are_limited_per_address_and_evict_none() {
    let mesh = TestMesh::start().await;
    let session = Session::new(&mesh);
    let client = session.client().await;
    let first = session.begin(&client).await;
    for _ in 1..64 {
        session.begin(&client).await;
    }
    let refused = session.authorize(&client, mesh.mesh.mcp_url.as_str()).await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(session.sign_in(&first, "alice", "alice").await.status(), StatusCode::SEE_OTHER);
    session.begin(&client).await;
}

#[tokio::test]
async fn client_registrations_are_limited_per_address_and_evict_none() {
    let mesh = TestMesh::start().await;
    let session = Session::new(&mesh);
    let (used, first) = (session.client().await, session.client().await);
    session.code(&used).await;
    // A client that a user has signed in through no longer counts.
    for _ in 1..256 {
        session.client().await;
    }
    let refused = session.register(json!({})).await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    let refused: Value = refused.json().await.expect("JSON");
    assert_eq!(refused["error"], "temporarily_unavailable");
    for client in [used, first] {
        session.code(&client).await;
    }
}

#[tokio::test]
async fn reusing_a_code_revokes_its_access_token() {
    let mesh = TestMesh::start().await;
    let session = Session::new(&mesh);
    let client = session.client().await;
    let code = session.code(&client).await;
    let (status, tokens) = session.redeem(&client, &code).await;
    assert_eq!((status, session.at_the_edge(&tokens).await), (StatusCode::OK, StatusCode::OK));
    let other = session.redeem(&client, &session.code(&client).await).await.1;
    let (status, refused) = session.redeem(&client, &code).await;
    assert_eq!((status, &refused["error"]), (StatusCode::BAD_REQUEST, &json!("invalid_grant")));
    session.wait_until_rejected(&tokens).await;
    assert_eq!(session.at_the_edge(&other).await, StatusCode::OK, "it belongs to another grant");
}

#[tokio::test]
async fn reusing_a_refresh_token_revokes_all_access_tokens_of_its_grant() {
    let mesh = TestMesh::start().await;
    let session = Session::new(&mesh);
    let client = session.client().await;
    let first = session.redeem(&client, &session.code(&client).await).await.1;
    let second = session.refresh(&client, &first).await.1;
    let third = session.refresh(&client, &second).await.1;
    for tokens in [&first, &second, &third] {
        assert_eq!(session.at_the_edge(tokens).await, StatusCode::OK);
    }
    let (status, _) = session.refresh(&client, &first).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    for tokens in [&first, &second, &third] {
        session.wait_until_rejected(tokens).await;
    }
}

#[tokio::test]
async fn a_redirect_uri_with_a_disallowed_scheme_is_rejected() {
    let mesh = TestMesh::start().await;
    let session = Session::new(&mesh);
    for (uri, status) in [
        ("ms-msdt:/id", StatusCode::BAD_REQUEST),
        ("slack://open", StatusCode::BAD_REQUEST),
        ("intent://x", StatusCode::BAD_REQUEST),
        ("javascript:alert(1)", StatusCode::BAD_REQUEST),
        ("cursor://anysphere.cursor-retrieval/oauth/callback", StatusCode::CREATED),
        ("com.example.app:/callback", StatusCode::CREATED),
        ("https://app.example/callback", StatusCode::CREATED),
    ] {
        let answer = session.register(json!({ "redirect_uris": [uri] })).await;
        assert_eq!(answer.status(), status, "{uri}");
    }
}

#[tokio::test]
async fn a_client_name_is_displayed_without_invisible_characters() {
    let mesh = TestMesh::start().await;
    let session = Session::new(&mesh);
    let name = "\u{202e}Trusted\u{2066} Con\u{200b}sole\u{feff}\u{3164}";
    let registered: Value =
        session.register(json!({ "client_name": name })).await.json().await.expect("JSON");
    assert_eq!(registered["client_name"], "Trusted Console");
    let client = registered["client_id"].as_str().expect("a client id");
    let page =
        session.authorize(client, mesh.mesh.mcp_url.as_str()).await.text().await.expect("a text");
    assert!(page.contains("<bdi>Trusted Console</bdi>"), "{page}");
}

#[tokio::test]
async fn a_self_registered_client_gets_no_token_for_auth_itself() {
    let mesh = TestMesh::start().await;
    let session = Session::new(&mesh);
    let client = session.client().await;
    let answer = session.authorize(&client, &mesh.mesh.state.internal_audience).await;
    assert_eq!(answer.status(), StatusCode::SEE_OTHER);
    let location = answer.headers()["location"].to_str().expect("a text");
    assert!(location.contains("error=invalid_target"), "{location}");
}
