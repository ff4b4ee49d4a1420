//! What an MCP client needs of OAuth 2.1: discovery, registration, codes with PKCE, refresh.

use anyhow::{Context as _, bail, ensure};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use drawbridge_runtime::is_loopback;
use drawbridge_transport::fetch::{Fetched, Fetcher};
use http::Method;
use jiff::Timestamp;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use url::Url;
use uuid::Uuid;

/// How long before its expiry a token is refreshed, in seconds.
const EXPIRY_MARGIN_SECONDS: i64 = 30;

/// An authorization server, and the resource that tokens are for.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) issuer: String,
    authorization_endpoint: Url,
    token_endpoint: Url,
    registration_endpoint: Option<Url>,
    resource: String,
    scopes: Vec<String>,
}

/// What a sign-in yields.
#[derive(Clone, Debug)]
pub(crate) struct Tokens {
    pub(crate) access_token: SecretString,
    pub(crate) expires_at: Option<Timestamp>,
    pub(crate) refresh_token: Option<SecretString>,
}

impl Tokens {
    /// Whether the access token is valid for a while. One without an expiry is not.
    pub(super) fn is_fresh(&self) -> bool {
        self.expires_at
            .is_some_and(|at| at.as_second() - Timestamp::now().as_second() > EXPIRY_MARGIN_SECONDS)
    }
}

/// A request for a code, until its response.
#[derive(Debug)]
pub(super) struct CodeRequest {
    pub(super) client_id: String,
    pub(super) redirect_uri: String,
    pub(super) url: Url,
    state: String,
    verifier: SecretString,
}

/// RFC 9728 section 2.
#[derive(Deserialize)]
struct ResourceMetadata {
    resource: String,
    authorization_servers: Vec<String>,
    #[serde(default)]
    scopes_supported: Vec<String>,
}

/// RFC 8414 section 2.
#[derive(Deserialize)]
struct ServerMetadata {
    issuer: String,
    authorization_endpoint: Url,
    token_endpoint: Url,
    registration_endpoint: Option<Url>,
}

#[derive(Deserialize)]
struct TokenResponse {
    access_token: SecretString,
    expires_in: Option<i64>,
    refresh_token: Option<SecretString>,
}

#[derive(Deserialize)]
struct ErrorResponse {
    error: String,
    #[serde(default)]
    error_description: String,
}

/// Refuses a URL that would carry tokens in plaintext beyond this machine.
pub(super) fn check_secure(url: &Url) -> anyhow::Result<()> {
    let is_secure = url.scheme() == "https" || url.scheme() == "http" && is_loopback(url);
    ensure!(is_secure, "{url} is not https: a token must not leave this machine in plaintext");
    Ok(())
}

/// Finds the authorization server of an MCP endpoint, as its clients do.
pub(super) async fn discover(fetcher: &Fetcher, endpoint: &Url) -> anyhow::Result<Server> {
    let at = well_known(endpoint, "oauth-protected-resource");
    let resource: ResourceMetadata = fetcher
        .json(&at)
        .await
        .with_context(|| format!("cannot find the authorization server of {endpoint}"))?;
    ensure!(
        resource.resource.trim_end_matches('/') == endpoint.as_str().trim_end_matches('/'),
        "{at} is the metadata of {}",
        resource.resource
    );
    let issuer = resource.authorization_servers.first();
    let issuer = issuer.with_context(|| format!("{at} names no authorization server"))?;
    let metadata = server_metadata(fetcher, issuer).await.with_context(|| {
        format!("cannot read the metadata of the authorization server {issuer}")
    })?;
    for url in [&metadata.authorization_endpoint, &metadata.token_endpoint] {
        check_secure(url)?;
    }
    Ok(Server {
        issuer: metadata.issuer,
        authorization_endpoint: metadata.authorization_endpoint,
        token_endpoint: metadata.token_endpoint,
        registration_endpoint: metadata.registration_endpoint,
        resource: resource.resource,
        scopes: resource.scopes_supported,
    })
}

/// By RFC 8414, or else by OpenID Connect Discovery.
async fn server_metadata(fetcher: &Fetcher, issuer: &str) -> anyhow::Result<ServerMetadata> {
    let url: Url = issuer.parse()?;
    check_secure(&url)?;
    let metadata: ServerMetadata =
        match fetcher.json(&well_known(&url, "oauth-authorization-server")).await {
            Ok(metadata) => metadata,
            Err(_) => {
                let mut openid = url.clone();
                let path = url.path().trim_end_matches('/');
                openid.set_path(&format!("{path}/.well-known/openid-configuration"));
                fetcher.json(&openid).await?
            }
        };
    let is_same = metadata.issuer.trim_end_matches('/') == issuer.trim_end_matches('/');
    ensure!(is_same, "it is the metadata of {}", metadata.issuer);
    Ok(metadata)
}

fn well_known(url: &Url, document: &str) -> Url {
    let mut at = url.clone();
    at.set_path(&format!("/.well-known/{document}{}", url.path().trim_end_matches('/')));
    at
}

/// A request for a code: of this client, or of one that it registers (RFC 7591).
pub(super) async fn request_code(
    fetcher: &Fetcher,
    server: &Server,
    client_id: Option<&str>,
    redirect_uri: String,
) -> anyhow::Result<CodeRequest> {
    let client_id = match client_id {
        Some(id) => id.to_owned(),
        None => register(fetcher, server, &redirect_uri).await?,
    };
    let random = || format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
    let (state, verifier) = (random(), random());
    let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(&verifier));
    let mut url = server.authorization_endpoint.clone();
    url.query_pairs_mut().extend_pairs([
        ("response_type", "code"),
        ("client_id", &client_id),
        ("redirect_uri", &redirect_uri),
        ("state", &state),
        ("code_challenge", &challenge),
        ("code_challenge_method", "S256"),
        ("resource", &server.resource),
    ]);
    if !server.scopes.is_empty() {
        url.query_pairs_mut().append_pair("scope", &server.scopes.join(" "));
    }
    Ok(CodeRequest { client_id, redirect_uri, url, state, verifier: verifier.into() })
}

async fn register(
    fetcher: &Fetcher,
    server: &Server,
    redirect_uri: &str,
) -> anyhow::Result<String> {
    #[derive(Deserialize)]
    struct Registered {
        client_id: String,
    }
    let url = server
        .registration_endpoint
        .as_ref()
        .with_context(|| format!("{} registers no clients: give --client-id", server.issuer))?;
    check_secure(url)?;
    let client = json!({
        "client_name": "drawbridge",
        "redirect_uris": [redirect_uri],
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "token_endpoint_auth_method": "none",
    });
    let response = fetcher.send(url, fetcher.request(Method::POST, url)?.json(&client)).await?;
    ensure!(
        response.status.is_success(),
        "{} did not register this client: {}",
        server.issuer,
        problem(&response)
    );
    let registered: Registered = serde_json::from_str(&response.text())?;
    Ok(registered.client_id)
}

impl CodeRequest {
    /// Redeems the code in the parameters of the redirect.
    pub(super) async fn redeem(
        &self,
        fetcher: &Fetcher,
        server: &Server,
        redirected: &[(String, String)],
    ) -> anyhow::Result<Tokens> {
        let get = |name: &str| {
            redirected.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
        };
        ensure!(get("state") == Some(&self.state), "the redirect is not of this sign-in");
        // RFC 9207: the response of another authorization server.
        ensure!(
            get("iss").is_none_or(|issuer| issuer == server.issuer),
            "the redirect is of another authorization server"
        );
        if let Some(error) = get("error") {
            bail!("the sign-in ended: {}", get("error_description").unwrap_or(error));
        }
        let code = get("code").context("the redirect contains no code")?;
        let form = [
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", &self.redirect_uri),
            ("client_id", &self.client_id),
            ("code_verifier", self.verifier.expose_secret()),
            ("resource", &server.resource),
        ];
        tokens(fetcher, server, &form).await
    }
}

/// Refreshes tokens.
pub(super) async fn refresh(
    fetcher: &Fetcher,
    server: &Server,
    client_id: &str,
    refresh_token: &SecretString,
) -> anyhow::Result<Tokens> {
    let form = [
        ("grant_type", "refresh_token"),
        ("refresh_token", refresh_token.expose_secret()),
        ("client_id", client_id),
        ("resource", &server.resource),
    ];
    tokens(fetcher, server, &form).await
}

async fn tokens(
    fetcher: &Fetcher,
    server: &Server,
    form: &[(&str, &str)],
) -> anyhow::Result<Tokens> {
    let url = &server.token_endpoint;
    let response = fetcher.send(url, fetcher.request(Method::POST, url)?.form(form)).await?;
    ensure!(
        response.status.is_success(),
        "{} issued no token: {}",
        server.issuer,
        problem(&response)
    );
    let response: TokenResponse = response.json()?;
    let expires_at = response.expires_in.map(|seconds| {
        Timestamp::from_second(Timestamp::now().as_second().saturating_add(seconds))
    });
    Ok(Tokens {
        access_token: response.access_token,
        expires_at: expires_at.transpose()?,
        refresh_token: response.refresh_token,
    })
}

/// What an authorization server says is wrong (RFC 6749 section 5.2).
fn problem(response: &Fetched) -> String {
    match serde_json::from_str(&response.text()) {
        Ok(ErrorResponse { error, error_description }) if error_description.is_empty() => error,
        Ok(ErrorResponse { error, error_description }) => format!("{error}: {error_description}"),
        Err(_) => response.status.to_string(),
    }
}
