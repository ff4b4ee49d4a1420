use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair},
};
use axum::{Json, Router, routing::get};
use jsonwebtoken::{
    Algorithm, EncodingKey, Header, encode,
    jwk::{Jwk, JwkSet},
};
use serde_json::{Value, json};
use url::Url;

const KEY_ID: &str = "test-key";

/// An issuer whose key the test holds, so that it can sign what no honest issuer would.
pub struct TestIssuer {
    /// Its URL.
    pub url: Url,
    key: EncodingKey,
}

impl TestIssuer {
    /// Starts an issuer.
    pub async fn start() -> Self {
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new());
        let key = EncodingKey::from_ec_der(document.expect("a key").as_ref());
        let mut jwk = Jwk::from_encoding_key(&key, Algorithm::ES256).expect("a public key");
        jwk.common.key_id = Some(KEY_ID.to_owned());

        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let metadata = json!({ "issuer": url, "jwks_uri": format!("{url}/jwks") });
        let keys = JwkSet { keys: vec![jwk] };
        let routes = Router::new()
            .route("/.well-known/oauth-authorization-server", get(async move || Json(metadata)))
            .route("/jwks", get(async move || Json(keys)));
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Self { url: url.parse().expect("a URL"), key }
    }

    /// The claims of an engineer, for the audience, good for five minutes.
    pub fn claims(&self, audience: &str) -> Value {
        json!({
            "iss": self.url.as_str().trim_end_matches('/'),
            "aud": audience,
            "sub": "erin",
            "client_id": "test-client",
            "groups": ["engineering"],
            "scope": "mcp",
            "iat": now(),
            "exp": now() + 300,
        })
    }

    /// The header of an honest token.
    pub fn header(&self) -> Header {
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some(KEY_ID.to_owned());
        header.typ = Some("at+jwt".to_owned());
        header
    }

    /// Signs claims with the issuer's key.
    pub fn sign(&self, header: &Header, claims: &Value) -> String {
        encode(header, claims, &self.key).expect("a token")
    }
}

/// Seconds since 1970.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970");
    since.as_secs().cast_signed()
}
