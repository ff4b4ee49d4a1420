//! A running server with a client for its flows.

use std::{collections::HashMap, net::SocketAddr};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use drawbridge_runtime::{Listen, RunningService, Telemetry, TelemetryConfig};
use drawbridge_transport::{
    fetch::{Fetcher, NetworkScope},
    jwks::{Jwks, JwksLimits, KeySource},
};
use jsonwebtoken::{Algorithm, Header, Validation};
use reqwest::{Response, StatusCode};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use url::Url;

use crate::{Config, ConfiguredClient, Workload, start};

pub(super) const RESOURCE: &str = "http://127.0.0.1:7180/mcp";
pub(super) const REDIRECT_URI: &str = "http://127.0.0.1:33418/callback";
pub(super) const VERIFIER: &str =
    "a-verifier-of-sixty-four-characters-0123456789-0123456789-012345";
/// A client that may get tokens for the auth service.
pub(super) const INTERNAL_CLIENT: &str = "the-console";
pub(super) const WORKLOAD_SECRET: &str = "workload:secret&=";

pub(super) fn on_loopback() -> Listen {
    Listen::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap().0
}

pub(super) fn config() -> Config {
    Config {
        listen: on_loopback(),
        admin_listen: on_loopback(),
        workloads: vec![Workload {
            client_id: "nightly".to_owned().into(),
            client_secret: WORKLOAD_SECRET.into(),
            groups: vec!["batch".into()],
            internal: true,
        }],
        clients: vec![ConfiguredClient {
            client_id: INTERNAL_CLIENT.to_owned().into(),
            redirect_uris: vec![REDIRECT_URI.to_owned().into()],
            internal: true,
        }],
        ..Config::default()
    }
}

pub(super) struct Server {
    /// Stored because it owns the metrics of the admin port.
    _telemetry: Telemetry,
    running: RunningService,
    pub(super) issuer: String,
    pub(super) http: reqwest::Client,
}

impl Server {
    pub(super) async fn start() -> Self {
        Self::start_with(config()).await
    }

    pub(super) async fn start_with(config: Config) -> Self {
        let telemetry = Telemetry::new("idp", &TelemetryConfig::default()).unwrap();
        let running = start(config, &telemetry).await.unwrap();
        let issuer = format!("http://{}", running.address);
        let http =
            reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        Self { _telemetry: telemetry, running, issuer, http }
    }

    pub(super) async fn stop(self) {
        self.running.stop().await;
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.issuer)
    }

    pub(super) fn admin(&self) -> SocketAddr {
        self.running.admin
    }

    pub(super) async fn get(&self, path: &str) -> Response {
        self.http.get(self.url(path)).send().await.unwrap()
    }

    pub(super) async fn register(&self, metadata: &Value) -> Value {
        let response = self.http.post(self.url("/register")).json(metadata).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::CREATED);
        response.json().await.unwrap()
    }

    /// Registers a public client as MCP clients do.
    pub(super) async fn public_client(&self) -> String {
        let registered = self
            .register(&json!({
                "client_name": "A test",
                "redirect_uris": [REDIRECT_URI],
                "token_endpoint_auth_method": "none",
                "grant_types": ["authorization_code", "refresh_token"],
            }))
            .await;
        registered["client_id"].as_str().unwrap().to_owned()
    }

    /// Requests authorization. `changes` replace parameters; an empty value removes one.
    pub(super) async fn authorize(&self, client_id: &str, changes: &[(&str, &str)]) -> Response {
        let challenge = challenge();
        let mut params = HashMap::from([
            ("response_type", "code"),
            ("client_id", client_id),
            ("redirect_uri", REDIRECT_URI),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
            ("state", "the state"),
            ("resource", RESOURCE),
        ]);
        params.extend(changes.iter().copied());
        self.http.get(self.url("/authorize")).query(&params).send().await.unwrap()
    }

    /// Requests authorization and returns the request id from the page.
    pub(super) async fn pending(&self, client_id: &str, changes: &[(&str, &str)]) -> String {
        let response = self.authorize(client_id, changes).await;
        assert_eq!(response.status(), StatusCode::OK);
        request_id(&response.text().await.unwrap())
    }

    pub(super) async fn decide(
        &self,
        request: &str,
        credentials: (&str, &str),
        decision: &str,
    ) -> Response {
        let form = [
            ("request", request),
            ("username", credentials.0),
            ("password", credentials.1),
            ("decision", decision),
        ];
        self.http.post(self.url("/authorize")).form(&form).send().await.unwrap()
    }

    /// Signs alice in and returns the code.
    pub(super) async fn code(&self, client_id: &str, changes: &[(&str, &str)]) -> String {
        let request = self.pending(client_id, changes).await;
        let parameters = callback(&self.decide(&request, ("alice", "alice"), "allow").await);
        parameters["code"].clone()
    }

    pub(super) async fn token(&self, form: &[(&str, &str)]) -> Response {
        self.http.post(self.url("/token")).form(form).send().await.unwrap()
    }

    pub(super) async fn redeem(
        &self,
        client_id: &str,
        code: &str,
        changes: &[(&str, &str)],
    ) -> Response {
        let mut form = HashMap::from([
            ("grant_type", "authorization_code"),
            ("client_id", client_id),
            ("code", code),
            ("redirect_uri", REDIRECT_URI),
            ("code_verifier", VERIFIER),
        ]);
        form.extend(changes.iter().copied());
        self.token(&form.into_iter().collect::<Vec<_>>()).await
    }

    pub(super) async fn refresh(&self, client_id: &str, token: &str) -> Response {
        let form =
            [("grant_type", "refresh_token"), ("client_id", client_id), ("refresh_token", token)];
        self.token(&form).await
    }

    /// Verifies an access token with the published keys, as a resource server would.
    pub(super) async fn verify(&self, token: &str, audience: &str) -> (Header, Value) {
        let header = jsonwebtoken::decode_header(token).unwrap();
        let url = Url::parse(&self.url("/.well-known/jwks.json")).unwrap();
        let keys = Jwks::new(
            KeySource::Url(url, Fetcher::new(NetworkScope::Anywhere).unwrap()),
            JwksLimits::default(),
        );
        let key = keys.key(header.kid.as_deref().unwrap()).await.unwrap();
        assert!(key.verifies(Algorithm::ES256));
        let mut validation = Validation::new(Algorithm::ES256);
        validation.set_issuer(&[&self.issuer]);
        validation.set_audience(&[audience]);
        let claims = jsonwebtoken::decode::<Value>(token, &key.key, &validation).unwrap().claims;
        (header, claims)
    }
}

pub(super) fn challenge() -> String {
    BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(VERIFIER))
}

pub(super) fn request_id(page: &str) -> String {
    let (_, rest) = page.split_once(r#"name="request" value=""#).unwrap();
    rest.split_once('"').unwrap().0.to_owned()
}

pub(super) fn location(response: &Response) -> Url {
    assert_eq!(response.status(), StatusCode::SEE_OTHER);
    Url::parse(response.headers()["location"].to_str().unwrap()).unwrap()
}

/// The parameters of a redirect to the client.
pub(super) fn callback(response: &Response) -> HashMap<String, String> {
    location(response).query_pairs().into_owned().collect()
}

pub(super) async fn json_of(response: Response) -> Value {
    assert_eq!(response.headers()["cache-control"], "no-store");
    response.json().await.unwrap()
}

/// The tokens in the response to a successful request.
pub(super) async fn tokens(response: Response) -> Value {
    let status = response.status();
    let body = json_of(response).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    body
}

/// Checks that a token request was rejected with this status and error code.
pub(super) async fn check_rejected(response: Response, status: u16, error: &str) {
    let actual = response.status().as_u16();
    let body = json_of(response).await;
    assert_eq!((actual, body["error"].as_str()), (status, Some(error)), "{body}");
}
