//! The policies of sessions in Vault.

use drawbridge_config::setup::ServiceSetup;
use drawbridge_credentials::VaultConfig;

/// The policy of a service on behalf of a caller.
pub(super) fn caller_policy(
    config: &VaultConfig,
    service: &ServiceSetup,
    accessor: &str,
) -> String {
    let mut rules = session_rules();
    let VaultConfig {
        vault_kv_mount: kv,
        vault_database_mount: database,
        vault_pki_mount: pki,
        ..
    } = config;
    rules.push((format!("{kv}/data/{}/{}/*", tenant(accessor), service.name), "read"));
    for role in service.database_roles.iter().filter(|role| !role.own) {
        rules.push((format!("{database}/creds/{}", role.name), "read"));
    }
    for role in &service.certificate_roles {
        rules.push((format!("{pki}/issue/{}", role.name), "update"));
    }
    rules_text(&rules)
}

/// The policy of a service in its own name. An agent's token gets a child token for each session.
pub(super) fn service_policy(config: &VaultConfig, service: &ServiceSetup) -> String {
    let mut rules = session_rules();
    rules.push(("auth/token/create".to_owned(), "update"));
    for role in service.database_roles.iter().filter(|role| role.own) {
        rules.push((format!("{}/creds/{}", config.vault_database_mount, role.name), "read"));
    }
    rules_text(&rules)
}

/// What every session may do with itself.
fn session_rules() -> Vec<(String, &'static str)> {
    let rules = [
        ("auth/token/lookup-self", "read"),
        ("auth/token/renew-self", "update"),
        ("auth/token/revoke-self", "update"),
        ("sys/leases/renew", "update"),
    ];
    rules.map(|(path, capability)| (path.to_owned(), capability)).into()
}

fn rules_text(rules: &[(String, &str)]) -> String {
    let lines = rules.iter().map(|(path, capability)| {
        format!("path \"{path}\" {{ capabilities = [\"{capability}\"] }}\n")
    });
    lines.collect()
}

/// The tenant of a caller, as a Vault template.
pub(super) fn tenant(accessor: &str) -> String {
    format!("{{{{identity.entity.aliases.{accessor}.metadata.tenant}}}}")
}
