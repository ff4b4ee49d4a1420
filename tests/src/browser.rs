use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use drawbridge_mesh::ConfiguredClient;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use url::Url;

const REDIRECT_URI: &str = "http://127.0.0.1:1/callback";
const VERIFIER: &str = "a-verifier-that-only-a-test-would-use-0123456789";

/// A client of the built-in authorization server that may request tokens for auth itself.
pub(crate) fn internal_client() -> ConfiguredClient {
    ConfiguredClient {
        client_id: "the-tests".to_owned().into(),
        redirect_uris: vec![REDIRECT_URI.to_owned().into()],
        internal: true,
    }
}

/// Signs in at the built-in authorization server as a browser does. Returns the access token for
/// `resource`.
pub async fn sign_in(issuer: &Url, resource: &str, username: &str, password: &str) -> String {
    let http = reqwest::Client::new();
    let endpoint = |path: &str| issuer.join(path).expect("a URL");
    let client_id = if resource.starts_with("http") {
        let registration = json!({
            "client_name": "a test",
            "redirect_uris": [REDIRECT_URI],
            "token_endpoint_auth_method": "none",
        });
        let client = http.post(endpoint("/register")).json(&registration).send().await;
        let client: Value = client.expect("a registration").json().await.expect("JSON");
        client["client_id"].as_str().expect("a client id").to_owned()
    } else {
        internal_client().client_id.into_inner()
    };
    let client_id = client_id.as_str();

    let mut authorize = endpoint("/authorize");
    authorize.query_pairs_mut().extend_pairs([
        ("response_type", "code"),
        ("client_id", client_id),
        ("redirect_uri", REDIRECT_URI),
        ("code_challenge", &URL_SAFE_NO_PAD.encode(Sha256::digest(VERIFIER))),
        ("code_challenge_method", "S256"),
        ("resource", resource),
        ("state", "test"),
    ]);
    let location = authorize_as(&authorize, username, password).await;
    let code =
        location.query_pairs().find(|(name, _)| name == "code").expect("a code").1.into_owned();

    let form = [
        ("grant_type", "authorization_code"),
        ("code", &code),
        ("redirect_uri", REDIRECT_URI),
        ("client_id", client_id),
        ("code_verifier", VERIFIER),
        ("resource", resource),
    ];
    let token = http.post(endpoint("/token")).form(&form).send().await.expect("an answer");
    let token: Value = token.json().await.expect("JSON");
    token["access_token"].as_str().unwrap_or_else(|| panic!("no token: {token}")).to_owned()
}

/// Submits the sign-in page of the built-in authorization server as a browser does. Returns the
/// redirect's target.
pub async fn authorize_as(authorize: &Url, username: &str, password: &str) -> Url {
    let http = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .expect("an HTTP client");
    let page =
        http.get(authorize.clone()).send().await.expect("a page").text().await.expect("a text");
    let (_, rest) =
        page.split_once(r#"name="request" value=""#).unwrap_or_else(|| panic!("no form: {page}"));
    let (request, _) = rest.split_once('"').expect("a value");
    let form = [
        ("request", request),
        ("username", username),
        ("password", password),
        ("decision", "allow"),
    ];
    let target = authorize.join("/authorize").expect("a URL");
    let redirect = http.post(target).form(&form).send().await.expect("an answer");
    let location =
        redirect.headers().get("location").unwrap_or_else(|| panic!("no redirect: {redirect:?}"));
    Url::parse(location.to_str().expect("a text")).expect("a URL")
}
