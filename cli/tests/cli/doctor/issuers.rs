use std::{net::TcpListener, thread};

use axum::{
    Json, Router,
    http::{HeaderMap, header::DATE},
    routing::get,
};
use serde_json::{Value, json};

use super::{Report, file};

const X: &str = "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU";
const Y: &str = "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0";

/// Serves routes until the test process ends, and returns the URL.
pub(super) fn serve(routes: impl FnOnce(&str) -> Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.set_nonblocking(true).expect("a socket");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let router = routes(&url);
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
            axum::serve(listener, router).await.expect("a server");
        });
    });
    url
}

fn key(more: &Value) -> Value {
    let mut key = json!({ "kty": "EC", "crv": "P-256", "x": X, "y": Y, "kid": "a" });
    let more = more.as_object().expect("an object").clone();
    key.as_object_mut().expect("an object").extend(more);
    key
}

/// An issuer with this name (its URL by default), these keys and this header `Date`.
fn issuer(name: Option<&str>, keys: Value, date: Option<&'static str>) -> String {
    serve(|url| {
        let metadata = json!({
            "issuer": name.unwrap_or(url), "jwks_uri": format!("{url}/keys"),
        });
        let mut headers = HeaderMap::new();
        if let Some(date) = date {
            headers.insert(DATE, date.parse().expect("a header"));
        }
        Router::new()
            .route(
                "/.well-known/openid-configuration",
                get(move || async move { (headers, Json(metadata)) }),
            )
            .route("/keys", get(move || async move { Json(json!({ "keys": keys })) }))
    })
}

fn check(url: &str) -> Report {
    Report::of(&["--issuer", url])
}

#[test]
fn an_issuer_with_a_usable_key_passes() {
    let url = issuer(None, json!([key(&json!({ "alg": "ES256" }))]), None);
    let report = check(&url);
    report.has("issuer", "ok", "1 usable key (ES256)", "");
    report.has("issuer", "ok", "/.well-known/openid-configuration", "");
    assert_eq!(report.code, Some(0), "{:#}", report.output);
}

#[test]
fn an_issuer_that_is_away_or_is_another_one_is_found() {
    check("http://127.0.0.1:1").has("issuer", "failed", "cannot fetch", "every token is refused");
    let other = issuer(Some("https://sso.acme.example/"), json!([key(&json!({}))]), None);
    let report = check(&other);
    report.has("issuer", "failed", "is the metadata of \"https://sso.acme.example/\"", "spelling");
    let nothing = serve(|_| Router::new());
    check(&nothing).has("issuer", "failed", "has no metadata", "the claim iss");
    let page = serve(|_| {
        Router::new().route("/.well-known/oauth-authorization-server", get(async || "<html>"))
    });
    check(&page).has("issuer", "failed", "cannot parse", "a login page");
}

#[test]
fn keys_that_cannot_verify_tokens_are_found() {
    for keys in [
        json!([]),
        json!([key(&json!({ "use": "enc" }))]),
        json!([{ "kty": "oct", "k": "c2VjcmV0", "kid": "a", "alg": "HS256" }]),
    ] {
        let report = check(&issuer(None, keys, None));
        report.has("issuer", "failed", "has no usable key", "needs a kid");
    }
    let report = check(&issuer(None, json!("nonsense"), None));
    report.has("issuer", "failed", "is no key set", "JWKS");

    let url = issuer(None, json!([key(&json!({}))]), None);
    let folder = tempfile::tempdir().expect("a folder");
    let entry = format!(
        "[[issuers]]\nissuer = \"{url}\"\nallow_private_addresses = true\n\
         algorithms = [\"RS256\"]\n"
    );
    let path = file(&folder, "issuers.toml", &entry);
    let report = Report::of(&["--issuers", &path]);
    report.has("issuer", "failed", "sign with ES256, and only RS256 is allowed", "algorithms");
    report.has("file", "ok", "right (issuers)", "");
    let path = file(&folder, "issuers.toml", &entry.replace("true", "false"));
    let report = Report::of(&["--issuers", &path]);
    report.has("issuer", "failed", "is not https", "allow_private_addresses");
}

#[test]
fn a_wrong_clock_is_found() {
    let past = Some("Sun, 06 Nov 1994 08:49:37 GMT");
    let url = issuer(None, json!([key(&json!({}))]), past);
    check(&url).has("issuer", "failed", "seconds behind this machine's clock", "NTP");
}
