//! The authorization endpoint: a client sends a request, a user signs in and decides (OAuth 2.1
//! section 4.1, RFC 9207).
//!
//! There are no sessions and no cookies: each decision needs a password. So a forged form cannot
//! use an existing sign-in, and only the page that was shown knows the request's id.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Instant,
};

use axum::{
    body::Bytes,
    extract::{ConnectInfo, RawQuery, State},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Redirect, Response},
};

use drawbridge_audit::event::SignIn;
use tokio::time::sleep;

use crate::{
    address::ClientAddress,
    client::{Client, ClientId},
    error::{ErrorCode, OAuthError},
    grant::{Challenge, Grant, IssuedCode, Scopes},
    grant_type::GrantType,
    issuer::Issuer,
    page::{self, SignInError},
    params::Params,
    pending::{AuthorizationRequest, Callback, Pending},
    per_address::Full,
    server::Idp,
    sign_in_limiter::Locked,
    store::{Code, PendingId},
};

const QUERY_BYTES_MAX: usize = 8 * 1024;
const ATTEMPTS_MAX: u32 = 5;
const EXPIRED: &str = "This request has expired or was already completed. \
                       Go back to the application and start again.";
const UNRECORDED: &str =
    "The sign-in cannot be recorded now. Go back to the application and retry.";
const LOCKED: &str = "Too many sign-ins have failed. Wait a while, then retry.";
const TOO_MANY_PENDING: &str = "Too many sign-ins from your address are pending. \
                                Complete or cancel them, or retry in ten minutes.";

/// Shows the sign-in page.
pub(crate) async fn show(
    State(idp): State<Arc<Idp>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    RawQuery(query): RawQuery,
) -> Response {
    let query = query.unwrap_or_default();
    if query.len() > QUERY_BYTES_MAX {
        return page::problem(StatusCode::URI_TOO_LONG, "The application's request is too long.");
    }
    let params = Params::parse(query.as_bytes());
    let (client, callback) = match client_and_callback(&idp, &params) {
        Ok(found) => found,
        Err(problem) => {
            tracing::info!(reason = problem, "rejected an authorization request");
            return page::problem(StatusCode::BAD_REQUEST, problem);
        }
    };
    match check(&idp, &client, &params) {
        Ok((challenge, resource, scopes)) => {
            let request = AuthorizationRequest { client, callback, challenge, resource, scopes };
            let pending = Arc::new(Pending { request, attempts: AtomicU32::new(0) });
            match idp.store.add_pending(Arc::clone(&pending), peer.into()) {
                Ok(id) => page::sign_in(&idp, &id, &pending.request, None),
                Err(Full) => {
                    tracing::info!(
                        client_id = pending.request.client.id.0,
                        "rejected a sign-in: too many are pending"
                    );
                    page::problem(StatusCode::TOO_MANY_REQUESTS, TOO_MANY_PENDING)
                }
            }
        }
        Err(error) => {
            tracing::info!(
                client_id = client.id.0,
                error = error.code.as_str(),
                reason = error.description,
                "rejected an authorization request"
            );
            callback.fail(&idp.issuer, &error)
        }
    }
}

/// The client, and where the response may be sent. Errors are shown to the user and never sent to
/// the redirect URI, which an attacker may have chosen (RFC 6749 section 4.1.2.1).
fn client_and_callback(
    idp: &Idp,
    params: &Params,
) -> Result<(Arc<Client>, Callback), &'static str> {
    let repeated = |_| "The application's request repeats client_id or redirect_uri.";
    let id = params.get("client_id").map_err(repeated)?;
    let id = id.ok_or("The application's request has no client_id.")?;
    let client = idp.store.client(&ClientId(id.to_owned())).ok_or(
        "The application is not registered here, perhaps because this server was restarted. \
         Remove its connection and connect it again.",
    )?;
    let requested = params.get("redirect_uri").map_err(repeated)?;
    let uri = client
        .redirect_uri(requested)
        .ok_or("The application's request has a redirect URI that is not registered.")?;
    // A repeated state is an error that `check` reports; no state is returned then.
    let state = params.get("state").ok().flatten().map(str::to_owned);
    Ok((client, Callback { uri, state }))
}

/// Checks the request of a client. Errors are sent to the client.
fn check(
    idp: &Idp,
    client: &Client,
    params: &Params,
) -> Result<(Challenge, String, Scopes), OAuthError> {
    params.get("state")?;
    if !client.may_use(GrantType::AuthorizationCode) {
        return Err(ErrorCode::UnauthorizedClient.because("the client may not use this grant type"));
    }
    if params.require("response_type", "response_type is missing")? != "code" {
        return Err(ErrorCode::UnsupportedResponseType.because("response_type must be code"));
    }
    if !matches!(params.get("response_mode")?, None | Some("query")) {
        return Err(ErrorCode::InvalidRequest.because("response_mode must be query"));
    }
    let challenge = params.require("code_challenge", "code_challenge is missing")?;
    // RFC 7636 section 4.3: absent means plain, which OAuth 2.1 forbids.
    if params.get("code_challenge_method")? != Some("S256") {
        return Err(ErrorCode::InvalidRequest.because("code_challenge_method must be S256"));
    }
    let challenge = Challenge::parse(challenge).ok_or(
        ErrorCode::InvalidRequest.because("code_challenge is not a SHA-256 digest in base64url"),
    )?;
    let resource = requested_resource(idp, client, params)?;
    let scopes = idp.scopes.narrow(params.get("scope")?)?;
    Ok((challenge, resource.to_owned(), scopes))
}

/// The resource of a request (RFC 8707 section 2). Each of several resources could use a common
/// token at the others.
pub(crate) fn requested_resource<'a>(
    idp: &'a Idp,
    client: &Client,
    params: &Params,
) -> Result<&'a str, OAuthError> {
    let requested = params.get("resource").map_err(|_| {
        ErrorCode::InvalidTarget.because("tokens are issued for one resource at a time")
    })?;
    let refused = "no tokens are issued for this resource, or not to this client";
    idp.resource(requested, client.internal).ok_or(ErrorCode::InvalidTarget.because(refused))
}

/// Processes the user's decision.
pub(crate) async fn decide(
    State(idp): State<Arc<Idp>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    body: Bytes,
) -> Response {
    let params = Params::parse(&body);
    let Ok(Some(id)) = params.get("request") else {
        return page::problem(StatusCode::BAD_REQUEST, "The form is incomplete.");
    };
    let id = PendingId(id.to_owned());
    let Some(pending) = idp.store.pending(&id) else {
        return page::problem(StatusCode::BAD_REQUEST, EXPIRED);
    };
    match params.get("decision") {
        Ok(Some("allow")) => sign_in(&idp, &id, &pending, &params, peer.into()).await,
        Ok(Some("deny")) => end(&idp, &id, "the user denied the request"),
        _ => page::problem(StatusCode::BAD_REQUEST, "The form must choose to allow or to deny."),
    }
}

async fn sign_in(
    idp: &Idp,
    id: &PendingId,
    pending: &Pending,
    params: &Params,
    address: ClientAddress,
) -> Response {
    let client_id = &pending.request.client.id;
    let (Ok(username), Ok(password)) = (params.get("username"), params.get("password")) else {
        return page::problem(StatusCode::BAD_REQUEST, "The form repeats a field.");
    };
    let username = username.unwrap_or_default();
    let record = SignIn {
        // Only the name of a user: people type passwords into the wrong field.
        subject: idp.users.get(username).map(|it| it.username.to_string()).unwrap_or_default(),
        client_id: client_id.0.clone(),
        client_name: pending.request.client.name.clone().unwrap_or_default(),
        client_address: address.ip().to_string(),
        grant: GrantType::AuthorizationCode.as_str().to_owned(),
        ..SignIn::default()
    };
    let attempt = match idp.sign_in_limiter.begin(username, address) {
        Ok(attempt) => attempt,
        Err(locked) => {
            tracing::warn!(client_id = client_id.0, "rejected a sign-in: too many have failed");
            idp.record_failed("locked", record);
            return locked_out(locked);
        }
    };
    // Counted before the password check, so that concurrent attempts cannot exceed the limit.
    let count = pending.attempts.fetch_add(1, Ordering::SeqCst).saturating_add(1);
    if count > ATTEMPTS_MAX {
        return page::problem(StatusCode::BAD_REQUEST, EXPIRED);
    }
    let Some(user) = idp.users.sign_in(username, password.unwrap_or_default()) else {
        // The name is not logged, because users type passwords into the wrong field.
        tracing::info!(client_id = client_id.0, attempt = count, "a sign-in failed");
        idp.record_failed(ErrorCode::AccessDenied.as_str(), record);
        sleep(attempt.delay()).await;
        if count == ATTEMPTS_MAX {
            return end(idp, id, "too many sign-ins failed");
        }
        let message = "The user name or the password is incorrect.";
        let failed = SignInError { username, message };
        return page::sign_in(idp, id, &pending.request, Some(&failed));
    };
    idp.sign_in_limiter.succeed(&attempt);
    if idp.store.take_pending(id).is_none() {
        return page::problem(StatusCode::BAD_REQUEST, EXPIRED);
    }
    idp.store.mark_used(client_id);
    let request = &pending.request;
    let grant = Grant::new(
        client_id.clone(),
        user.username.to_string(),
        request.resource.clone(),
        request.scopes.clone(),
    );
    let issued = IssuedCode {
        grant: Arc::new(grant),
        redirect_uri: request.callback.uri.as_str().to_owned(),
        challenge: request.challenge.clone(),
        expires: Instant::now() + idp.code_lifetime,
        redeemed: AtomicBool::new(false),
    };
    let code = idp.store.add_code(issued).await;
    tracing::info!(
        client_id = client_id.0,
        subject = user.username.as_str(),
        resource = request.resource,
        scope = %request.scopes,
        "a user authorized a client"
    );
    if idp.record(record).await.is_err() {
        return page::problem(StatusCode::SERVICE_UNAVAILABLE, UNRECORDED);
    }
    request.callback.succeed(&idp.issuer, &code)
}

/// The response with the time until the next attempt.
fn locked_out(locked: Locked) -> Response {
    let mut response = page::problem(StatusCode::TOO_MANY_REQUESTS, LOCKED);
    let seconds = locked.retry_after.as_secs().max(1);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    response
}

/// Ends a request without a grant and informs the client.
fn end(idp: &Idp, id: &PendingId, reason: &'static str) -> Response {
    let Some(pending) = idp.store.take_pending(id) else {
        return page::problem(StatusCode::BAD_REQUEST, EXPIRED);
    };
    tracing::info!(
        client_id = pending.request.client.id.0,
        reason,
        "rejected an authorization request"
    );
    pending.request.callback.fail(&idp.issuer, &ErrorCode::AccessDenied.because(reason))
}

impl Callback {
    fn succeed(&self, issuer: &Issuer, code: &Code) -> Response {
        self.redirect(issuer, &[("code", &code.0)])
    }

    fn fail(&self, issuer: &Issuer, error: &OAuthError) -> Response {
        self.redirect(
            issuer,
            &[("error", error.code.as_str()), ("error_description", error.description)],
        )
    }

    /// RFC 9207 section 2: errors include `iss` too, so that clients detect a mix-up.
    fn redirect(&self, issuer: &Issuer, parameters: &[(&str, &str)]) -> Response {
        let mut url = self.uri.url().clone();
        url.query_pairs_mut().extend_pairs(parameters).append_pair("iss", issuer.as_str());
        if let Some(state) = &self.state {
            url.query_pairs_mut().append_pair("state", state);
        }
        // 303: the browser must not resend the password.
        let mut response = Redirect::to(url.as_str()).into_response();
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}
