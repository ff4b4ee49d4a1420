use std::{fs, path::Path, process::Command};

use drawbridge_mesh::vault::bootstrap::ChangeKind;
use drawbridge_tests::repository;
use serde_json::{Value, json};

use super::{setup::extend, *};

/// Runs Terraform in the folder of its files.
fn terraform(folder: &Path, world: &World, arguments: &[&str]) {
    let output = Command::new("terraform")
        .args(arguments)
        .current_dir(folder)
        .env("VAULT_ADDR", world.vault.url.as_str())
        .env("VAULT_TOKEN", &world.vault.root_token)
        .env("TF_VAR_database_password", world.postgres.owner().1)
        .output()
        .expect("terraform on PATH: https://developer.hashicorp.com/terraform/install");
    let text = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "terraform {arguments:?}: {}", String::from_utf8_lossy(&text));
}

/// A setup as Terraform's variables.
fn variables(setup: &Setup) -> Value {
    let database_role = |role: &DatabaseRole| {
        json!({
            "name": role.name,
            "own": role.own,
            "creation_statements": role.creation_statements,
            "revocation_statements": role.revocation_statements,
            "ttl_seconds": role.ttl_seconds,
            "max_ttl_seconds": role.max_ttl_seconds,
        })
    };
    let service = |service: &ServiceSetup| {
        let value = json!({
            "rpcs": service.rpcs,
            "ttl_seconds": service.ttl_seconds,
            "max_ttl_seconds": service.max_ttl_seconds,
            "database_roles": service.database_roles.iter().map(database_role).collect::<Vec<_>>(),
            "certificate_roles": service.certificate_roles.iter().map(|role| json!({
                "name": role.name,
                "allowed_domains": role.allowed_domains,
                "allow_subdomains": role.allow_subdomains,
                "ttl_seconds": role.ttl_seconds,
            })).collect::<Vec<_>>(),
            "kubernetes": service.kubernetes.as_ref().map(|account| json!({
                "namespace": account.namespace,
                "service_account": account.service_account,
                "audience": account.audience,
            })),
            "approle": service.approle.as_ref().map(|approle| json!({
                "secret_id_ttl_seconds": approle.secret_id_ttl_seconds,
            })),
        });
        (service.name.to_string(), value)
    };
    json!({
        "jwks_url": setup.jwks_url,
        "auth_issuer": setup.auth_issuer,
        "audit_file": setup.audit_file,
        "database": setup.database.as_ref().map(|database| json!({
            "name": database.name,
            "connection_url": database.connection_url,
            "username": database.username,
        })),
        "pki": setup.pki.as_ref().map(|authority| json!({
            "common_name": authority.common_name,
            "ttl_seconds": authority.ttl_seconds,
        })),
        "kubernetes": setup.kubernetes.as_ref().map(|kubernetes| json!({
            "host": kubernetes.host,
            "ca_certificate": kubernetes.ca_certificate,
        })),
        "services": setup.services.iter().map(service).collect::<serde_json::Map<_, _>>(),
    })
}

#[ignore = "Terraform fetches its provider: `make terraform-test`"]
#[tokio::test]
async fn terraform_sets_up_vault_like_the_bootstrap() {
    let mut world = World::bare().await;
    extend(&mut world.setup);
    let folder = tempfile::tempdir().expect("a folder");
    for file in fs::read_dir(repository().join("deploy/vault/terraform")).expect("a folder") {
        let path = file.expect("a file").path();
        if path.extension().is_some_and(|extension| extension == "tf") {
            fs::copy(&path, folder.path().join(path.file_name().expect("a name"))).expect("a file");
        }
    }
    let variables = serde_json::to_string(&variables(&world.setup)).expect("JSON");
    fs::write(folder.path().join("terraform.tfvars.json"), variables).expect("a file");
    terraform(folder.path(), &world, &["init", "-input=false"]);
    terraform(folder.path(), &world, &["apply", "-input=false", "-auto-approve"]);

    let config = world.config();
    let plan = world.bootstrap_of(&config).plan(&world.setup).await.expect("a plan");
    let differs: Vec<_> =
        plan.iter().filter(|change| change.kind != ChangeKind::Unchanged).collect();
    assert!(differs.is_empty() && plan.len() >= 20, "{differs:?}");

    // A second plan is empty, and Terraform's state does not contain the password.
    terraform(folder.path(), &world, &["plan", "-input=false", "-detailed-exitcode"]);
    let state = fs::read_to_string(folder.path().join("terraform.tfstate")).expect("a state");
    assert!(!state.contains(world.postgres.owner().1), "the password is in the state");

    // The setup serves credentials.
    let credentials = world.credentials();
    let alice = world.caller("alice").await;
    credentials.database(&alice, &context(), ROLE).await.expect("a lease");
    credentials
        .certificate(&alice, &context(), "code-files", "acme.code.internal")
        .await
        .expect("a certificate");
    let refused =
        credentials.database(&alice, &context(), "code-owner").await.expect_err("no lease");
    assert!(matches!(refused, CredentialsError::Refused { status: 403, .. }), "{refused:?}");
    credentials.close().await;
}
