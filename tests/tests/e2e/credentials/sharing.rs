use std::collections::HashSet;

use drawbridge_tests::{TestIssuer, now};
use drawbridge_transport::transaction_token::{Actor, TOKEN_TYPE};
use jsonwebtoken::{Algorithm, Header};

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_calls_share_one_login_and_one_lease_which_vault_audits_by_user_tenant_and_request()
 {
    let world = World::start(|_| {}).await;
    let credentials = world.credentials();
    let alice = world.caller("alice").await;
    let contexts: Vec<_> = (0..100).map(|_| context()).collect();
    let calls: Vec<_> = contexts
        .iter()
        .cloned()
        .map(|context| {
            let (credentials, alice) = (credentials.clone(), alice.clone());
            tokio::spawn(async move {
                credentials.database(&alice, &context, ROLE).await.expect("a lease")
            })
        })
        .collect();
    let mut users = HashSet::new();
    for call in calls {
        users.insert(call.await.expect("a completed task").username.clone());
    }
    assert_eq!(users.len(), 1);
    // Another token of the same principal uses the same lease.
    let again = credentials
        .database(&world.caller("alice").await, &context(), ROLE)
        .await
        .expect("a lease");
    assert!(users.contains(&again.username));

    let logins = world.vault.responses("auth/drawbridge/login");
    let leases = world.vault.responses(&format!("database/creds/{ROLE}"));
    assert_eq!((logins.len(), leases.len()), (1, 1));
    let lease = &leases[0];
    let metadata = &lease["auth"]["metadata"];
    assert_eq!(
        (&metadata["subject"], &metadata["tenant"]),
        (&"alice".into(), &"acme".into()),
        "{lease}"
    );
    let request_id = lease["request"]["headers"]["x-request-id"][0].as_str().expect("a request id");
    assert!(
        contexts.iter().any(|context| context.request_id.as_str() == request_id),
        "{request_id}"
    );
    assert!(lease["response"]["secret"]["lease_id"].is_string(), "{lease}");
    credentials.close().await;
}

#[tokio::test]
async fn vaults_audit_log_names_the_subject_and_the_actor() {
    let mut world = World::bare().await;
    // Signs in place of auth, for a service that acts for its caller.
    let auth = TestIssuer::with_every_algorithm().await;
    world.setup.jwks_url = auth.url.join("jwks").expect("a URL");
    world.bootstrap().await;
    let sign = |act: Option<Actor>| {
        let mut claims = (*caller_of_tenant(Some("acme")).claims).clone();
        (claims.iat, claims.exp, claims.act) = (now(), now() + 50, act.map(Box::new));
        (claims.aud, claims.tctx.rpc) = ("code".to_owned(), RPC.to_owned());
        let mut header = Header::new(Algorithm::EdDSA);
        (header.typ, header.kid) = (Some(TOKEN_TYPE.to_owned()), Some("ed-key".to_owned()));
        let token = auth.sign(&header, &serde_json::to_value(&claims).expect("JSON"));
        VerifiedCaller { claims: Arc::new(claims), token: Arc::new(token.into()) }
    };
    let actor = Actor { iss: "cluster".to_owned(), sub: "tickets".to_owned(), act: None };
    let credentials = world.credentials();
    for caller in [sign(None), sign(Some(actor))] {
        credentials.database(&caller, &context(), ROLE).await.expect("a lease");
    }
    let leases = world.vault.responses(&format!("database/creds/{ROLE}"));
    let named: Vec<_> = leases.iter().map(|lease| &lease["auth"]["metadata"]).collect();
    assert_eq!(named.len(), 2, "{leases:?}");
    for metadata in &named {
        assert_eq!((&metadata["subject"], &metadata["tenant"]), (&"erin".into(), &"acme".into()));
    }
    assert!(named[0]["actor"].is_null(), "{named:?}");
    assert_eq!(
        (&named[1]["actor"], &named[1]["actor_issuer"]),
        (&"tickets".into(), &"cluster".into())
    );
    assert_eq!(
        leases[0]["auth"]["entity_id"], leases[1]["auth"]["entity_id"],
        "one principal is one entity"
    );
    credentials.close().await;
}
