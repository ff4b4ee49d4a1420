//! The transaction token that identifies the subject.

use std::time::Duration;

use drawbridge_tests::TestIssuer;
use jsonwebtoken::{Algorithm, decode_header};
use serde_json::{Value, json};

use super::{Delegating, INSIDE, LIST, WHO_AM_I, claims, request};
use crate::identity::exchange_at;

#[tokio::test]
async fn only_a_transaction_token_of_this_auth_identifies_the_subject() {
    let it = Delegating::start(None).await;
    let called = it.called(&it.user(json!({}))).await;
    let untrusted = TestIssuer::with_every_algorithm().await;
    let forged = |over: &dyn Fn(&mut Value, &mut jsonwebtoken::Header)| {
        let mut header = untrusted.header_of(Algorithm::EdDSA);
        header.typ = Some("txntoken+jwt".to_owned());
        header.kid = decode_header(&called).expect("a header").kid;
        let mut claims = serde_json::to_value(claims(&called)).expect("claims");
        over(&mut claims, &mut header);
        untrusted.sign(&header, &claims)
    };
    let (message, signature) = called.rsplit_once('.').expect("a signature");
    let (header, _) = message.split_once('.').expect("claims");
    let other = it.called(&it.user(json!({ "sub": "mallory" }))).await;
    let payload = other.split('.').nth(1).expect("claims");
    for (what, token) in [
        ("an outside access token", it.user(json!({}))),
        ("an inside access token", it.token(INSIDE, json!({}))),
        ("a workload's own token", it.deputy()),
        ("signed by an untrusted issuer", forged(&|_, _| {})),
        (
            "signed by an untrusted issuer with an unknown key id",
            forged(&|_, header| header.kid = Some("ed-key".into())),
        ),
        ("without a key id", forged(&|_, header| header.kid = None)),
        ("of another type", forged(&|_, header| header.typ = Some("at+jwt".into()))),
        ("of another algorithm", forged(&|_, header| header.alg = Algorithm::ES256)),
        ("without a signature", format!("{message}.")),
        ("another user's claims under this signature", format!("{header}.{payload}.{signature}")),
        ("nonsense", "nonsense".to_owned()),
        ("nothing", String::new()),
        ("too long", "x".repeat(20_000)),
    ] {
        let refused = it.rejection(&token, &it.deputy(), LIST).await;
        assert!(refused.contains("Unauthenticated"), "{what}: {refused}");
        assert!(
            refused.contains("not a transaction token of this auth service"),
            "{what}: {refused}"
        );
    }
    // Without an actor's token the exchange is rejected.
    assert!(it.rejection(&called, "", LIST).await.contains("Unauthenticated"));

    let auth = it.mesh.auth(|config| {
        config.issuer = Some(it.issuer.name().to_owned());
        config.transaction_ttl_seconds = 1;
    });
    let replica = auth.start().await;
    let brief = it.called_at(&auth.url, &it.user(json!({})), "test_who_am_i", WHO_AM_I).await;
    tokio::time::sleep(Duration::from_millis(2100)).await;
    let late = exchange_at(&auth.url, request(&brief, &it.deputy(), LIST)).await;
    assert!(late.expect_err("no token").contains("the subject token has expired"));
    replica.stop().await;
}

#[tokio::test]
async fn at_most_four_actors_delegate_and_none_extends_the_expiry() {
    let it = Delegating::start(None).await;
    let mut token = it.called(&it.user(json!({}))).await;
    let expiry = claims(&token).exp;
    for number in 1..=4 {
        // A token with the full lifetime would expire later.
        tokio::time::sleep(Duration::from_millis(400)).await;
        let deputy = it.workload(&format!("deputy-{number}"), &["deputies"]);
        token = it.delegate(&token, &deputy, WHO_AM_I).await.expect("a token");
        assert_eq!(claims(&token).exp, expiry);
    }
    let mut actors = Vec::new();
    let mut act = claims(&token).act;
    while let Some(actor) = act {
        actors.push(actor.sub);
        act = actor.act;
    }
    assert_eq!(actors, ["deputy-4", "deputy-3", "deputy-2", "deputy-1"]);
    let refused = it.rejection(&token, &it.deputy(), LIST).await;
    assert!(
        refused.contains("Denied")
            && refused.contains("4 services have already called one another"),
        "{refused}"
    );
}
