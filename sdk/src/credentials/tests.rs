use std::collections::BTreeMap;

use secrecy::{ExposeSecret as _, SecretString};

use super::*;
use crate::{
    RequestId,
    identity::{Actor, TransactionClaims, TransactionContext},
};

fn caller(subject: &str, tenant: Option<&str>) -> Caller {
    let claims = TransactionClaims {
        iss: "auth".into(),
        aud: "code".into(),
        sub: subject.into(),
        iat: 0,
        exp: 0,
        txn: "test".into(),
        scope: String::new(),
        tctx: TransactionContext {
            iss: "idp".into(),
            principal: Principal::new("idp", subject, tenant),
            tenant: tenant.map(str::to_owned),
            client_id: "test".into(),
            tool: "test".into(),
            rpc: "a.B/C".into(),
            message_sha256: None,
            facts: None,
        },
        act: None,
    };
    Caller { claims: Arc::new(claims), token: Arc::new("token".into()) }
}

fn context() -> CallContext {
    CallContext::new(RequestId::generate(), Duration::from_secs(5))
}

#[tokio::test]
async fn without_vault_each_principal_has_leases_of_its_own_until_they_are_revoked() {
    let credentials = Credentials::new(Source::Embedded(Embedded::default()), Limits::default());
    let (alice, bob) = (caller("alice", None), caller("bob", None));
    let first = credentials.database(&alice, &context(), "reader").await.unwrap();
    let second = credentials.database(&alice, &context(), "reader").await.unwrap();
    assert!(Arc::ptr_eq(&first, &second));
    for (who, role) in [(&alice, "writer"), (&bob, "reader")] {
        let other = credentials.database(who, &context(), role).await.unwrap();
        assert_ne!(other.username, first.username);
    }

    credentials.revoke(alice.principal()).await;
    assert!(!first.is_usable());
    let third = credentials.database(&alice, &context(), "reader").await.unwrap();
    assert_ne!(third.username, first.username);

    credentials.close().await;
    assert!(!third.is_usable());
    let closed = credentials.database(&alice, &context(), "reader").await.unwrap_err();
    assert!(matches!(closed, CredentialsError::Closed), "{closed:?}");
}

#[tokio::test]
async fn what_a_service_does_in_a_callers_name_has_a_session_of_its_own_that_ends_with_the_callers()
{
    let credentials = Credentials::new(Source::Embedded(Embedded::default()), Limits::default());
    let alice = caller("alice", None);
    let actor = Actor { iss: "idp".into(), sub: "tickets".into(), act: None };
    let claims = TransactionClaims { act: Some(Box::new(actor)), ..(*alice.claims).clone() };
    let delegated = Caller { claims: Arc::new(claims), ..alice.clone() };
    let direct = credentials.database(&alice, &context(), "reader").await.unwrap();
    let acted = credentials.database(&delegated, &context(), "reader").await.unwrap();
    let own = credentials.own_database("reader").await.unwrap();
    assert_ne!(direct.username, acted.username);

    credentials.revoke(alice.principal()).await;
    assert!(!direct.is_usable() && !acted.is_usable() && own.is_usable());
    credentials.revoke_own().await;
    assert!(!own.is_usable());
    credentials.close().await;
}

#[tokio::test]
async fn the_principal_whose_session_was_used_longest_ago_makes_room() {
    let limits = Limits { sessions_max: 2, ..Limits::default() };
    let credentials = Credentials::new(Source::Embedded(Embedded::default()), limits);
    let mut leases = Vec::new();
    for number in 0..20 {
        let caller = caller(&format!("user-{number}"), None);
        leases.push(credentials.database(&caller, &context(), "reader").await.unwrap());
    }
    tokio::time::sleep(2 * sessions::LOOK_EVERY).await;
    let usable = leases.iter().filter(|lease| lease.is_usable()).count();
    assert!((1..=2).contains(&usable), "{usable}");
    credentials.close().await;
}

#[tokio::test]
async fn a_secret_is_for_callers_with_a_tenant_that_is_nothing_but_a_name() {
    let secret = |name: &str, token: &str| {
        (name.to_owned(), BTreeMap::from([("token".to_owned(), SecretString::from(token))]))
    };
    let secrets =
        BTreeMap::from([secret("helpdesk", "hush"), secret("umbrella/helpdesk", "other")]);
    let credentials = Credentials::new(Source::Embedded(Embedded::new(secrets)), Limits::default());
    for (tenant, token) in [("acme", "hush"), ("umbrella", "other")] {
        let who = caller("alice", Some(tenant));
        let secret = credentials.secret(&who, &context(), "helpdesk").await.unwrap();
        assert_eq!(secret.field("token").unwrap().expose_secret(), token);
    }
    for tenant in
        [None, Some(""), Some(".."), Some("+"), Some("*"), Some("acme/tickets"), Some("{{x}}")]
    {
        let refused = credentials.secret(&caller("alice", tenant), &context(), "helpdesk").await;
        assert!(matches!(refused, Err(CredentialsError::NoTenant)), "{tenant:?}");
    }
    credentials.close().await;
}

#[tokio::test]
async fn a_secret_that_is_not_accepted_any_more_is_read_again_by_one_call_alone() {
    let fields = BTreeMap::from([("token".to_owned(), "hush".into())]);
    let embedded = Embedded::new(BTreeMap::from([("helpdesk".to_owned(), fields)]));
    let credentials = Credentials::new(Source::Embedded(embedded), Limits::default());
    let alice = caller("alice", Some("acme"));
    let stale = credentials.secret(&alice, &context(), "helpdesk").await.unwrap();
    assert!(Arc::ptr_eq(
        &stale,
        &credentials.secret(&alice, &context(), "helpdesk").await.unwrap()
    ));
    let fresh = credentials.secret_afresh(&alice, &context(), "helpdesk", &stale).await.unwrap();
    assert!(!Arc::ptr_eq(&stale, &fresh));
    let same = credentials.secret_afresh(&alice, &context(), "helpdesk", &stale).await.unwrap();
    assert!(Arc::ptr_eq(&fresh, &same));
    credentials.close().await;
}
