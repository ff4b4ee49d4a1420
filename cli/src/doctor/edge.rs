//! The public URL of the edge, as AI clients use it: the 401 that starts authorization, and the
//! metadata that it names (RFC 9728).

use http::{HeaderMap, StatusCode, header::WWW_AUTHENTICATE};
use serde_json::{Value, json};
use url::Url;

use super::{
    check::{Check, Finding},
    http::{Answer, client, compare_clock, get, send},
};

/// What auth accepts, as far as it is known.
#[derive(Clone, Debug, Default)]
pub(super) struct AcceptedTokens {
    /// The issuers of access tokens.
    pub(super) issuers: Vec<String>,
    /// The URLs of `--audience`.
    pub(super) audiences: Vec<String>,
}

/// The check of an endpoint, for which auth accepts these tokens.
pub(super) fn check(public_url: Url, accepted: AcceptedTokens) -> Check {
    Check::new("edge", public_url.to_string(), async move { inspect(&public_url, &accepted).await })
}

async fn inspect(public_url: &Url, accepted: &AcceptedTokens) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(judge_audience(public_url, &accepted.audiences));
    if public_url.scheme() != "https" && !drawbridge_runtime::is_loopback(public_url) {
        findings.push(Finding::warning(
            "it is not https: tokens pass the network in clear",
            "serve https (docs/how-to/serve-https.md), or put a proxy with TLS before the edge",
        ));
    }
    let answer = match post_without_token(public_url).await {
        Ok(answer) => answer,
        Err(error) => {
            findings.push(Finding::failed(
                format!("it cannot be reached: {error}"),
                "see whether the edge runs, and that DNS, proxy and certificate of its public URL \
                 lead to it",
            ));
            return findings;
        }
    };
    findings.extend(compare_clock(&answer.headers));
    match metadata_url(&answer) {
        Ok(url) => findings.push(metadata(public_url, &url, &accepted.issuers).await),
        Err(finding) => findings.push(finding),
    }
    findings
}

/// Whether auth accepts tokens for the edge: one of its audiences is the edge's URL or above it.
fn judge_audience(public_url: &Url, audiences: &[String]) -> Option<Finding> {
    let wanted = public_url.as_str().trim_end_matches('/');
    let covers = |audience: &String| {
        let rest = wanted.strip_prefix(audience.trim_end_matches('/'));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    if audiences.is_empty() {
        return None;
    }
    if audiences.iter().any(covers) {
        return Some(Finding::ok("auth accepts tokens for this audience"));
    }
    Some(Finding::failed(
        format!("auth accepts no token for it: its audiences are {}", audiences.join(", ")),
        format!("name {wanted} in auth's --audience, as in the edge's --public-url"),
    ))
}

async fn post_without_token(public_url: &Url) -> Result<Answer, String> {
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" });
    let request = client()?.post(public_url.clone()).json(&body);
    send(request.header("accept", "application/json, text/event-stream")).await
}

/// The URL of the metadata that a 401 names.
fn metadata_url(answer: &Answer) -> Result<Url, Finding> {
    if answer.status != StatusCode::UNAUTHORIZED {
        return Err(Finding::failed(
            format!("a request without a token is answered {}, not 401", answer.status),
            "see that the public URL leads to the edge, with its path, and that no proxy answers \
             in its place",
        ));
    }
    named_metadata(&answer.headers).ok_or_else(|| {
        Finding::failed(
            "its 401 has no WWW-Authenticate with resource_metadata, so no client finds the \
             authorization server",
            "see that a proxy before the edge passes the header WWW-Authenticate on",
        )
    })
}

fn named_metadata(headers: &HeaderMap) -> Option<Url> {
    let challenges = headers.get_all(WWW_AUTHENTICATE).iter();
    challenges.filter_map(|challenge| challenge.to_str().ok()).find_map(|challenge| {
        let (_, rest) = challenge.split_once("resource_metadata=\"")?;
        Url::parse(rest.split_once('"')?.0).ok()
    })
}

async fn metadata(public_url: &Url, url: &Url, issuers: &[String]) -> Finding {
    let found = match get(url).await {
        Ok(found) if found.status == StatusCode::OK => found.json(),
        Ok(found) => Err(format!("the answer is {}", found.status)),
        Err(error) => Err(error),
    };
    match found {
        Ok(document) => judge(public_url, &document, issuers),
        Err(error) => Finding::failed(
            format!("its metadata at {url}: {error}"),
            "route /.well-known/oauth-protected-resource of the public host to the edge too \
             (docs/how-to/behind-a-proxy.md)",
        ),
    }
}

fn judge(public_url: &Url, document: &Value, issuers: &[String]) -> Finding {
    let resource = document["resource"].as_str().unwrap_or_default();
    let wanted = public_url.as_str().trim_end_matches('/');
    if resource != wanted {
        return Finding::failed(
            format!("its metadata is of the resource {resource:?}, not of {wanted:?}"),
            format!(
                "start the edge with --public-url {wanted}: clients reject metadata of another \
                 resource (RFC 9728 section 3.3)"
            ),
        );
    }
    let servers = document["authorization_servers"].as_array().cloned().unwrap_or_default();
    let servers: Vec<_> = servers.iter().filter_map(Value::as_str).map(str::to_owned).collect();
    if servers.is_empty() {
        return Finding::failed(
            "its metadata names no authorization server",
            "start the edge with --authorization-server",
        );
    }
    let unknown: Vec<_> =
        servers.iter().filter(|server| !issuers.is_empty() && !issuers.contains(server)).collect();
    if let Some(server) = unknown.first() {
        return Finding::failed(
            format!("clients get their tokens from {server}, which is no issuer of auth"),
            "name the same issuer in the edge's --authorization-server and in auth's --issuer or \
             issuers file",
        );
    }
    Finding::ok(format!("401 with metadata; clients get tokens from {}", servers.join(", ")))
}
