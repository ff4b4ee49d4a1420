//! Forged and malformed access tokens at the edge.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use drawbridge_tests::{TestIssuer, TestMesh};
use http::StatusCode;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

struct Attack {
    mesh: TestMesh,
    issuer: TestIssuer,
    claims: Value,
}

impl Attack {
    async fn start() -> Self {
        let issuer = TestIssuer::start().await;
        let mesh = TestMesh::with(|config| config.issuer = Some(issuer.url.clone().into())).await;
        let claims = issuer.claims(mesh.mesh.mcp_url.as_str());
        Self { mesh, issuer, claims }
    }

    fn claims(&self, name: &str, value: Value) -> Value {
        let mut claims = self.claims.clone();
        claims[name] = value;
        claims
    }

    /// The honest token with these claims.
    fn sign(&self, claims: &Value) -> String {
        self.issuer.sign(&self.issuer.header(), claims)
    }

    async fn check_rejected(&self, what: &str, token: &str, reason: &str) {
        let reply = self.mesh.client_with(token).call("tools/list", json!({})).await;
        assert_eq!(reply.status, StatusCode::UNAUTHORIZED, "{what}: {reply:?}");
        assert!(reply.message().contains(reason), "{what}: {reply:?}");
        let challenge = reply.headers["www-authenticate"].to_str().expect("a text");
        assert!(challenge.contains(r#"error="invalid_token""#), "{what}: {challenge}");
        assert!(challenge.contains("resource_metadata="), "{what}: {challenge}");
        reply.assert_names_request();
    }
}

#[tokio::test]
async fn a_valid_token_is_accepted_with_or_without_a_slash_after_its_audience() {
    let attack = Attack::start().await;
    let audience = attack.mesh.mesh.mcp_url.as_str();
    for audience in [json!(audience), json!(format!("{audience}/")), json!(["other", audience])] {
        let token = attack.sign(&attack.claims("aud", audience));
        assert_eq!(attack.mesh.client_with(&token).tools().await.len(), 2);
    }
}

#[tokio::test]
async fn a_token_with_invalid_claims_is_rejected_with_the_reason() {
    let attack = Attack::start().await;
    let long_ago = attack.claims["iat"].as_i64().expect("a time") - 3600;
    for (name, value, reason) in [
        ("exp", json!(long_ago), "has expired"),
        ("nbf", json!(long_ago + 7200), "not valid yet"),
        ("aud", json!("https://other.example/mcp"), "another audience"),
        ("aud", json!([]), "audience"),
        ("aud", Value::Null, "claims are missing or invalid"),
        ("iss", json!("https://evil.example"), "another issuer"),
        ("iss", Value::Null, "claims are missing or invalid"),
        ("exp", Value::Null, "claims are missing or invalid"),
        ("sub", Value::Null, "claims are missing or invalid"),
        ("sub", json!(""), "claims are missing or invalid"),
    ] {
        let mut claims = attack.claims(name, value.clone());
        if value.is_null() {
            claims.as_object_mut().expect("an object").remove(name);
        }
        attack.check_rejected(&format!("{name} = {value}"), &attack.sign(&claims), reason).await;
    }
}

#[tokio::test]
async fn a_token_with_a_forged_header_is_rejected() {
    let attack = Attack::start().await;
    let Attack { issuer, claims, .. } = &attack;
    let raw = |header: Value, signature: &str| {
        let part = |json: &Value| URL_SAFE_NO_PAD.encode(json.to_string());
        format!("{}.{}.{signature}", part(&header), part(claims))
    };
    for none in ["none", "None", "NONE", "nOnE", ""] {
        let token = raw(json!({ "alg": none, "kid": "test-key", "typ": "at+jwt" }), "");
        attack.check_rejected(&format!("alg {none}"), &token, "malformed").await;
    }
    // HS256, with the public key set as its secret.
    let mut symmetric = issuer.header();
    symmetric.alg = Algorithm::HS256;
    let public = reqwest::get(issuer.url.join("/jwks").expect("a URL")).await.expect("keys");
    let public = public.text().await.expect("a text");
    let forged =
        encode(&symmetric, claims, &EncodingKey::from_secret(public.as_bytes())).expect("a token");
    attack.check_rejected("HS256", &forged, "algorithm is not accepted").await;

    let with = |change: fn(&mut Header)| {
        let mut header = issuer.header();
        change(&mut header);
        issuer.sign(&header, claims)
    };
    attack
        .check_rejected(
            "unknown kid",
            &with(|header| header.kid = Some("../x".into())),
            "signature",
        )
        .await;
    attack.check_rejected("no kid", &with(|header| header.kid = None), "key id").await;
    attack
        .check_rejected("ID token", &with(|header| header.typ = Some("id+jwt".into())), "type")
        .await;
    attack
        .check_rejected("crit", &with(|header| header.crit = Some(vec!["x".into()])), "critical")
        .await;

    let other = TestIssuer::start().await;
    attack
        .check_rejected("another's key", &other.sign(&issuer.header(), claims), "signature")
        .await;
    let honest = attack.sign(claims);
    let (head, _) = honest.rsplit_once('.').expect("a signature");
    attack.check_rejected("no signature", &format!("{head}."), "signature").await;
    let tampered = raw(
        serde_json::to_value(issuer.header()).expect("JSON"),
        honest.rsplit('.').next().expect("a signature"),
    );
    attack.check_rejected("tampered", &tampered.replacen('.', ".e30", 1), "").await;
    // Authentication fails first, even if the request is malformed.
    let broken = attack.mesh.client_with("nonsense").send_body("{").await;
    assert_eq!(broken.status, StatusCode::UNAUTHORIZED);
    for (what, token) in [("a word", "nonsense"), ("dots", ".."), ("huge", &"x".repeat(20_000))] {
        attack.check_rejected(what, token, "malformed").await;
    }
}

#[tokio::test]
async fn an_authorization_header_without_a_bearer_token_is_rejected() {
    let attack = Attack::start().await;
    let anonymous = attack.mesh.anonymous();
    for header in ["Basic YTpi", "Bearer", "Bearer ", "token"] {
        let reply =
            anonymous.send(anonymous.post().header("authorization", header).body("{}")).await;
        assert_eq!(reply.status, StatusCode::UNAUTHORIZED, "{header}: {reply:?}");
    }
}

#[tokio::test]
async fn without_the_issuers_keys_every_token_is_rejected() {
    let nowhere = "http://127.0.0.1:1";
    let mesh = TestMesh::with(|config| config.issuer = nowhere.parse().ok()).await;
    let issuer = TestIssuer::start().await;
    let mut claims = issuer.claims(mesh.mesh.mcp_url.as_str());
    claims["iss"] = json!(nowhere);
    let token = issuer.sign(&issuer.header(), &claims);
    let reply = mesh.client_with(&token).call("tools/list", json!({})).await;
    assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE, "{reply:?}");
}
