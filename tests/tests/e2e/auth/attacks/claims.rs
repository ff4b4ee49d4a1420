//! Correctly signed tokens with invalid claims.

use drawbridge_tests::now;
use serde_json::{Value, json};

use super::{ALGORITHMS, Table, with};

pub(super) fn add(table: &mut Table) {
    let claims = table.claims();
    for algorithm in ALGORITHMS {
        for (name, over) in times().into_iter().chain(names(table)).chain(kinds()) {
            let token = table.sign(algorithm, &with(&claims, &over));
            table.bad(format!("{algorithm:?} with {name} {over}"), token);
        }
        for over in unmarked() {
            let header = with(
                &serde_json::to_value(table.main.header_of(algorithm)).expect("JSON"),
                &json!({ "typ": "JWT" }),
            );
            let claims = with(&claims, &over);
            let token = table.main.sign_text(algorithm, &header.to_string(), &claims.to_string());
            table.bad(format!("{algorithm:?} that is not an access token {over}"), token);
        }
    }
    // A null claim counts as missing.
    for name in ["iss", "sub", "aud", "exp"] {
        let mut claims = claims.clone();
        claims[name] = Value::Null;
        let token = table.sign(ALGORITHMS[0], &claims);
        table.bad(format!("{name} is null"), token);
    }
    add_duplicates(table);
}

fn times() -> Vec<(&'static str, Value)> {
    vec![
        ("an expiry long ago", json!({ "exp": now() - 3600 })),
        ("an expiry beyond the leeway", json!({ "exp": now() - 32 })),
        ("an expiry in 1970", json!({ "exp": 0 })),
        ("an expiry before 1970", json!({ "exp": -1 })),
        ("an expiry as text", json!({ "exp": (now() + 300).to_string() })),
        ("an expiry in a list", json!({ "exp": [now() + 300] })),
        ("an expiry beyond the range of integers", json!({ "exp": 1e300 })),
        ("an expiry that overflows", json!({ "exp": u64::MAX })),
        ("no expiry", json!({ "exp": null })),
        ("a start in the future", json!({ "nbf": now() + 600 })),
        ("a start as text", json!({ "nbf": "0" })),
        ("an issue in the future", json!({ "iat": now() + 600 })),
        ("an issue that is true", json!({ "iat": true })),
    ]
}

fn names(table: &Table) -> Vec<(&'static str, Value)> {
    let (edge, issuer) = (&table.edge, table.main.name());
    let host = edge.trim_end_matches("/mcp");
    vec![
        ("another audience", json!({ "aud": "https://other.example/mcp" })),
        ("an audience with a suffix", json!({ "aud": format!("{edge}x") })),
        ("the parent of the audience", json!({ "aud": host })),
        ("an audience in capitals", json!({ "aud": edge.to_uppercase() })),
        ("an audience with a query", json!({ "aud": format!("{edge}?a") })),
        ("an audience in a text with others", json!({ "aud": format!("{edge} account") })),
        ("the other issuer's audience", json!({ "aud": "api://drawbridge" })),
        ("auth itself as its audience", json!({ "aud": "drawbridge-auth" })),
        ("an empty audience", json!({ "aud": "" })),
        ("a wildcard audience", json!({ "aud": "*" })),
        ("no audience in a list", json!({ "aud": [] })),
        ("audiences that are not strings", json!({ "aud": [edge, 1] })),
        ("an audience in an object", json!({ "aud": { "0": edge } })),
        ("no audience", json!({ "aud": null })),
        ("another issuer", json!({ "iss": "https://evil.example" })),
        ("the untrusted issuer", json!({ "iss": table.untrusted.name() })),
        ("the other issuer", json!({ "iss": table.strict.name() })),
        ("an issuer with a slash", json!({ "iss": format!("{issuer}/") })),
        ("an issuer with a space", json!({ "iss": format!("{issuer} ") })),
        ("issuers in a list", json!({ "iss": [issuer] })),
        ("an empty issuer", json!({ "iss": "" })),
        ("no issuer", json!({ "iss": null })),
        ("no subject", json!({ "sub": null })),
        ("an empty subject", json!({ "sub": "" })),
        ("a number as its subject", json!({ "sub": 7 })),
        ("subjects in a list", json!({ "sub": ["erin"] })),
    ]
}

fn kinds() -> Vec<(&'static str, Value)> {
    vec![
        ("a group that is a number", json!({ "groups": ["engineering", 7] })),
        ("groups in an object", json!({ "groups": { "engineering": true } })),
        ("roles that are a number", json!({ "roles": 7 })),
        ("a scope that is a number", json!({ "scope": 7 })),
        ("an email that is true", json!({ "email": true })),
        ("several tenants", json!({ "tenant": ["acme", "umbrella"] })),
        ("groups somewhere else", json!({ "_claim_names": { "groups": "src1" } })),
        (
            "a key that it is bound to",
            json!({ "cnf": { "jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I" } }),
        ),
        (
            "a certificate that it is bound to",
            json!({ "cnf": { "x5t#S256": "bwcK0esc3ACC3DB2Y5_lESsXE8o9ltc05O89jdN" } }),
        ),
    ]
}

/// Claims that identify an ID, refresh or logout token without a `typ` header.
fn unmarked() -> Vec<Value> {
    vec![
        json!({ "nonce": "n-0S6_WzA2Mj" }),
        json!({ "at_hash": "77QmUPtjPfzWtF2AnpK9RQ" }),
        json!({ "c_hash": "LDktKdoQak3Pk0cnXxCltA" }),
        json!({ "typ": "ID" }),
        json!({ "typ": "Refresh" }),
        json!({ "typ": 1 }),
        json!({ "token_use": "id" }),
        json!({ "events": { "http://schemas.openid.net/event/backchannel-logout": {} } }),
    ]
}

/// Duplicate claims: one parser takes the first, another the last.
fn add_duplicates(table: &mut Table) {
    let claims = table.claims();
    let header = serde_json::to_string(&table.main.header()).expect("JSON");
    for (name, member) in [
        ("sub", r#""sub":"root""#.to_owned()),
        ("the same sub", r#""sub":"erin""#.to_owned()),
        ("an escaped sub", r#""s\u0075b":"root""#.to_owned()),
        ("aud", format!(r#""aud":"{}""#, table.edge)),
        ("exp", format!(r#""exp":{}"#, now() + 9_000)),
        ("iss", format!(r#""iss":"{}""#, table.main.name())),
        ("groups", r#""groups":["finance"]"#.to_owned()),
        ("a name within", r#""a":{"b":1,"b":2}"#.to_owned()),
        ("a name deep within", r#""a":[[{"b":{"c":1,"c":1}}]]"#.to_owned()),
    ] {
        let text = claims.to_string();
        let inside = text.trim_matches(['{', '}']);
        for duplicate in [format!("{{{inside},{member}}}"), format!("{{{member},{inside}}}")] {
            let token = table.main.sign_text(ALGORITHMS[0], &header, &duplicate);
            table.bad(format!("{name} twice"), token);
        }
    }
}
