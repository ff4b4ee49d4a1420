use std::{collections::HashSet, sync::Arc};

use jsonwebtoken::{DecodingKey, Validation, decode, decode_header, get_current_timestamp};

use super::{subject_token::SubjectTokenError, *};

/// Several hundred times faster than in production.
const FAST: Rotation = Rotation {
    every: Duration::from_millis(400),
    lead: Duration::from_millis(150),
    retire: Duration::from_millis(100),
};
/// How long this test caches keys without looking for unknown ones.
const CACHED_FOR: Duration = Duration::from_millis(100);

fn token() -> AccessToken {
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
    AccessToken {
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
async fn keys_rotate_without_rejecting_a_token_and_old_keys_are_withdrawn() {
    let minter = Arc::new(Minter::new("auth", Duration::from_secs(30)).unwrap());
    let stopping = CancellationToken::new();
    let (rotating, stop) = (Arc::clone(&minter), stopping.clone());
    let rotating = tokio::spawn(async move { rotating.rotate(FAST, stop).await });

    let mut validation = Validation::new(ALGORITHM);
    validation.set_audience(&["code"]);
    let (mut known, mut fetched) = (minter.jwks(), Instant::now());
    let (mut signed_by, mut minted) = (HashSet::new(), 0);
    while signed_by.len() < 4 {
        if fetched.elapsed() > CACHED_FOR {
            (known, fetched) = (minter.jwks(), Instant::now());
        }
        let token = minter
            .mint(&token(), &item(), MessageBinding::AnyMessage, &RequestId::generate(), None)
            .unwrap()
            .token;
        let id = decode_header(&token).unwrap().kid.unwrap();
        let key =
            DecodingKey::from_jwk(known.find(&id).expect("a key is published before it signs"))
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
fn a_subject_token_carries_all_that_policies_and_revocations_read() {
    let minter = Minter::new("auth", Duration::from_secs(30)).unwrap();
    let programs = Identity { workload: true, ..Identity::default() };
    let bare = AccessToken { identity: programs, id: None, issued_at: None, expires_at: 1 };
    for own in [token(), bare] {
        let minted = minter
            .mint(&own, &item(), MessageBinding::AnyMessage, &RequestId::generate(), None)
            .unwrap();
        let called = minter.verify(&minted.token).unwrap();
        let expires_at = called.token.expires_at;
        assert_eq!(called.token, AccessToken { expires_at, ..own });
        assert_eq!((called.service.as_str(), called.act), ("code", None));
        assert!((29..=30).contains(&(expires_at - get_current_timestamp())), "{expires_at}");
    }
}

#[test]
fn a_subject_token_of_another_key_or_issuer_is_rejected() {
    let minter = Minter::new("auth", Duration::from_secs(30)).unwrap();
    let other = Minter::new("auth", Duration::from_secs(30)).unwrap();
    let renamed = Minter {
        issuer: "other".to_owned(),
        ttl: minter.ttl,
        signing: ArcSwap::from(minter.signing.load_full()),
        published: ArcSwap::from(minter.published.load_full()),
    };
    for foreign in [&other, &renamed] {
        let minted = foreign
            .mint(&token(), &item(), MessageBinding::AnyMessage, &RequestId::generate(), None)
            .unwrap();
        assert_eq!(minter.verify(&minted.token).unwrap_err(), SubjectTokenError::Foreign);
    }
}

#[test]
fn a_subject_token_of_the_previous_key_is_valid_while_that_key_is_published() {
    let minter = Minter::new("auth", Duration::from_secs(30)).unwrap();
    let minted = minter
        .mint(&token(), &item(), MessageBinding::AnyMessage, &RequestId::generate(), None)
        .unwrap()
        .token;
    let (old, next) = (minter.signing.load().public.clone(), SigningKey::generate().unwrap());
    let new = next.public.clone();
    minter.signing.store(next.into());
    minter.publish(vec![old, new.clone()]);
    assert!(minter.verify(&minted).is_ok());
    minter.publish(vec![new]);
    assert_eq!(minter.verify(&minted).unwrap_err(), SubjectTokenError::Foreign);
}

#[test]
fn a_delegated_token_expires_with_its_subject_token() {
    let minter = Minter::new("auth", Duration::from_secs(30)).unwrap();
    let actor =
        Actor { iss: "https://idp.example".to_owned(), sub: "deputy".to_owned(), act: None };
    let delegation = Delegation { actor: actor.clone(), txn: "request".to_owned() };
    for (left, expected) in [(10, 10), (300, 30)] {
        let before = AccessToken { expires_at: get_current_timestamp() + left, ..token() };
        let minted = minter
            .mint(
                &before,
                &item(),
                MessageBinding::AnyMessage,
                &RequestId::generate(),
                Some(&delegation),
            )
            .unwrap();
        let called = minter.verify(&minted.token).unwrap();
        let ends = called.token.expires_at - get_current_timestamp();
        assert!((expected - 1..=expected).contains(&ends), "{ends} of {left}");
        assert_eq!((called.act.as_deref(), called.txn.as_str()), (Some(&actor), "request"));
    }
}

#[test]
fn a_token_with_omitted_groups_cannot_be_exchanged() {
    let minter = Minter::new("auth", Duration::from_secs(30)).unwrap();
    let mut large = token();
    large.identity.groups = (0..300).map(|number| format!("group-{number:020}")).collect();
    let minted = minter
        .mint(&large, &item(), MessageBinding::AnyMessage, &RequestId::generate(), None)
        .unwrap();
    assert!(minted.token.len() < 2_000, "{}", minted.token.len());
    assert_eq!(minter.verify(&minted.token).unwrap_err(), SubjectTokenError::Incomplete);
}
