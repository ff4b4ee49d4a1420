//! The variety of tokens that honest issuers issue.

use drawbridge_tests::now;
use serde_json::{Value, json};

use super::{ALGORITHMS, Table, with};

/// Spellings of `typ` that mark an access token, or that carry no type information.
const TYPES: [Option<&str>; 6] =
    [Some("at+jwt"), Some("AT+JWT"), Some("application/at+jwt"), Some("JWT"), Some("jwt"), None];

pub(super) fn add(table: &mut Table) {
    let claims = table.claims();
    for algorithm in ALGORITHMS {
        for typ in TYPES {
            let token = table.under(algorithm, &json!({ "typ": typ }));
            table.good(format!("{algorithm:?} of the type {typ:?}"), token);
        }
        for (name, over) in honest(&table.edge) {
            let token = table.sign(algorithm, &with(&claims, &over));
            table.good(format!("{algorithm:?} {name}"), token);
        }
    }
    // Header members without a meaning here, with any value.
    for (name, over) in [
        ("jku", json!({ "jku": "https://evil.example/keys" })),
        ("x5u", json!({ "x5u": "https://evil.example/chain" })),
        ("cty", json!({ "cty": "JWT" })),
        ("its own", json!({ "https://acme.example/x": { "y": [1] } })),
    ] {
        let token = table.under(ALGORITHMS[0], &over);
        table.good(format!("a header with {name}"), token);
    }
    endpoints(table);
    strict(table);
}

fn honest(edge: &str) -> Vec<(&'static str, Value)> {
    vec![
        ("with a slash after its audience", json!({ "aud": format!("{edge}/") })),
        ("with one audience in a list", json!({ "aud": [edge] })),
        (
            "with many audiences",
            json!({ "aud": ["https://a.example", edge, "account", "https://b.example"] }),
        ),
        ("that has just expired", json!({ "exp": now() - 2 })),
        ("that will start in a moment", json!({ "nbf": now() + 2, "iat": now() + 2 })),
        (
            "with fractions of a second",
            json!({ "exp": now() as f64 + 300.5, "iat": now() as f64 - 0.5 }),
        ),
        ("that does not say when it was issued", json!({ "iat": null })),
        ("that lasts for a year", json!({ "exp": now() + 31_536_000 })),
        ("without groups and scopes", json!({ "groups": null, "scope": null, "client_id": null })),
        ("with one group as a text", json!({ "groups": "engineering" })),
        ("with scopes as a list", json!({ "scope": null, "scp": ["mcp", "other"] })),
        ("with client and party", json!({ "azp": "test-client" })),
        (
            "with nested claims",
            json!({ "realm_access": { "roles": ["a"] }, "act": { "sub": "b" } }),
        ),
        ("with a nonce, but marked", json!({ "nonce": "n", "at_hash": "h" })),
        ("of a subject in another script", json!({ "sub": "Ирина ☃ \"quoted\"" })),
    ]
}

/// A token is valid at its audience's endpoint and below.
fn endpoints(table: &mut Table) {
    let edge = table.edge.clone();
    for (audience, below, good) in [
        ("", "/code", true),
        ("", "/code/", true),
        ("/", "/code", true),
        ("/code", "/code", true),
        ("/code/", "/code", true),
        ("/code", "", false),
        ("/code", "/tickets", false),
        ("/code", "/codes", false),
        ("/cod", "/code", false),
    ] {
        let token = table.sign(ALGORITHMS[0], &table.main.claims(&format!("{edge}{audience}")));
        let name = format!("for /mcp{audience} at /mcp{below}");
        if good { table.good_at(below, name, token) } else { table.bad_at(below, name, token) }
    }
}

/// The strict issuer has its own audience for the edge, which covers every endpoint.
fn strict(table: &mut Table) {
    let algorithm = jsonwebtoken::Algorithm::RS256;
    let header = table.strict.header_of(algorithm);
    let claims = table.strict.claims("api://drawbridge");
    for below in ["", "/code"] {
        let token = table.strict.sign(&header, &claims);
        table.good_at(below, format!("of the strict issuer at /mcp{below}"), token);
    }
    for (name, over) in [
        ("the edge's URL, which is not its name there", json!({ "aud": table.edge })),
        ("a time that is just over, without leeway", json!({ "exp": now() - 2 })),
        ("a time that is not yet, without leeway", json!({ "nbf": now() + 120 })),
    ] {
        let token = table.strict.sign(&header, &with(&claims, &over));
        table.bad(format!("of the strict issuer with {name}"), token);
    }
    for typ in [Some("JWT"), None] {
        let mut header = header.clone();
        header.typ = typ.map(ToOwned::to_owned);
        let token = table.strict.sign(&header, &claims);
        table.bad(format!("of the strict issuer, of the type {typ:?}"), token);
    }
    for other in ALGORITHMS.into_iter().filter(|other| *other != algorithm) {
        let token = table.strict.sign(&table.strict.header_of(other), &claims);
        table.bad(format!("of the strict issuer, by {other:?}"), token);
    }
}
