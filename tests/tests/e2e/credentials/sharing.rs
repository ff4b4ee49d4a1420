use std::collections::HashSet;

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_at_once_share_one_login_and_one_lease_which_vault_knows_by_user_tenant_and_request() {
    let world = World::start(|_| {}).await;
    let credentials = world.credentials();
    let alice = world.caller("alice").await;
    let contexts: Vec<_> = (0..100).map(|_| context()).collect();
    let calls: Vec<_> = contexts
        .iter()
        .cloned()
        .map(|context| {
            let (credentials, alice) = (credentials.clone(), alice.clone());
            tokio::spawn(async move { credentials.database(&alice, &context, ROLE).await.expect("a lease") })
        })
        .collect();
    let mut users = HashSet::new();
    for call in calls {
        users.insert(call.await.expect("an end").username.clone());
    }
    assert_eq!(users.len(), 1);
    // Another token of hers is still hers.
    let again = credentials.database(&world.caller("alice").await, &context(), ROLE).await.expect("a lease");
    assert!(users.contains(&again.username));

    let logins = world.vault.answered("auth/drawbridge/login");
    let leases = world.vault.answered(&format!("database/creds/{ROLE}"));
    assert_eq!((logins.len(), leases.len()), (1, 1));
    let lease = &leases[0];
    let metadata = &lease["auth"]["metadata"];
    assert_eq!((&metadata["subject"], &metadata["tenant"]), (&"alice".into(), &"acme".into()), "{lease}");
    let request_id = lease["request"]["headers"]["x-request-id"][0].as_str().expect("a request id");
    assert!(contexts.iter().any(|context| context.request_id.as_str() == request_id), "{request_id}");
    assert!(lease["response"]["secret"]["lease_id"].is_string(), "{lease}");
    credentials.close().await;
}
