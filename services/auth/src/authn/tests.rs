use std::{fs, path::Path, sync::LazyLock};

use aws_lc_rs::{
    encoding::{AsDer as _, Pkcs8V1Der},
    rsa::{KeyPair, KeySize},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use jsonwebtoken::{
    Algorithm, EncodingKey, Header, encode,
    jwk::{Jwk, JwkSet},
};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;

mod docs;
mod issuers_file;
mod multiple_issuers;
mod opaque;
mod presets;

const EDGE: &str = "https://mcp.acme.example/mcp";
const KEY_ID: &str = "key-1";

/// A verifier for tokens that the test signs.
struct Signed {
    folder: TempDir,
    key: EncodingKey,
}

impl Signed {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        // Key generation is slow.
        static KEY: LazyLock<String> = LazyLock::new(rsa_key);
        let key = publish(&KEY, folder.path(), "keys.json");
        Self { folder, key }
    }

    /// The issuers of this text, which may name key sets in this folder.
    fn issuers(&self, toml: &str) -> Result<Issuers, IssuersFileError> {
        let file = self.folder.path().join("issuers.toml");
        fs::write(&file, toml).unwrap();
        Issuers::load(None, Some(&file), SeenConfig::default())
    }

    fn verifier(&self, toml: &str) -> TokenVerifier {
        let issuers = self.issuers(toml).unwrap_or_else(|error| panic!("{error}"));
        TokenVerifier::new(
            Arc::new(issuers),
            Audience::Edge(vec![EDGE.to_owned()]),
            &RefusedTokensConfig::default(),
        )
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        sign(&self.key, header, claims)
    }

    /// Verifies these claims under a typical header.
    async fn verify(&self, toml: &str, claims: &Value) -> Result<AccessToken, TokenError> {
        let token = self.sign(&json!({ "alg": "RS256", "typ": "JWT", "kid": KEY_ID }), claims);
        self.verifier(toml)
            .verify(&token, EDGE, client_network())
            .await
            .map(|token| (*token).clone())
    }
}

/// The network of some client.
fn client_network() -> Option<ClientNetwork> {
    ClientNetwork::parse("192.0.2.1")
}

fn sign(key: &EncodingKey, header: &Value, claims: &Value) -> String {
    let header: Header = serde_json::from_value(header.clone()).unwrap();
    encode(&header, claims, key).unwrap()
}

/// A new key in PEM.
fn rsa_key() -> String {
    let document: Pkcs8V1Der<'_> = KeyPair::generate(KeySize::Rsa2048).unwrap().as_der().unwrap();
    let document = BASE64_STANDARD.encode(document.as_ref());
    format!("-----BEGIN PRIVATE KEY-----\n{document}\n-----END PRIVATE KEY-----\n")
}

/// Writes the key set with the public key.
fn publish(key: &str, folder: &Path, name: &str) -> EncodingKey {
    let key = EncodingKey::from_rsa_pem(key.as_bytes()).unwrap();
    let mut jwk = Jwk::from_encoding_key(&key, Algorithm::RS256).unwrap();
    jwk.common.key_id = Some(KEY_ID.to_owned());
    fs::write(folder.join(name), serde_json::to_string(&JwkSet { keys: vec![jwk] }).unwrap())
        .unwrap();
    key
}

fn now() -> u64 {
    get_current_timestamp()
}

/// `claims` with these overrides; null removes a claim.
fn with(claims: &Value, over: Value) -> Value {
    let mut claims = claims.clone();
    for (name, value) in over.as_object().unwrap() {
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(name);
        } else {
            claims[name] = value.clone();
        }
    }
    claims
}
