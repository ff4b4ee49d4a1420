//! The token endpoint: exchanges codes, refresh tokens and client credentials for access tokens
//! (RFC 6749 section 3.2, RFC 9068).

use std::{sync::Arc, time::Instant};

use axum::{
    Json,
    body::Bytes,
    extract::State,
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use drawbridge_audit::event::SignIn;
use drawbridge_config::users::User;
use serde::Serialize;
use uuid::Uuid;

use crate::{
    authorize::requested_resource,
    client::{Client, ClientId},
    error::{ErrorCode, OAuthError},
    grant::{Grant, IssueError, IssuedToken, RefreshToken, Scopes},
    grant_type::GrantType,
    params::Params,
    server::Idp,
    store::Code,
    unix_time,
};

/// RFC 9068 section 2.2.
#[derive(Serialize)]
struct AccessClaims<'a> {
    iss: &'a str,
    sub: &'a str,
    aud: &'a str,
    exp: u64,
    iat: u64,
    nbf: u64,
    jti: Uuid,
    client_id: &'a str,
    scope: String,
    /// `client-credentials` if the subject is a workload rather than a user.
    #[serde(skip_serializing_if = "Option::is_none")]
    gty: Option<&'static str>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    groups: &'a [String],
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    roles: &'a [String],
    /// How the user authenticated (RFC 8176).
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    amr: &'a [&'static str],
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    email: Option<&'a str>,
}

/// RFC 6749 section 5.1. Not `Debug`, so that it cannot be logged.
#[derive(Serialize)]
struct TokenResponse {
    /// The `jti` of the access token.
    #[serde(skip)]
    id: Uuid,
    #[serde(skip)]
    subject: String,
    access_token: String,
    token_type: &'static str,
    expires_in: u64,
    scope: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_token: Option<String>,
}

impl TokenResponse {
    fn sign_in(&self, record: &SignIn) -> SignIn {
        SignIn { subject: self.subject.clone(), ..record.clone() }
    }
}

/// What is recorded of a token request.
fn sign_in(params: &Params, client_id: &str) -> SignIn {
    let requested = params.get("grant_type").ok().flatten();
    let grant = requested.and_then(GrantType::parse).map_or("", GrantType::as_str);
    let (client_id, grant) = (client_id.to_owned(), grant.to_owned());
    SignIn { client_id, grant, ..SignIn::default() }
}

/// The subject of an access token.
enum TokenSubject<'a> {
    User(&'a User),
    Workload,
}

pub(crate) async fn token(
    State(idp): State<Arc<Idp>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let params = Params::parse(&body);
    let client = match authenticate(&idp, &headers, &params).await {
        Ok(client) => client,
        Err(error) => {
            tracing::info!(
                error = error.code.as_str(),
                reason = error.description,
                "rejected a token request: the client is not authenticated"
            );
            idp.record_failed(error.code.as_str(), sign_in(&params, ""));
            return error.into_response();
        }
    };
    let record = sign_in(&params, &client.id.0);
    match exchange(&idp, &client, &params).await {
        Ok(tokens) if idp.record(tokens.sign_in(&record)).await.is_err() => {
            let error = ErrorCode::TemporarilyUnavailable;
            error.because("the sign-in cannot be recorded now").into_response()
        }
        Ok(tokens) => ([(header::CACHE_CONTROL, "no-store")], Json(tokens)).into_response(),
        Err(error) => {
            tracing::info!(
                client_id = client.id.0,
                error = error.code.as_str(),
                reason = error.description,
                "rejected a token request"
            );
            idp.record_failed(error.code.as_str(), record);
            error.into_response()
        }
    }
}

/// Authenticates the client by HTTP Basic or by the form, but not both (RFC 6749 section 2.3).
async fn authenticate(
    idp: &Idp,
    headers: &HeaderMap,
    params: &Params,
) -> Result<Arc<Client>, OAuthError> {
    let Some(authorization) = headers.get(header::AUTHORIZATION) else {
        let id = params.require("client_id", "client_id is missing")?;
        let client = idp.store.client(&ClientId(id.to_owned()));
        return check_secret(client, params.get("client_secret")?);
    };
    let (id, secret) = basic_credentials(authorization).ok_or(
        ErrorCode::InvalidClient
            .because("the Authorization header is not HTTP Basic")
            .with_basic_challenge(),
    )?;
    if params.get("client_secret")?.is_some()
        || params.get("client_id")?.is_some_and(|other| other != id)
    {
        return Err(
            ErrorCode::InvalidRequest.because("the client authenticates in more than one way")
        );
    }
    let client = idp.store.client(&ClientId(id));
    let secret = Some(secret.as_str()).filter(|secret| !secret.is_empty());
    check_secret(client, secret).map_err(OAuthError::with_basic_challenge)
}

/// The error is the same for an unknown client and a wrong secret. Clients respond to it by
/// registering again.
fn check_secret(
    client: Option<Arc<Client>>,
    secret: Option<&str>,
) -> Result<Arc<Client>, OAuthError> {
    client
        .filter(|client| client.authenticates(secret))
        .ok_or(ErrorCode::InvalidClient.because("the client is unknown or not authenticated"))
}

/// Decodes the id and the secret, which are form-encoded before base64 (RFC 6749 section 2.3.1).
fn basic_credentials(authorization: &header::HeaderValue) -> Option<(String, String)> {
    let (scheme, encoded) = authorization.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(BASE64_STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (id, secret) = decoded.split_once(':')?;
    let form_decoded = |text: &str| {
        // A client may skip the encoding, so `=` and `&` in a secret are not separators.
        let text = text.replace('=', "%3D").replace('&', "%26");
        url::form_urlencoded::parse(text.as_bytes()).next().map(|(name, _)| name.into_owned())
    };
    Some((form_decoded(id)?, form_decoded(secret).unwrap_or_default()))
}

async fn exchange(
    idp: &Arc<Idp>,
    client: &Client,
    params: &Params,
) -> Result<TokenResponse, OAuthError> {
    let requested = params.require("grant_type", "grant_type is missing")?;
    let grant_type = GrantType::parse(requested)
        .ok_or(ErrorCode::UnsupportedGrantType.because("the grant type is not supported"))?;
    if !client.may_use(grant_type) {
        return Err(ErrorCode::UnauthorizedClient.because("the client may not use this grant type"));
    }
    match grant_type {
        GrantType::AuthorizationCode => redeem(idp, client, params).await,
        GrantType::RefreshToken => refresh(idp, client, params).await,
        GrantType::ClientCredentials => {
            let resource = requested_resource(idp, client, params)?;
            let scopes = idp.scopes.narrow(params.get("scope")?)?;
            issue(idp, client, &TokenSubject::Workload, resource, &scopes)
        }
    }
}

async fn redeem(
    idp: &Arc<Idp>,
    client: &Client,
    params: &Params,
) -> Result<TokenResponse, OAuthError> {
    let code = Code(params.require("code", "code is missing")?.to_owned());
    let verifier = params.require("code_verifier", "code_verifier is missing")?;
    let invalid = |reason| ErrorCode::InvalidGrant.because(reason);
    let issued =
        idp.store.code(&code).await.ok_or(invalid("the code is unknown or has expired"))?;
    if issued.grant.client != client.id {
        return Err(invalid("the code was issued to another client"));
    }
    // OAuth 2.1 does not require it, since the verifier binds the code; if present it must match.
    if params.get("redirect_uri")?.is_some_and(|uri| uri != issued.redirect_uri) {
        return Err(invalid("redirect_uri differs from the authorization request"));
    }
    if !issued.challenge.is_met_by(verifier) {
        return Err(invalid("code_verifier does not match the code_challenge"));
    }
    check_resource(idp, client, &issued.grant, params)?;
    // Last, so that an attacker who knows only the code can neither use it up nor end its grant. A
    // second use that passes the other checks means that two parties have both code and verifier.
    if !issued.redeem() {
        let (client_id, subject) = (&client.id.0, &issued.grant.subject);
        tracing::info!(client_id, subject, "a code was used again; revoking its tokens");
        idp.revoke(&issued.grant).await;
        return Err(invalid("the code was already used"));
    }
    if issued.expires < Instant::now() {
        return Err(invalid("the code is unknown or has expired"));
    }
    let mut tokens = issue_to_user(idp, client, &issued.grant, &issued.grant.scopes)?;
    if client.may_use(GrantType::RefreshToken) {
        let (family, secret) = idp.store.add_family(Arc::clone(&issued.grant)).await;
        tokens.refresh_token = Some(RefreshToken { family, secret }.into_text());
    }
    idp.save().await;
    Ok(tokens)
}

async fn refresh(
    idp: &Arc<Idp>,
    client: &Client,
    params: &Params,
) -> Result<TokenResponse, OAuthError> {
    // The same error for all causes, so that it does not reveal which tokens exist.
    let invalid =
        || ErrorCode::InvalidGrant.because("the refresh token is unknown, already used or expired");
    let presented = params.require("refresh_token", "refresh_token is missing")?;
    let presented = RefreshToken::parse(presented).ok_or_else(invalid)?;
    let family = idp.store.family(&presented.family).await.ok_or_else(invalid)?;
    let grant = &family.grant;
    if grant.client != client.id || grant.is_revoked() {
        return Err(invalid());
    }
    check_resource(idp, client, grant, params)?;
    // RFC 6749 section 6: this access token may have fewer scopes than granted.
    let scopes = grant.scopes.narrow(params.get("scope")?)?;
    // The token rotates only if an access token is issued; otherwise an error would use it up.
    let refreshed = family.rotate(&presented.secret, || issue_to_user(idp, client, grant, &scopes));
    let Ok(refreshed) = refreshed else {
        // OAuth 2.1 section 4.3.1: one of its two holders has stolen it; which one is unknown.
        let (client_id, subject) = (&client.id.0, &grant.subject);
        tracing::info!(client_id, subject, "a refresh token was used again; revoking its tokens");
        idp.revoke(grant).await;
        return Err(invalid());
    };
    let (mut tokens, secret) = refreshed?;
    // Before the response: after a restart the next secret must be known, or its use would look
    // like theft.
    idp.save().await;
    tokens.refresh_token = Some(RefreshToken { family: presented.family, secret }.into_text());
    Ok(tokens)
}

/// RFC 8707 section 2.2: a token request may repeat the resource, but not change it.
fn check_resource(
    idp: &Idp,
    client: &Client,
    grant: &Grant,
    params: &Params,
) -> Result<(), OAuthError> {
    let has_resource = !matches!(params.get("resource"), Ok(None));
    if has_resource && requested_resource(idp, client, params)? != grant.resource {
        return Err(
            ErrorCode::InvalidTarget.because("the resource differs from the authorization request")
        );
    }
    Ok(())
}

fn issue_to_user(
    idp: &Idp,
    client: &Client,
    grant: &Grant,
    scopes: &Scopes,
) -> Result<TokenResponse, OAuthError> {
    let user = idp
        .users
        .get(&grant.subject)
        .ok_or(ErrorCode::InvalidGrant.because("the user of this grant no longer exists"))?;
    let tokens = issue(idp, client, &TokenSubject::User(user), &grant.resource, scopes)?;
    let expires = Instant::now() + idp.access_token_lifetime;
    grant.issue(IssuedToken { id: tokens.id, expires }).map_err(|error| match error {
        IssueError::Revoked => ErrorCode::InvalidGrant.because("the grant is revoked"),
        IssueError::TooMany => {
            ErrorCode::TemporarilyUnavailable.because("this grant has too many valid access tokens")
        }
    })?;
    Ok(tokens)
}

fn issue(
    idp: &Idp,
    client: &Client,
    subject: &TokenSubject<'_>,
    resource: &str,
    scopes: &Scopes,
) -> Result<TokenResponse, OAuthError> {
    let now = unix_time::seconds_since_1970();
    let expires_in = idp.access_token_lifetime.as_secs();
    let (sub, groups, user) = match subject {
        TokenSubject::User(user) => (user.username.as_str(), &user.groups, Some(user)),
        TokenSubject::Workload => (client.id.0.as_str(), &client.groups, None),
    };
    let claims = AccessClaims {
        iss: idp.issuer.as_str(),
        sub,
        aud: resource,
        exp: now + expires_in,
        iat: now,
        nbf: now,
        jti: Uuid::new_v4(),
        client_id: &client.id.0,
        scope: scopes.to_string(),
        gty: user.is_none().then_some("client-credentials"),
        groups,
        roles: user.map_or(&[], |user| &user.roles),
        amr: match user {
            None => &[],
            Some(user) if user.mfa => &["pwd", "mfa"],
            Some(_) => &["pwd"],
        },
        tenant: user.and_then(|user| user.tenant.as_deref()),
        name: user.and_then(|user| user.name.as_deref()),
        email: user.and_then(|user| user.email.as_deref()),
    };
    let access_token = idp.key.sign(&claims).map_err(|error| {
        tracing::error!(error = &error as &dyn std::error::Error, "cannot sign an access token");
        ErrorCode::ServerError.because("the token cannot be signed")
    })?;
    tracing::info!(
        client_id = client.id.0,
        subject = sub,
        resource,
        scope = claims.scope,
        token_id = %claims.jti,
        "issued an access token"
    );
    Ok(TokenResponse {
        id: claims.jti,
        subject: sub.to_owned(),
        access_token,
        token_type: "Bearer",
        expires_in,
        scope: claims.scope,
        refresh_token: None,
    })
}
