use std::collections::HashSet;

use drawbridge_transport::transaction_token::ALGORITHM;
use jsonwebtoken::{DecodingKey, Validation, decode, decode_header, get_current_timestamp};
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    keyring::{KEYS_MAX, PeerKeyError, SigningKey},
    subject_token::SubjectTokenError,
    *,
};

/// Several hundred times faster than in production.
const EVERY: Duration = Duration::from_millis(400);
const TTL: Duration = Duration::from_millis(50);
const FAST: KeyTiming = KeyTiming {
    lead: Duration::from_millis(150),
    lead_at_start: Duration::from_millis(10),
    grace: Duration::from_millis(50),
    poll_interval: Duration::from_millis(50),
    confirm_interval: Duration::from_millis(10),
    confirm_timeout: Duration::from_millis(100),
    stall_max: Duration::from_secs(1),
};
/// How long this test caches keys without looking for unknown ones.
const CACHED_FOR: Duration = Duration::from_millis(100);

fn replica() -> Minter {
    Minter::new("auth", Duration::from_secs(30), Arc::new(Keyring::new().unwrap()))
}

fn mint(minter: &Minter, token: &AccessToken) -> String {
    let request_id = RequestId::generate();
    minter.mint(token, &item(), MessageBinding::AnyMessage, &request_id, None).unwrap().token
}

/// The keys of a replica, as its peers see them.
fn published(minter: &Minter) -> Vec<Value> {
    minter.keyring.own().iter().map(|key| serde_json::to_value(key).unwrap()).collect()
}

fn later() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

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
    let minter = replica();
    let ring = Arc::clone(&minter.keyring);
    let stopping = CancellationToken::new();
    let stop = stopping.clone();
    let rotating = tokio::spawn(async move {
        let peers = KeyPeers::new(Arc::clone(&ring), None, FAST, TTL);
        ring.rotate(EVERY, TTL, FAST, &peers, |_| {}, stop).await;
    });

    let mut validation = Validation::new(ALGORITHM);
    validation.set_audience(&["code"]);
    let (mut known, mut fetched) = (minter.keyring.published().clone(), Instant::now());
    let (mut signed_by, mut minted) = (HashSet::new(), 0);
    while signed_by.len() < 4 {
        if fetched.elapsed() > CACHED_FOR {
            (known, fetched) = (minter.keyring.published().clone(), Instant::now());
        }
        let token = mint(&minter, &token());
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
    let left = minter.keyring.published().keys.len();
    assert!(left <= 2, "of {} keys {left} are published", signed_by.len());
}

#[test]
fn a_subject_token_carries_all_that_policies_and_revocations_read() {
    let minter = replica();
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
    let (minter, other) = (replica(), replica());
    let renamed = Minter::new("other", minter.ttl, Arc::clone(&minter.keyring));
    for foreign in [&other, &renamed] {
        let minted = mint(foreign, &token());
        assert_eq!(minter.verify(&minted).unwrap_err(), SubjectTokenError::Foreign);
    }
}

#[test]
fn a_subject_token_of_the_previous_key_is_valid_while_that_key_is_published() {
    let minter = replica();
    let minted = mint(&minter, &token());
    let next = SigningKey::generate().unwrap();
    minter.keyring.publish(next.public.clone());
    minter.keyring.sign_with(next);
    assert!(minter.verify(&minted).is_ok());
    minter.keyring.withdraw_previous();
    assert_eq!(minter.verify(&minted).unwrap_err(), SubjectTokenError::Foreign);
}

#[test]
fn a_subject_token_of_another_replica_is_valid_while_its_key_is_listed() {
    let (minter, peer) = (replica(), replica());
    let minted = mint(&peer, &token());
    assert_eq!(minter.keyring.list(&published(&peer), later()), []);
    assert_eq!(minter.verify(&minted).unwrap().token.identity, token().identity);
    // What the peer lists may repeat, and contain what is this replica's own.
    assert_eq!(minter.keyring.list(&published(&peer), later()), []);
    assert_eq!(minter.keyring.list(&published(&minter), later()), []);
    assert_eq!(minter.keyring.published().keys.len(), 2);
    minter.keyring.expire(later() + Duration::from_secs(1));
    assert_eq!(minter.verify(&minted).unwrap_err(), SubjectTokenError::Foreign);
    assert_eq!(minter.keyring.published().keys.len(), 1, "its own remains");
}

#[test]
fn a_peer_cannot_replace_the_key_of_another() {
    let (minter, peer, attacker) = (replica(), replica(), replica());
    assert_eq!(minter.keyring.list(&published(&peer), later()), []);
    let own = published(&attacker).remove(0);
    let with = |name: &str, value: Value| {
        let mut key = own.clone();
        key[name] = value;
        key
    };
    for victim in [&minter, &peer] {
        let forged = with("kid", published(victim)[0]["kid"].clone());
        assert_eq!(minter.keyring.list(&[forged], later()), [PeerKeyError::Thumbprint]);
        let minted = mint(victim, &token());
        assert!(minter.verify(&minted).is_ok(), "the key of the victim stays");
    }
    for (wrong, error) in [
        (with("kid", json!("chosen")), PeerKeyError::Thumbprint),
        (with("kid", Value::Null), PeerKeyError::Thumbprint),
        (with("x", json!("AA")), PeerKeyError::Kind),
        (with("crv", json!("X25519")), PeerKeyError::Kind),
        (json!({ "kty": "oct", "k": "c2VjcmV0", "kid": "a" }), PeerKeyError::Kind),
        (json!("nonsense"), PeerKeyError::Kind),
    ] {
        assert_eq!(minter.keyring.list(std::slice::from_ref(&wrong), later()), [error], "{wrong}");
    }
    // What else a peer writes into its key is not published.
    let decorated = with("x5u", json!("https://attacker.example"));
    assert_eq!(minter.keyring.list(&[decorated], later()), []);
    let published = serde_json::to_string(&**minter.keyring.published()).unwrap();
    assert!(!published.contains("attacker.example"), "{published}");
}

#[test]
fn the_keys_of_peers_are_limited_to_what_verifiers_read() {
    let minter = replica();
    let keys: Vec<_> = (0..KEYS_MAX).map(|_| published(&replica()).remove(0)).collect();
    assert_eq!(minter.keyring.list(&keys, later()), [PeerKeyError::TooMany]);
    assert_eq!(minter.keyring.published().keys.len(), KEYS_MAX);
    assert!(minter.verify(&mint(&minter, &token())).is_ok(), "its own key is among them");
    assert_eq!(minter.keyring.list(&keys[..KEYS_MAX - 1], later()), [], "listed again");
}

#[test]
fn whom_a_token_names_is_known_without_its_key_and_without_its_facts() {
    let (minter, gone) = (replica(), replica());
    let mut large = token();
    large.identity.groups = (0..300).map(|number| format!("group-{number:020}")).collect();
    for (signer, is_verified) in [(&minter, true), (&gone, false)] {
        let named = minter.named_caller(&mint(signer, &token())).unwrap();
        assert_eq!((named.token.identity, named.is_verified), (token().identity, is_verified));
        assert_eq!((named.token.id, named.token.issued_at), (token().id, token().issued_at));
        let named = minter.named_caller(&mint(signer, &large)).unwrap();
        assert_eq!(named.token.identity.principal, large.identity.principal);
        assert_eq!((named.token.id, named.token.issued_at), (None, None));
    }
    let other = Minter::new("other", minter.ttl, Arc::clone(&minter.keyring));
    for foreign in [mint(&other, &token()), "nonsense".to_owned(), String::new()] {
        assert!(minter.named_caller(&foreign).is_none(), "{foreign}");
    }
}

#[test]
fn a_delegated_token_expires_with_its_subject_token() {
    let minter = replica();
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
    let minter = replica();
    let mut large = token();
    large.identity.groups = (0..300).map(|number| format!("group-{number:020}")).collect();
    let minted = minter
        .mint(&large, &item(), MessageBinding::AnyMessage, &RequestId::generate(), None)
        .unwrap();
    assert!(minted.token.len() < 2_000, "{}", minted.token.len());
    assert_eq!(minter.verify(&minted.token).unwrap_err(), SubjectTokenError::Incomplete);
}
