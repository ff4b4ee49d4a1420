use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::{
    encoding::{AsDer as _, Pkcs8V1Der, PublicKeyX509Der},
    rand::SystemRandom,
    rsa::{self, KeySize},
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
        EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _,
    },
};
use axum::{Json, Router, routing::get};
use base64::{
    Engine as _,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use jsonwebtoken::{
    Algorithm, AlgorithmFamily, EncodingKey, Header, crypto, encode,
    jwk::{Jwk, JwkSet, KeyAlgorithm},
};
use serde_json::{Value, json};
use url::Url;

/// An issuer whose keys the test holds, so that it can sign what no honest issuer would. All such
/// issuers use the same key ids.
pub struct TestIssuer {
    /// Its URL.
    pub url: Url,
    keys: Vec<Key>,
    published: Arc<Mutex<JwkSet>>,
    keys_fetched: Arc<AtomicU32>,
}

struct Key {
    id: &'static str,
    signing: EncodingKey,
    public: Jwk,
    /// The public key: DER, and for a curve its point.
    der: Vec<u8>,
}

impl Key {
    fn new(id: &'static str, signing: EncodingKey, algorithm: Algorithm, der: Vec<u8>) -> Self {
        let mut public = Jwk::from_encoding_key(&signing, algorithm).expect("a public key");
        public.common.key_id = Some(id.to_owned());
        if signing.family() == AlgorithmFamily::Rsa {
            // An RSA key verifies tokens of every RSA algorithm.
            public.common.key_algorithm = None;
        }
        Self { id, signing, public, der }
    }

    fn curve(
        id: &'static str,
        curve: &'static EcdsaSigningAlgorithm,
        algorithm: Algorithm,
    ) -> Self {
        let document = EcdsaKeyPair::generate_pkcs8(curve, &SystemRandom::new()).expect("a key");
        let pair = EcdsaKeyPair::from_pkcs8(curve, document.as_ref()).expect("a key");
        let der: PublicKeyX509Der<'_> = pair.public_key().as_der().expect("a document");
        Self::new(id, EncodingKey::from_ec_der(document.as_ref()), algorithm, der.as_ref().to_vec())
    }

    fn rsa() -> Self {
        let pair = rsa::KeyPair::generate(KeySize::Rsa2048).expect("a key");
        let document: Pkcs8V1Der<'_> = pair.as_der().expect("a document");
        let der: PublicKeyX509Der<'_> = pair.public_key().as_der().expect("a document");
        let signing = EncodingKey::from_rsa_pem(pem("PRIVATE KEY", document.as_ref()).as_bytes());
        Self::new("rsa-key", signing.expect("a key"), Algorithm::RS256, der.as_ref().to_vec())
    }

    fn edwards() -> Self {
        let pair = Ed25519KeyPair::generate().expect("a key");
        let document = pair.to_pkcs8v1().expect("a document");
        let signing = EncodingKey::from_ed_der(document.as_ref());
        Self::new("ed-key", signing, Algorithm::EdDSA, pair.public_key().as_ref().to_vec())
    }
}

/// The key set. It contains an RSA key twice: for every algorithm, and for RS256 alone.
fn public(keys: &[Key]) -> JwkSet {
    let pinned =
        keys.iter().filter(|key| key.signing.family() == AlgorithmFamily::Rsa).map(|key| {
            let mut pinned = key.public.clone();
            pinned.common.key_id = Some("rs256-key".to_owned());
            pinned.common.key_algorithm = Some(KeyAlgorithm::RS256);
            pinned
        });
    JwkSet { keys: keys.iter().map(|key| key.public.clone()).chain(pinned).collect() }
}

fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", BASE64_STANDARD.encode(der))
}

impl TestIssuer {
    /// Starts an issuer that signs with ES256.
    pub async fn start() -> Self {
        Self::with(vec![Key::curve("test-key", &ECDSA_P256_SHA256_FIXED_SIGNING, Algorithm::ES256)])
            .await
    }

    /// Starts an issuer that signs with every algorithm that the product accepts.
    pub async fn with_every_algorithm() -> Self {
        let keys = vec![
            Key::curve("test-key", &ECDSA_P256_SHA256_FIXED_SIGNING, Algorithm::ES256),
            Key::curve("p384-key", &ECDSA_P384_SHA384_FIXED_SIGNING, Algorithm::ES384),
            Key::rsa(),
            Key::edwards(),
        ];
        Self::with(keys).await
    }

    async fn with(keys: Vec<Key>) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let metadata = json!({ "issuer": url, "jwks_uri": format!("{url}/jwks") });
        let published = Arc::new(Mutex::new(public(&keys)));
        let keys_fetched = Arc::new(AtomicU32::new(0));
        let (served, fetched) = (Arc::clone(&published), Arc::clone(&keys_fetched));
        let publish = async move || {
            fetched.fetch_add(1, Ordering::SeqCst);
            Json(served.lock().unwrap_or_else(PoisonError::into_inner).clone())
        };
        let routes = Router::new()
            .route("/.well-known/oauth-authorization-server", get(async move || Json(metadata)))
            .route("/jwks", get(publish));
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Self { url: url.parse().expect("a URL"), keys, published, keys_fetched }
    }

    /// Withdraws its keys; from now on it publishes and signs with a new one.
    pub fn rotate(&mut self) {
        let id = "rotated-key";
        self.keys = vec![Key::curve(id, &ECDSA_P256_SHA256_FIXED_SIGNING, Algorithm::ES256)];
        *self.published.lock().unwrap_or_else(PoisonError::into_inner) = public(&self.keys);
    }

    /// Its issuer identifier (`iss`).
    pub fn name(&self) -> &str {
        self.url.as_str().trim_end_matches('/')
    }

    /// An engineer's claims for the audience, valid for five minutes.
    pub fn claims(&self, audience: &str) -> Value {
        json!({
            "iss": self.name(),
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
        self.header_of(Algorithm::ES256)
    }

    /// The header of an honest token signed with this algorithm.
    pub fn header_of(&self, algorithm: Algorithm) -> Header {
        let mut header = Header::new(algorithm);
        header.kid = Some(self.key(algorithm).id.to_owned());
        header.typ = Some("at+jwt".to_owned());
        header
    }

    /// Signs claims with the key of the header's algorithm.
    pub fn sign(&self, header: &Header, claims: &Value) -> String {
        encode(header, claims, &self.key(header.alg).signing).expect("a token")
    }

    /// Signs a header and claims that need not be JSON.
    pub fn sign_text(&self, algorithm: Algorithm, header: &str, claims: &str) -> String {
        let encoded = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
        let message = format!("{}.{}", encoded(header), encoded(claims));
        let signature = crypto::sign(message.as_bytes(), &self.key(algorithm).signing, algorithm);
        format!("{message}.{}", signature.expect("a signature"))
    }

    /// The public key of this algorithm in every encoding that libraries have mistaken for an HMAC
    /// secret.
    pub fn public_forms(&self, algorithm: Algorithm) -> Vec<Vec<u8>> {
        let key = self.key(algorithm);
        let jwk = serde_json::to_value(&key.public).expect("JSON");
        let texts = ["x", "y", "n", "e"].iter().filter_map(|part| jwk[part].as_str());
        let bytes = texts.flat_map(|text| {
            [text.as_bytes().to_vec(), BASE64_URL_SAFE_NO_PAD.decode(text).expect("base64url")]
        });
        let pem = pem("PUBLIC KEY", &key.der);
        let documents = [
            pem.trim().as_bytes().to_vec(),
            pem.into_bytes(),
            key.der.clone(),
            jwk.to_string().into_bytes(),
            key.id.as_bytes().to_vec(),
            vec![],
        ];
        documents.into_iter().chain(bytes).collect()
    }

    /// The public key of this algorithm.
    pub fn public(&self, algorithm: Algorithm) -> &Jwk {
        &self.key(algorithm).public
    }

    /// The number of fetches of the key set.
    pub fn keys_fetched(&self) -> u32 {
        self.keys_fetched.load(Ordering::SeqCst)
    }

    fn key(&self, algorithm: Algorithm) -> &Key {
        let index = match algorithm {
            Algorithm::ES384 => 1,
            algorithm if algorithm.family() == AlgorithmFamily::Rsa => 2,
            Algorithm::EdDSA => 3,
            // No honest issuer signs with HMAC, so any key serves.
            _ => 0,
        };
        self.keys.get(index).expect("an issuer with every algorithm")
    }
}

/// Seconds since 1970.
pub fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970");
    since.as_secs().cast_signed()
}
