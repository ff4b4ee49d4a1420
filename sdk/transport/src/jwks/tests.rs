use std::sync::{
    Mutex as Lock, PoisonError,
    atomic::{AtomicU32, Ordering},
};

use axum::{
    Json, Router, extract::State, http::HeaderMap, response::IntoResponse as _, routing::get,
};
use http::StatusCode;
use serde_json::{Value, json};

use super::*;
use crate::fetch::{Fetcher, NetworkScope};

const X: [&str; 2] =
    ["11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", "PUAXw-hDiVqStwqnTRt-vJyYLM8uxJaMwM1V8Sr0Zgw"];

/// An issuer whose keys, availability and freshness the test sets.
#[derive(Clone)]
struct Issuer {
    url: Url,
    state: Arc<Published>,
}

struct Published {
    keys: Lock<Value>,
    cache_control: Lock<&'static str>,
    up: Lock<bool>,
    answered: AtomicU32,
    not_modified: AtomicU32,
}

fn keys(keys: &[(&str, usize)]) -> Value {
    let keys =
        keys.iter().map(|(id, x)| json!({ "kty": "OKP", "crv": "Ed25519", "x": X[*x], "kid": id }));
    json!({ "keys": keys.collect::<Vec<_>>() })
}

fn set<T>(lock: &Lock<T>, value: T) {
    *lock.lock().unwrap_or_else(PoisonError::into_inner) = value;
}

fn load<T: Clone>(lock: &Lock<T>) -> T {
    lock.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

async fn publish(
    State(published): State<Arc<Published>>,
    headers: HeaderMap,
) -> axum::response::Response {
    if !load(&published.up) {
        return StatusCode::BAD_GATEWAY.into_response();
    }
    published.answered.fetch_add(1, Ordering::SeqCst);
    let keys = load(&published.keys);
    let etag = format!("\"{:x}\"", keys.to_string().bytes().map(u64::from).sum::<u64>());
    let cached =
        [("etag", etag.clone()), ("cache-control", load(&published.cache_control).to_owned())];
    if headers.get("if-none-match").is_some_and(|known| known.as_bytes() == etag.as_bytes()) {
        published.not_modified.fetch_add(1, Ordering::SeqCst);
        return (StatusCode::NOT_MODIFIED, cached).into_response();
    }
    (cached, Json(keys)).into_response()
}

impl Issuer {
    async fn start(first: &[(&str, usize)]) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url: Url = format!("http://{}/jwks", listener.local_addr().unwrap()).parse().unwrap();
        let state = Arc::new(Published {
            keys: Lock::new(keys(first)),
            cache_control: Lock::new("max-age=0"),
            up: Lock::new(true),
            answered: AtomicU32::new(0),
            not_modified: AtomicU32::new(0),
        });
        let metadata = |issuer: String| {
            let jwks_uri = url.clone();
            get(async move || Json(json!({ "issuer": issuer, "jwks_uri": jwks_uri })))
        };
        let routes = Router::new()
            .route("/jwks", get(publish))
            .route(
                "/tenant/.well-known/openid-configuration",
                metadata(url.join("/tenant").unwrap().into()),
            )
            .route(
                "/.well-known/oauth-authorization-server/wrong-issuer",
                metadata("https://good.example".into()),
            )
            .with_state(Arc::clone(&state));
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Self { url, state }
    }

    fn jwks(&self, limits: JwksLimits) -> Jwks {
        Jwks::new(
            KeySource::Url(self.url.clone(), Fetcher::new(NetworkScope::Anywhere).unwrap()),
            limits,
        )
    }

    fn discovered(&self, path: &str) -> Jwks {
        let issuer = self.url.join(path).unwrap().to_string();
        Jwks::new(
            KeySource::Issuer(issuer, Fetcher::new(NetworkScope::Anywhere).unwrap()),
            limits(),
        )
    }

    fn answered(&self) -> u32 {
        self.state.answered.load(Ordering::SeqCst)
    }
}

/// All intervals a thousand times shorter.
fn limits() -> JwksLimits {
    JwksLimits {
        fresh: Duration::from_millis(300),
        fresh_min: Duration::from_millis(60),
        fresh_max: Duration::from_secs(3600),
        stale_max: Duration::from_secs(2),
        refetch_interval: Duration::from_millis(20),
        retry_interval: Duration::from_millis(10),
    }
}

async fn wait() {
    tokio::time::sleep(Duration::from_millis(200)).await;
}

/// Waits for a background task, as long as a busy machine may take.
async fn until(mut done: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !done().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waiting).await.expect("it happens in time");
}

#[tokio::test]
async fn keys_are_refreshed_in_the_background_and_a_withdrawn_key_is_notified() {
    let issuer = Issuer::start(&[("a", 0), ("b", 1)]).await;
    let notifier = watch::Sender::new(0);
    let source = KeySource::Url(issuer.url.clone(), Fetcher::new(NetworkScope::Anywhere).unwrap());
    let jwks = Jwks::with_change_notifier(source, limits(), notifier.clone());
    wait().await;
    assert_eq!(issuer.answered(), 0, "nothing is fetched before a key is requested");
    assert!(jwks.key("a").await.is_ok() && jwks.key("b").await.is_ok());
    assert_eq!(issuer.answered(), 1);

    let mut changes = notifier.subscribe();
    // The ETag of the cached keys is sent.
    until(async || issuer.state.not_modified.load(Ordering::SeqCst) >= 2).await;
    set(&issuer.state.keys, keys(&[("a", 0), ("b", 1), ("c", 1)]));
    until(async || jwks.key("c").await.is_ok()).await;
    assert!(!changes.has_changed().unwrap(), "a new key is no change to notify");

    set(&issuer.state.keys, keys(&[("a", 1), ("b", 1)]));
    tokio::time::timeout(Duration::from_secs(20), changes.changed()).await.unwrap().unwrap();
    assert!(matches!(jwks.key("c").await, Err(JwksError::UnknownKey)));

    drop(jwks);
    let answered = issuer.answered();
    wait().await;
    assert!(issuer.answered() <= answered + 1, "the last clone was dropped");
}

#[tokio::test]
async fn unknown_key_ids_cause_one_fetch_per_interval() {
    let issuer = Issuer::start(&[("a", 0)]).await;
    let slow = JwksLimits { refetch_interval: Duration::from_secs(1), ..JwksLimits::default() };
    let jwks = issuer.jwks(slow);
    assert!(jwks.key("a").await.is_ok());
    for made_up in 0..1_000 {
        let refused = jwks.key(&format!("../../{made_up}")).await;
        assert!(matches!(refused, Err(JwksError::UnknownKey)));
    }
    assert_eq!(issuer.answered(), 1);
    // A new key is found once the interval is over.
    set(&issuer.state.keys, keys(&[("a", 0), ("b", 1)]));
    tokio::time::sleep(slow.refetch_interval).await;
    let requested_at = (0..50).map(|_| {
        let jwks = jwks.clone();
        tokio::spawn(async move { jwks.key("b").await.is_ok() })
    });
    for found in requested_at.collect::<Vec<_>>() {
        assert!(found.await.unwrap());
    }
    assert_eq!(issuer.answered(), 2);
}

#[tokio::test]
async fn cached_keys_are_used_for_a_limited_time_while_the_issuer_is_unavailable() {
    let issuer = Issuer::start(&[("a", 0)]).await;
    let jwks = issuer.jwks(limits());
    assert!(jwks.key("a").await.is_ok());
    set(&issuer.state.up, false);
    wait().await;
    assert!(jwks.key("a").await.is_ok(), "a stale key is used");
    assert!(jwks.cacheable_until() < Instant::now() + Duration::from_millis(100));
    assert!(matches!(jwks.key("b").await, Err(JwksError::Fetch(_))), "whether b exists is unknown");
    until(async || matches!(jwks.key("a").await, Err(JwksError::Fetch(_)))).await;
    set(&issuer.state.up, true);
    until(async || jwks.key("a").await.is_ok()).await;
}

#[tokio::test]
async fn an_issuer_sets_how_long_its_keys_are_fresh_within_bounds() {
    let issuer = Issuer::start(&[("a", 0)]).await;
    for (directives, seconds) in
        [("max-age=1", 30), ("max-age=120", 120), ("max-age=999999", 3600), ("private", 300)]
    {
        set(&issuer.state.cache_control, directives);
        let jwks = issuer.jwks(JwksLimits::default());
        assert!(jwks.key("a").await.is_ok());
        let left = jwks.cacheable_until().duration_since(Instant::now()).as_secs_f64();
        assert!(
            (f64::from(seconds) - left) < 5.0 && left <= f64::from(seconds),
            "{directives}: {left}"
        );
    }
}

#[tokio::test]
async fn metadata_of_another_issuer_is_rejected() {
    let issuer = Issuer::start(&[("a", 0)]).await;
    assert!(issuer.discovered("/tenant").key("a").await.is_ok());
    assert!(matches!(
        issuer.discovered("/wrong-issuer").key("a").await,
        Err(JwksError::OtherIssuer { .. })
    ));
    assert!(matches!(issuer.discovered("/unknown").key("a").await, Err(JwksError::Fetch(_))));
}

#[tokio::test]
async fn keys_may_come_from_a_file_and_be_replaced_there() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.json");
    std::fs::write(&file, keys(&[("a", 0)]).to_string()).unwrap();
    let jwks = Jwks::new(KeySource::File(file.clone()), limits());
    assert!(jwks.key("a").await.is_ok());
    std::fs::write(&file, keys(&[("b", 0)]).to_string()).unwrap();
    until(async || jwks.key("b").await.is_ok()).await;
    assert!(matches!(jwks.key("a").await, Err(JwksError::UnknownKey)));
    // Without its end it would still be JSON.
    let large = folder.path().join("large.json");
    std::fs::write(&large, keys(&[("a", 0)]).to_string() + &" ".repeat(300 * 1024)).unwrap();
    let error = Jwks::new(KeySource::File(large), limits()).key("a").await.unwrap_err();
    let error = drawbridge_runtime::error_chain(&error);
    assert!(error.contains("more than 262144 bytes"), "{error}");
    let nowhere = Jwks::new(KeySource::File(folder.path().join("none")), limits());
    assert!(matches!(nowhere.key("a").await, Err(JwksError::File { .. })));
}
