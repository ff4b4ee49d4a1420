use drawbridge_sdk::credentials::bootstrap::{BootstrapError, Change, ChangeKind};
use reqwest::Method;
use serde_json::json;

use super::*;

fn kinds(changes: &[Change], kind: ChangeKind) -> Vec<&str> {
    changes.iter().filter(|change| change.kind == kind).map(|change| change.what.as_str()).collect()
}

#[tokio::test]
async fn vault_is_planned_first_set_up_once_and_changed_where_it_differs() {
    let mut world = World::bare().await;
    let (config, token) = (world.config(), SecretString::from(world.vault.root_token.clone()));
    let bootstrap = Bootstrap::new(&config, &token).expect("a client");

    let plan = bootstrap.plan(&world.setup).await.expect("a plan");
    assert_eq!(kinds(&plan, ChangeKind::Create).len(), plan.len(), "{plan:?}");
    assert!(plan.len() >= 10, "{plan:?}");
    assert_eq!(bootstrap.plan(&world.setup).await.expect("a plan"), plan, "planning has changed something");

    let done = bootstrap.apply(&world.setup).await.expect("it is set up");
    assert_eq!(done, plan);
    let again = bootstrap.apply(&world.setup).await.expect("it is set up");
    assert_eq!(kinds(&again, ChangeKind::Keep).len(), again.len(), "{again:?}");

    world.setup.services[0].ttl_seconds = 90;
    let (status, _) = world.vault.ask(Method::DELETE, "sys/policies/acl/drawbridge-tickets", json!({})).await;
    assert!(status.is_success());
    let plan = bootstrap.plan(&world.setup).await.expect("a plan");
    assert_eq!(kinds(&plan, ChangeKind::Update), ["login of code"]);
    assert_eq!(kinds(&plan, ChangeKind::Create), ["policy drawbridge-tickets"]);
}

#[tokio::test]
async fn what_somebody_else_has_mounted_is_not_touched() {
    let world = World::bare().await;
    let (status, _) = world.vault.ask(Method::POST, "sys/mounts/secret", json!({ "type": "transit" })).await;
    assert!(status.is_success());
    let (config, token) = (world.config(), SecretString::from(world.vault.root_token.clone()));
    let bootstrap = Bootstrap::new(&config, &token).expect("a client");
    let error = bootstrap.plan(&world.setup).await.expect_err("it is taken");
    assert!(matches!(&error, BootstrapError::Taken { path, .. } if path == "sys/mounts/secret"), "{error}");
}
