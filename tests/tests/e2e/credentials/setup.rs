use drawbridge_config::setup::{Approle, Authority, CertificateRole, Kubernetes, ServiceAccount};
use drawbridge_mesh::vault::bootstrap::{BootstrapError, Change, ChangeKind};
use drawbridge_tests::TestAuthority;
use reqwest::Method;
use serde_json::json;

use super::*;

fn kinds(changes: &[Change], kind: ChangeKind) -> Vec<&str> {
    changes.iter().filter(|change| change.kind == kind).map(|change| change.what.as_str()).collect()
}

/// Adds every kind of object that can be set up.
pub(super) fn extend(setup: &mut Setup) {
    setup.pki = Some(Authority { common_name: "Drawbridge".to_owned(), ttl_seconds: 86_400 });
    let host = "https://kubernetes.internal:6443".parse().expect("a URL");
    setup.kubernetes = Some(Kubernetes { host, ca_certificate: Some(TestAuthority::new().pem) });
    let service = &mut setup.services[0];
    let own = DatabaseRole {
        name: "code-owner".to_owned().into(),
        own: true,
        ..service.database_roles[0].clone()
    };
    service.database_roles.push(own);
    service.certificate_roles.push(CertificateRole {
        name: "code-files".to_owned().into(),
        allowed_domains: vec!["{{tenant}}.code.internal".to_owned()],
        allow_subdomains: true,
        ttl_seconds: 600.into(),
    });
    service.kubernetes = Some(ServiceAccount {
        namespace: "drawbridge".to_owned(),
        service_account: "code".to_owned(),
        audience: Some("vault".to_owned()),
    });
    service.approle = Some(Approle { secret_id_ttl_seconds: 600 });
}

#[tokio::test]
async fn the_bootstrap_plans_first_applies_once_and_changes_only_differences() {
    let mut world = World::bare().await;
    extend(&mut world.setup);
    let config = world.config();
    let bootstrap = world.bootstrap_of(&config);

    let plan = bootstrap.plan(&world.setup).await.expect("a plan");
    assert_eq!(kinds(&plan, ChangeKind::Create).len(), plan.len(), "{plan:?}");
    assert!(plan.len() >= 20, "{plan:?}");
    assert_eq!(
        bootstrap.plan(&world.setup).await.expect("a plan"),
        plan,
        "planning has changed Vault"
    );

    let applied = bootstrap.apply(&world.setup).await.expect("a setup");
    assert_eq!(applied, plan);
    let again = bootstrap.apply(&world.setup).await.expect("a setup");
    assert_eq!(kinds(&again, ChangeKind::Unchanged).len(), again.len(), "{again:?}");

    world.setup.services[0].ttl_seconds = 90.into();
    let (status, _) =
        world.vault.request(Method::DELETE, "sys/policies/acl/drawbridge-tickets", json!({})).await;
    assert!(status.is_success());
    let plan = bootstrap.plan(&world.setup).await.expect("a plan");
    let logins =
        ["login of code", "own login of code by Kubernetes", "own login of code by AppRole"];
    assert_eq!(kinds(&plan, ChangeKind::Update), logins);
    assert_eq!(kinds(&plan, ChangeKind::Create), ["policy drawbridge-tickets"]);
}

#[tokio::test]
async fn a_foreign_mount_is_not_changed() {
    let world = World::bare().await;
    let (status, _) =
        world.vault.request(Method::POST, "sys/mounts/secret", json!({ "type": "transit" })).await;
    assert!(status.is_success());
    let config = world.config();
    let bootstrap = world.bootstrap_of(&config);
    let error = bootstrap.plan(&world.setup).await.expect_err("a foreign mount");
    assert!(
        matches!(&error, BootstrapError::Conflict { path, .. } if path == "sys/mounts/secret"),
        "{error}"
    );
}

#[tokio::test]
async fn names_with_wildcards_are_rejected_before_any_change() {
    let mut world = World::bare().await;
    world.setup.services[0].database_roles[0].name = "+".to_owned().into();
    let config = world.config();
    let bootstrap = world.bootstrap_of(&config);
    let error = bootstrap.apply(&world.setup).await.expect_err("an invalid name");
    assert!(matches!(&error, BootstrapError::Name { name, .. } if name == "+"), "{error}");
    let (_, mounts) = world.vault.request(Method::GET, "sys/mounts", json!({})).await;
    assert!(mounts["data"]["database/"].is_null(), "{mounts}");
}
