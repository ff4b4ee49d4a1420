//! Malformed tokens.

use base64::{
    Engine as _,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE, BASE64_URL_SAFE_NO_PAD},
};
use jsonwebtoken::Algorithm;
use serde_json::json;

use super::{Table, with};

pub(super) fn add(table: &mut Table) {
    let honest = table.sign(Algorithm::ES256, &table.claims());
    let parts: Vec<_> = honest.split('.').collect();
    let [header, claims, signature] = parts[..] else { panic!("{honest}") };
    let decoded = |part: &str| BASE64_URL_SAFE_NO_PAD.decode(part).expect("base64url");
    let padded = |part: &str| BASE64_URL_SAFE.encode(decoded(part));
    for (name, token) in [
        ("one part", header.to_owned()),
        ("two parts", format!("{header}.{claims}")),
        ("four parts", format!("{honest}.{signature}")),
        ("five parts, as if encrypted", format!("{honest}.AA.AA")),
        ("no header", format!(".{claims}.{signature}")),
        ("no claims", format!("{header}..{signature}")),
        ("dots", "..".to_owned()),
        ("more dots", ".".repeat(1_000)),
        ("nothing but a dot", ".".to_owned()),
        ("a space before", format!(" {honest}")),
        ("a space after", format!("{honest} ")),
        ("a line feed after", format!("{honest}\n")),
        ("a zero after", format!("{honest}\u{0}")),
        ("a comma and another", format!("{honest},{honest}")),
        ("its scheme", format!("Bearer {honest}")),
        ("quotes", format!("\"{honest}\"")),
        ("a header with padding", format!("{}=.{claims}.{signature}", header)),
        ("claims with padding", format!("{header}.{}=.{signature}", claims)),
        ("all in padded base64", format!("{}.{}.{}==", padded(header), padded(claims), signature)),
        ("base64 of another alphabet", BASE64_STANDARD.encode(&honest)),
        ("percent-encoding", honest.replace('.', "%2E")),
        ("capitals", honest.to_uppercase()),
        ("other letters", "ａｔ＋ｊｗｔ".to_owned()),
        ("a word", "nonsense".to_owned()),
        ("a word that looks opaque", "ya29.a0AfB_byC".to_owned()),
        ("null", "null".to_owned()),
        ("JSON", table.claims().to_string()),
        (
            "JSON that is signed flatly",
            json!({ "protected": header, "payload": claims, "signature": signature }).to_string(),
        ),
        ("XML", "<saml:Assertion/>".to_owned()),
        ("just too many bytes", format!("{honest}{}", "A".repeat(16 * 1024 + 1 - honest.len()))),
        ("far too many bytes", "A".repeat(1_000_000)),
    ] {
        table.bad(format!("a token with {name}"), token);
    }
    add_odd_json(table, &honest);
}

fn add_odd_json(table: &mut Table, honest: &str) {
    let header = serde_json::to_string(&table.main.header()).expect("JSON");
    let claims = table.claims();
    let text = claims.to_string();
    let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    for (name, header, claims) in [
        ("a list as its claims", header.clone(), "[]".to_owned()),
        ("a text as its claims", header.clone(), "\"x\"".to_owned()),
        ("null as its claims", header.clone(), "null".to_owned()),
        ("claims that are not JSON", header.clone(), "x".to_owned()),
        ("empty claims", header.clone(), "{}".to_owned()),
        ("claims that do not end", header.clone(), text.trim_end_matches('}').to_owned()),
        ("claims and more", header.clone(), format!("{text}{{}}")),
        ("claims after a byte order mark", header.clone(), format!("\u{feff}{text}")),
        ("claims with a comment", header.clone(), format!("/* */{text}")),
        ("claims with a comma too many", header.clone(), text.replace('}', ",}")),
        ("claims in a token in a token", header.clone(), format!("\"{honest}\"")),
        (
            "deep claims",
            header.clone(),
            with(&claims, &json!({ "a": "X" })).to_string().replace("\"X\"", &deep(4_000)),
        ),
        ("a list as its header", "[]".to_owned(), text.clone()),
        ("a text as its header", "\"at+jwt\"".to_owned(), text.clone()),
        ("an empty header", "{}".to_owned(), text.clone()),
        ("a header and more", format!("{header}{{}}"), text.clone()),
        (
            "a deep header",
            header.replacen('{', &format!("{{\"a\":{},", deep(4_000)), 1),
            text.clone(),
        ),
    ] {
        let token = table.main.sign_text(Algorithm::ES256, &header, &claims);
        table.bad(format!("signed, with {name}"), token);
    }
}
