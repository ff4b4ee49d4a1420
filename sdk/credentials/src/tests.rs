use std::collections::BTreeMap;

use secrecy::{ExposeSecret as _, SecretString};

use super::*;
use drawbridge_runtime::RequestId;
use drawbridge_transport::transaction_token::{Actor, TransactionClaims, TransactionContext};

fn caller(subject: &str, tenant: Option<&str>) -> VerifiedCaller {
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
    VerifiedCaller { claims: Arc::new(claims), token: Arc::new("token".into()) }
}

fn context() -> CallContext {
    CallContext::new(RequestId::generate(), Duration::from_secs(5))
}

#[tokio::test]
async fn with_the_embedded_source_each_principal_has_its_own_leases_until_they_are_revoked() {
    let credentials = Credentials::new(
        CredentialSource::Embedded(EmbeddedSource::default()),
        CredentialLimits::default(),
    );
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
async fn an_actor_for_a_caller_has_its_own_session_that_is_revoked_with_the_callers() {
    let credentials = Credentials::new(
        CredentialSource::Embedded(EmbeddedSource::default()),
        CredentialLimits::default(),
    );
    let alice = caller("alice", None);
    let actor = Actor { iss: "idp".into(), sub: "tickets".into(), act: None };
    let claims = TransactionClaims { act: Some(Box::new(actor)), ..(*alice.claims).clone() };
    let delegated = VerifiedCaller { claims: Arc::new(claims), ..alice.clone() };
    let direct = credentials.database(&alice, &context(), "reader").await.unwrap();
    let acted = credentials.database(&delegated, &context(), "reader").await.unwrap();
    let own = credentials.service_database("reader").await.unwrap();
    assert_ne!(direct.username, acted.username);

    credentials.revoke(alice.principal()).await;
    assert!(!direct.is_usable() && !acted.is_usable() && own.is_usable());
    credentials.revoke_service_credentials().await;
    assert!(!own.is_usable());
    credentials.close().await;
}

#[tokio::test]
async fn the_least_recently_used_session_is_evicted() {
    let limits = CredentialLimits { sessions_max: 2, ..CredentialLimits::default() };
    let credentials =
        Credentials::new(CredentialSource::Embedded(EmbeddedSource::default()), limits);
    let mut leases = Vec::new();
    for number in 0..20 {
        let caller = caller(&format!("user-{number}"), None);
        leases.push(credentials.database(&caller, &context(), "reader").await.unwrap());
    }
    tokio::time::sleep(2 * sessions::MAINTENANCE_INTERVAL).await;
    let usable = leases.iter().filter(|lease| lease.is_usable()).count();
    assert!((1..=2).contains(&usable), "{usable}");
    credentials.close().await;
}

#[tokio::test]
async fn a_secret_requires_a_tenant_whose_name_is_a_path_segment() {
    let secret = |name: &str, token: &str| {
        (name.to_owned(), BTreeMap::from([("token".to_owned(), SecretString::from(token))]))
    };
    let secrets =
        BTreeMap::from([secret("helpdesk", "hush"), secret("umbrella/helpdesk", "other")]);
    let credentials = Credentials::new(
        CredentialSource::Embedded(EmbeddedSource::new(secrets)),
        CredentialLimits::default(),
    );
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
async fn a_stale_secret_is_read_again_by_only_one_call() {
    let fields = BTreeMap::from([("token".to_owned(), "hush".into())]);
    let embedded = EmbeddedSource::new(BTreeMap::from([("helpdesk".to_owned(), fields)]));
    let credentials =
        Credentials::new(CredentialSource::Embedded(embedded), CredentialLimits::default());
    let alice = caller("alice", Some("acme"));
    let stale = credentials.secret(&alice, &context(), "helpdesk").await.unwrap();
    assert!(Arc::ptr_eq(
        &stale,
        &credentials.secret(&alice, &context(), "helpdesk").await.unwrap()
    ));
    let fresh = credentials.reread_secret(&alice, &context(), "helpdesk", &stale).await.unwrap();
    assert!(!Arc::ptr_eq(&stale, &fresh));
    let same = credentials.reread_secret(&alice, &context(), "helpdesk", &stale).await.unwrap();
    assert!(Arc::ptr_eq(&fresh, &same));
    credentials.close().await;
}
