//! Tokens with a false header, or one that requests unsupported processing.

use jsonwebtoken::Algorithm;
use serde_json::{Value, json};

use super::{ALGORITHMS, Table, with};

/// Key ids that exploit a careless server.
const KEY_IDS: [&str; 20] = [
    "unknown",
    "",
    " ",
    "TEST-KEY",
    "test-key ",
    "test-key\u{0}",
    "test-key/../rsa-key",
    "../../../../dev/null",
    "..\\..\\windows\\win.ini",
    "/etc/passwd",
    "file:///dev/null",
    "https://evil.example/keys#1",
    "http://169.254.169.254/latest/meta-data",
    "' OR '1'='1",
    "x' UNION SELECT 'secret'--",
    "$(id)",
    "|id",
    "%00",
    "__proto__",
    "0",
];

/// Types of tokens with another purpose.
const TYPES: [&str; 14] = [
    "id+jwt",
    "ID",
    "dpop+jwt",
    "logout+jwt",
    "secevent+jwt",
    "txntoken+jwt",
    "oauth-authz-req+jwt",
    "entity-statement+jwt",
    "application/json",
    "JWE",
    "at+jwt; charset=utf-8",
    "at jwt",
    " at+jwt",
    "application/application/at+jwt",
];

pub(super) fn add(table: &mut Table) {
    for algorithm in [Algorithm::ES256, Algorithm::RS256, Algorithm::EdDSA] {
        for id in KEY_IDS {
            let token = table.under(algorithm, &json!({ "kid": id }));
            table.bad(format!("{algorithm:?} with the key id {id:?}"), token);
        }
        for typ in TYPES {
            let token = table.under(algorithm, &json!({ "typ": typ }));
            table.bad(format!("{algorithm:?} of the type {typ:?}"), token);
        }
        for over in members() {
            let token = table.under(algorithm, &over);
            table.bad(format!("{algorithm:?} with the header {over}"), token);
        }
    }
    // A flood of unknown key ids.
    for number in 0..100 {
        let token = table.under(Algorithm::ES256, &json!({ "kid": format!("unknown-{number}") }));
        table.bad(format!("the unknown key id {number}"), token);
    }
    foreign_keys(table);
    add_duplicates(table);
}

fn members() -> Vec<Value> {
    vec![
        json!({ "kid": null }),
        json!({ "kid": 1 }),
        json!({ "kid": ["test-key"] }),
        json!({ "kid": { "kid": "test-key" } }),
        json!({ "crit": ["exp"] }),
        json!({ "crit": ["b64"], "b64": false }),
        json!({ "crit": ["https://acme.example/x"], "https://acme.example/x": 1 }),
        json!({ "crit": [] }),
        json!({ "crit": "exp" }),
        json!({ "enc": "A256GCM" }),
        json!({ "zip": "DEF" }),
        json!({ "typ": 1 }),
        json!({ "typ": ["at+jwt"] }),
        json!({ "alg": null }),
        json!({ "alg": 1 }),
        json!({ "alg": ["ES256"] }),
        json!({ "alg": "RSA-OAEP", "enc": "A256GCM" }),
        json!({ "alg": "ES512" }),
        json!({ "alg": "ES256K" }),
    ]
}

/// Keys embedded in the token or referenced by it.
fn foreign_keys(table: &mut Table) {
    for algorithm in ALGORITHMS {
        let jwk = serde_json::to_value(table.untrusted.public(algorithm)).expect("JSON");
        let claims = table.claims().to_string();
        let header = serde_json::to_value(table.main.header_of(algorithm)).expect("JSON");
        let keys = format!("{}/jwks", table.untrusted.name());
        for over in [
            json!({}),
            json!({ "jwk": jwk }),
            json!({ "jwk": jwk, "kid": "evil" }),
            json!({ "jwk": jwk, "kid": null }),
            json!({ "jku": keys }),
            json!({ "jku": keys, "kid": "evil" }),
            json!({ "x5u": keys }),
            json!({ "x5c": ["MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8A"] }),
            json!({ "x5t": "bwcK0esc3ACC3DB2Y5", "x5t#S256": "bwcK0esc3ACC3DB2Y5" }),
        ] {
            let header = with(&header, &over).to_string();
            let token = table.untrusted.sign_text(algorithm, &header, &claims);
            table.bad(format!("{algorithm:?} signed by an untrusted issuer with {over}"), token);
        }
        // One trusted issuer's keys must not verify another's tokens.
        let crossed = table.strict.sign_text(algorithm, &header.to_string(), &claims);
        table.bad(format!("{algorithm:?} of the main issuer, signed by the strict one"), crossed);
        let claims = table.strict.claims("api://drawbridge").to_string();
        let crossed = table.main.sign_text(algorithm, &header.to_string(), &claims);
        table.bad(format!("{algorithm:?} of the strict issuer, signed by the main one"), crossed);
    }
}

fn add_duplicates(table: &mut Table) {
    let claims = table.claims().to_string();
    for header in [
        r#"{"alg":"ES256","alg":"none","kid":"test-key","typ":"at+jwt"}"#,
        r#"{"alg":"none","alg":"ES256","kid":"test-key","typ":"at+jwt"}"#,
        r#"{"alg":"ES256","kid":"test-key","kid":"test-key","typ":"at+jwt"}"#,
        r#"{"alg":"ES256","kid":"test-key","typ":"at+jwt","k\u0069d":"rsa-key"}"#,
        r#"{"alg":"ES256","kid":"test-key","typ":"id+jwt","typ":"at+jwt"}"#,
        r#"{"alg":"ES256","kid":"test-key","typ":"at+jwt","x":1,"x":2}"#,
    ] {
        let token = table.main.sign_text(Algorithm::ES256, header, &claims);
        table.bad(format!("the header {header}"), token);
    }
}
