//! Tokens with a missing, foreign or confused signature.

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, AlgorithmFamily, EncodingKey, crypto};
use serde_json::json;

use super::{ALGORITHMS, Table, with};

const NONE: [&str; 12] = [
    "none",
    "None",
    "NONE",
    "nOnE",
    "none ",
    " none",
    "n\u{f6}ne",
    "",
    "null",
    "undefined",
    "plain",
    "NoNe\u{0}",
];

pub(super) fn add(table: &mut Table) {
    add_unsigned(table);
    public_key_as_secret(table);
    another_algorithm(table);
    pinned(table);
    broken(table);
}

fn encoded(text: &str) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(text)
}

fn add_unsigned(table: &mut Table) {
    let claims = encoded(&table.claims().to_string());
    let honest = table.sign(Algorithm::ES256, &table.claims());
    let signature = honest.rsplit('.').next().unwrap_or_default().to_owned();
    for alg in NONE {
        for kid in [Some("test-key"), None] {
            let header = json!({ "alg": alg, "typ": "at+jwt", "kid": kid }).to_string();
            for signature in ["", &signature, "AA"] {
                let token = format!("{}.{claims}.{signature}", encoded(&header));
                table.bad(format!("alg {alg:?}, key id {kid:?}, signature {signature:?}"), token);
            }
        }
    }
}

/// HMAC with a public key as its secret.
fn public_key_as_secret(table: &mut Table) {
    for of in [Algorithm::RS256, Algorithm::ES256, Algorithm::ES384, Algorithm::EdDSA] {
        for (form, secret) in table.main.public_forms(of).into_iter().enumerate() {
            for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
                let header = with(
                    &serde_json::to_value(table.main.header_of(of)).expect("JSON"),
                    &json!({ "alg": format!("{algorithm:?}") }),
                );
                let message = format!(
                    "{}.{}",
                    encoded(&header.to_string()),
                    encoded(&table.claims().to_string())
                );
                let key = EncodingKey::from_secret(&secret);
                let signature =
                    crypto::sign(message.as_bytes(), &key, algorithm).expect("a signature");
                let token = format!("{message}.{signature}");
                table.bad(
                    format!("{algorithm:?} with form {form} of the public key of {of:?}"),
                    token,
                );
            }
        }
    }
}

/// The header names another algorithm than the one that signed.
fn another_algorithm(table: &mut Table) {
    for signer in ALGORITHMS {
        for named in ALGORITHMS.into_iter().filter(|named| *named != signer) {
            let token = table.under(signer, &json!({ "alg": format!("{named:?}") }));
            table.bad(format!("{signer:?} that claims to be {named:?}"), token);
            // Also with the key id of the named algorithm.
            let kid = table.main.header_of(named).kid;
            let token = table.under(signer, &json!({ "alg": format!("{named:?}"), "kid": kid }));
            table.bad(format!("{signer:?} that claims to be {named:?} with its key id"), token);
        }
    }
}

/// A key with an `alg` verifies that algorithm alone.
fn pinned(table: &mut Table) {
    for signer in
        ALGORITHMS.into_iter().filter(|algorithm| algorithm.family() == AlgorithmFamily::Rsa)
    {
        let token = table.under(signer, &json!({ "kid": "rs256-key" }));
        let name = format!("{signer:?} with the key for RS256");
        if signer == Algorithm::RS256 { table.good(name, token) } else { table.bad(name, token) }
    }
}

fn broken(table: &mut Table) {
    let promoted = encoded(&with(&table.claims(), &json!({ "sub": "root" })).to_string());
    for algorithm in ALGORITHMS {
        let honest = table.sign(algorithm, &table.claims());
        let (message, signature) = honest.rsplit_once('.').expect("a signature");
        let (header, claims) = message.split_once('.').expect("claims");
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(signature).expect("base64url");
        let changed = |change: fn(&mut Vec<u8>)| {
            let mut bytes = bytes.clone();
            change(&mut bytes);
            format!("{message}.{}", BASE64_URL_SAFE_NO_PAD.encode(bytes))
        };
        for (name, token) in [
            ("no signature", format!("{message}.")),
            ("a short signature", changed(|bytes| bytes.truncate(bytes.len() - 1))),
            ("a long signature", changed(|bytes| bytes.push(0))),
            ("a flipped bit", changed(|bytes| bytes[7] ^= 1)),
            ("only zeros", changed(|bytes| bytes.fill(0))),
            ("only ones", changed(|bytes| bytes.fill(0xff))),
            ("a reversed signature", changed(|bytes| bytes.reverse())),
            ("other claims", format!("{header}.{promoted}.{signature}")),
            ("its claims as its signature", format!("{message}.{claims}")),
        ] {
            table.bad(format!("{algorithm:?} with {name}"), token);
        }
    }
}
