use std::{collections::HashSet, sync::Arc};

use jsonwebtoken::{DecodingKey, Validation, decode, decode_header, get_current_timestamp};

use super::{called::CalledError, *};

/// Some hundred times as fast as in earnest.
const FAST: Rotation = Rotation {
    every: Duration::from_millis(400),
    lead: Duration::from_millis(150),
    retire: Duration::from_millis(100),
};
/// For how long keys are kept here, without a look at those that are unknown.
const KEPT_FOR: Duration = Duration::from_millis(100);

fn token() -> Token {
    let principal = pb::Principal {
        issuer: "https://idp.example".to_owned(),
        subject: "alice".to_owned(),
        client_id: "client".to_owned(),
        tenant: "acme".to_owned(),
        scopes: vec!["a".to_owned(), "b".to_owned()],
        ..pb::Principal::default()
    };
    let identity = Identity {
        principal,
        groups: vec!["engineering".to_owned()],
        roles: vec!["auditor".to_owned()],
        email: Some("alice@acme.example".to_owned()),
        mfa: true,
        workload: false,
    };
    Token {
        identity,
        id: Some("1".to_owned()),
        issued_at: Some(7),
        expires_at: get_current_timestamp() + 300,
    }
}

fn item() -> pb::CatalogItem {
    pb::CatalogItem { service: "code".into(), rpc: "a.B/C".into(), ..Default::default() }
}

#[tokio::test]
async fn keys_change_without_a_token_that_is_refused_and_old_ones_are_withdrawn() {
    let minter = Arc::new(Minter::new("auth", Duration::from_secs(30)).unwrap());
    let stopping = CancellationToken::new();
    let (rotating, stop) = (Arc::clone(&minter), stopping.clone());
    let rotating = tokio::spawn(async move { rotating.rotate(FAST, stop).await });

    let mut validation = Validation::new(ALGORITHM);
    validation.set_audience(&["code"]);
    let (mut known, mut fetched) = (minter.jwks(), Instant::now());
    let (mut signed_by, mut minted) = (HashSet::new(), 0);
    while signed_by.len() < 4 {
        if fetched.elapsed() > KEPT_FOR {
            (known, fetched) = (minter.jwks(), Instant::now());
        }
        let token = minter
            .mint(&token(), &item(), Opens::AnyMessage, &RequestId::generate(), None)
            .unwrap()
            .token;
        let id = decode_header(&token).unwrap().kid.unwrap();
        let key =
            DecodingKey::from_jwk(known.find(&id).expect("a key that is known before it signs"))
                .unwrap();
        decode::<TransactionClaims>(&token, &key, &validation).unwrap();
        signed_by.insert(id);
        minted += 1;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(minted > 100, "{minted}");
    stopping.cancel();
    rotating.await.unwrap();
    let left = minter.jwks().keys.len();
    assert!(left <= 2, "of {} keys {left} are published", signed_by.len());
}

#[test]
fn a_token_that_comes_back_tells_all_that_policies_and_revocations_ask() {
    let minter = Minter::new("auth", Duration::from_secs(30)).unwrap();
    let programs = Identity { workload: true, ..Identity::default() };
    let bare = Token { identity: programs, id: None, issued_at: None, expires_at: 1 };
    for own in [token(), bare] {
        let minted =
            minter.mint(&own, &item(), Opens::AnyMessage, &RequestId::generate(), None).unwrap();
        let called = minter.read(&minted.token).unwrap();
        let expires_at = called.token.expires_at;
        assert_eq!(called.token, Token { expires_at, ..own });
        assert_eq!((called.service.as_str(), called.act), ("code", None));
        assert!((29..=30).contains(&(expires_at - get_current_timestamp())), "{expires_at}");
    }
}

#[test]
fn a_token_that_another_auth_signed_or_under_another_name_does_not_come_back() {
    let minter = Minter::new("auth", Duration::from_secs(30)).unwrap();
    let other = Minter::new("auth", Duration::from_secs(30)).unwrap();
    let renamed = Minter {
        issuer: "other".to_owned(),
        ttl: minter.ttl,
        signing: ArcSwap::from(minter.signing.load_full()),
        published: ArcSwap::from(minter.published.load_full()),
    };
    for stranger in [&other, &renamed] {
        let minted = stranger
            .mint(&token(), &item(), Opens::AnyMessage, &RequestId::generate(), None)
            .unwrap();
        assert_eq!(minter.read(&minted.token).unwrap_err(), CalledError::Foreign);
    }
}

#[test]
fn a_token_comes_back_under_the_key_before_and_no_longer_than_it_is_published() {
    let minter = Minter::new("auth", Duration::from_secs(30)).unwrap();
    let minted = minter
        .mint(&token(), &item(), Opens::AnyMessage, &RequestId::generate(), None)
        .unwrap()
        .token;
    let (old, next) = (minter.signing.load().public.clone(), SigningKey::generate().unwrap());
    let new = next.public.clone();
    minter.signing.store(next.into());
    minter.publish(vec![old, new.clone()]);
    assert!(minter.read(&minted).is_ok());
    minter.publish(vec![new]);
    assert_eq!(minter.read(&minted).unwrap_err(), CalledError::Foreign);
}

#[test]
fn a_delegated_token_ends_with_the_one_before_it() {
    let minter = Minter::new("auth", Duration::from_secs(30)).unwrap();
    let actor =
        Actor { iss: "https://idp.example".to_owned(), sub: "deputy".to_owned(), act: None };
    let delegation = Delegation { actor: actor.clone(), txn: "request".to_owned() };
    for (left, expected) in [(10, 10), (300, 30)] {
        let before = Token { expires_at: get_current_timestamp() + left, ..token() };
        let minted = minter
            .mint(&before, &item(), Opens::AnyMessage, &RequestId::generate(), Some(&delegation))
            .unwrap();
        let called = minter.read(&minted.token).unwrap();
        let ends = called.token.expires_at - get_current_timestamp();
        assert!((expected - 1..=expected).contains(&ends), "{ends} of {left}");
        assert_eq!((called.act.as_deref(), called.txn.as_str()), (Some(&actor), "request"));
    }
}

#[test]
fn more_than_a_header_holds_is_left_out_and_then_nobody_may_act() {
    let minter = Minter::new("auth", Duration::from_secs(30)).unwrap();
    let mut large = token();
    large.identity.groups = (0..300).map(|number| format!("group-{number:020}")).collect();
    let minted =
        minter.mint(&large, &item(), Opens::AnyMessage, &RequestId::generate(), None).unwrap();
    assert!(minted.token.len() < 2_000, "{}", minted.token.len());
    assert_eq!(minter.read(&minted.token).unwrap_err(), CalledError::Reticent);
}
