//! Publishes the keys: all of them for verifiers, this replica's own for its peers.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{RawQuery, State},
    http::{
        StatusCode,
        header::{CACHE_CONTROL, RETRY_AFTER},
    },
    response::{IntoResponse as _, Response},
    routing::get,
};
use url::form_urlencoded;

use super::{
    KEYS_MAX_AGE,
    keyring::Keyring,
    peers::{KeyPeers, OwnKeys},
};

const KEYS_PATH: &str = "/.well-known/jwks.json";

impl KeyPeers {
    /// Serves the keys (RFC 7517 section 5). With `own` in the query they are those of this replica
    /// alone; `want` names a key that the peer needs to be published here.
    pub(crate) fn routes(self: &Arc<Self>) -> Router {
        Router::new().route(KEYS_PATH, get(keys)).with_state(Arc::clone(self))
    }
}

async fn keys(State(peers): State<Arc<KeyPeers>>, RawQuery(query): RawQuery) -> Response {
    let query = query.unwrap_or_default();
    let value = |name: &str| {
        let mut pairs = form_urlencoded::parse(query.as_bytes());
        pairs.find_map(|(key, value)| (key == name).then_some(value))
    };
    if value("own").is_some() {
        if let Some(kid) = value("want") {
            peers.poll_for(&kid);
        }
        return match own_keys(&peers.keyring) {
            Ok(own) => ([(CACHE_CONTROL, "no-store")], Json(own)).into_response(),
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
        };
    }
    if !peers.is_complete() {
        let why = "the keys of other replicas are not known yet; retry";
        return (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, "1")], why).into_response();
    }
    let max_age = format!("max-age={}", KEYS_MAX_AGE.as_secs());
    ([(CACHE_CONTROL, max_age)], Json(&**peers.keyring.published())).into_response()
}

fn own_keys(keyring: &Keyring) -> Result<OwnKeys, serde_json::Error> {
    let keys = keyring.own().iter().map(serde_json::to_value).collect::<Result<_, _>>()?;
    let published = keyring.published();
    let held = published.keys.iter().filter_map(|key| key.common.key_id.clone());
    Ok(OwnKeys { keys, held: held.collect() })
}
