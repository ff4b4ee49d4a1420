//! What there should be in Vault, in the order in which one thing needs the other.

use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use super::setup::{Database, DatabaseRole, ServiceSetup, Setup};
use crate::credentials::vault::VaultConfig;

/// Clock difference that Vault forgives, in seconds. Its own default is a minute: as long as a token lives.
const LEEWAY_SECONDS: u64 = 5;

/// How database users are named, in at most the 63 bytes that PostgreSQL takes: by a hash of what Vault calls the login
/// that they are made for, its mount and its principal. A schema can so tell whom its session acts for, whatever the
/// service says (docs/credentials.md).
const USERNAME_TEMPLATE: &str =
    r#"{{ printf "v-%s-%s-%s" (.DisplayName | sha256 | truncate 32) (random 8) (unix_time) }}"#;

/// One thing that there should be.
pub(super) struct Step {
    pub(super) what: String,
    /// Where it is written, and read unless `list` names another path.
    pub(super) path: String,
    list: Option<&'static str>,
    /// Where it stands in what is read.
    pub(super) key: Option<String>,
    /// What is to be found there. Other fields may be as they are.
    pub(super) wanted: Value,
    /// What is written, where that is not what is read.
    pub(super) write: Option<Value>,
    /// Whether it cannot be changed once it is there.
    pub(super) fixed: bool,
}

impl Step {
    fn new(what: String, path: String, wanted: Value) -> Self {
        Self { what, path, list: None, key: None, wanted, write: None, fixed: false }
    }

    /// Something that is mounted at `name`, one of those that `list` shows.
    fn mount(what: &str, list: &'static str, name: &str, wanted: Value) -> Self {
        let key = Some(format!("{name}/"));
        let step = Self::new(format!("{what} {name}"), format!("{list}/{name}"), wanted);
        Self { list: Some(list), key, fixed: true, ..step }
    }

    pub(super) fn read_at(&self) -> &str {
        self.list.unwrap_or(&self.path)
    }
}

/// The engines, and the audit device before all else: it sees the rest.
pub(super) fn mounts(config: &VaultConfig, setup: &Setup) -> Vec<Step> {
    let mut steps = Vec::new();
    if let Some(file) = &setup.audit_file {
        let device = json!({ "type": "file", "options": { "file_path": file } });
        steps.push(Step::mount("audit device", "sys/audit", "drawbridge", device));
    }
    let path = "sys/config/auditing/request-headers/x-request-id".to_owned();
    let header = Step::new("request ids in the audit log".to_owned(), path, json!({ "hmac": false }));
    steps.push(Step { key: Some("x-request-id".to_owned()), ..header });
    let method = json!({ "type": "jwt" });
    steps.push(Step::mount("auth method", "sys/auth", &config.vault_auth_mount, method));
    let kv = json!({ "type": "kv", "options": { "version": "2" } });
    steps.push(Step::mount("key-value store", "sys/mounts", &config.vault_kv_mount, kv));
    if setup.database.is_some() {
        let engine = json!({ "type": "database" });
        steps.push(Step::mount("database engine", "sys/mounts", &config.vault_database_mount, engine));
    }
    steps
}

/// What is set up in them.
pub(super) fn settings(config: &VaultConfig, setup: &Setup, accessor: &str) -> Vec<Step> {
    let auth = &config.vault_auth_mount;
    let trust = json!({
        "jwks_url": setup.jwks_url,
        "bound_issuer": setup.auth_issuer,
        "jwt_supported_algs": ["EdDSA"],
    });
    let what = "trust in transaction tokens".to_owned();
    let mut steps = vec![Step::new(what, format!("auth/{auth}/config"), trust)];
    if let Some(database) = &setup.database {
        let roles = || setup.services.iter().flat_map(|service| &service.database_roles);
        steps.push(connection(config, database, roles()));
        steps.extend(roles().map(|role| database_role(config, database, role)));
    }
    for service in &setup.services {
        let policy = format!("drawbridge-{}", service.name);
        steps.push(Step::new(
            format!("policy {policy}"),
            format!("sys/policies/acl/{policy}"),
            json!({ "policy": policy_text(config, service, accessor) }),
        ));
        steps.push(Step::new(
            format!("login of {}", service.name),
            format!("auth/{auth}/role/{}", service.name),
            login_role(service, &policy),
        ));
    }
    steps
}

fn connection<'a>(
    config: &VaultConfig,
    database: &Database,
    roles: impl Iterator<Item = &'a DatabaseRole>,
) -> Step {
    let path = format!("{}/config/{}", config.vault_database_mount, database.name);
    let Database { connection_url, username, password, .. } = database;
    let allowed: Vec<_> = roles.map(|role| role.name.as_str()).collect();
    let plugin = "postgresql-database-plugin";
    let wanted = json!({
        "plugin_name": plugin,
        "allowed_roles": allowed,
        "connection_details": {
            "connection_url": connection_url,
            "username": username,
            "username_template": USERNAME_TEMPLATE,
        },
    });
    let write = json!({
        "plugin_name": plugin,
        "allowed_roles": allowed,
        "connection_url": connection_url,
        "username": username,
        "username_template": USERNAME_TEMPLATE,
        "password": password.expose_secret(),
    });
    Step { write: Some(write), ..Step::new(format!("database {}", database.name), path, wanted) }
}

fn database_role(config: &VaultConfig, database: &Database, role: &DatabaseRole) -> Step {
    let path = format!("{}/roles/{}", config.vault_database_mount, role.name);
    let wanted = json!({
        "db_name": database.name,
        "creation_statements": role.creation_statements,
        "revocation_statements": role.revocation_statements,
        "default_ttl": role.ttl_seconds,
        "max_ttl": role.max_ttl_seconds,
    });
    Step::new(format!("database role {}", role.name), path, wanted)
}

fn login_role(service: &ServiceSetup, policy: &str) -> Value {
    json!({
        "role_type": "jwt",
        // Issuer, subject and tenant: nobody else becomes the same user of Vault.
        "user_claim": "/tctx/principal",
        "user_claim_json_pointer": true,
        "bound_audiences": [service.name],
        "bound_claims_type": "glob",
        "bound_claims": { "/tctx/rpc": service.rpcs() },
        "claim_mappings": {
            "sub": "subject",
            "txn": "request_id",
            "/tctx/iss": "issuer",
            "/tctx/tenant": "tenant",
        },
        "clock_skew_leeway": LEEWAY_SECONDS,
        "expiration_leeway": LEEWAY_SECONDS,
        "not_before_leeway": LEEWAY_SECONDS,
        "token_policies": [policy],
        "token_no_default_policy": true,
        "token_ttl": service.ttl_seconds,
        "token_max_ttl": service.max_ttl_seconds,
    })
}

/// What a service may do in a caller's name.
fn policy_text(config: &VaultConfig, service: &ServiceSetup, accessor: &str) -> String {
    let own = [
        ("auth/token/lookup-self", "read"),
        ("auth/token/renew-self", "update"),
        ("auth/token/revoke-self", "update"),
        ("sys/leases/renew", "update"),
    ];
    let mut rules: Vec<_> = own.map(|(path, capability)| (path.to_owned(), capability)).into();
    let VaultConfig { vault_kv_mount: kv, vault_database_mount: database, .. } = config;
    let tenant = format!("{{{{identity.entity.aliases.{accessor}.metadata.tenant}}}}");
    rules.push((format!("{kv}/data/{tenant}/{}/*", service.name), "read"));
    for role in &service.database_roles {
        rules.push((format!("{database}/creds/{}", role.name), "read"));
    }
    let rules = rules.iter().map(|(path, can)| format!("path \"{path}\" {{ capabilities = [\"{can}\"] }}\n"));
    rules.collect()
}

/// Whether all of `wanted` is in `current`, which may have more fields.
pub(super) fn contains(current: &Value, wanted: &Value) -> bool {
    match (current, wanted) {
        (Value::Object(current), Value::Object(wanted)) => wanted
            .iter()
            .all(|(name, wanted)| current.get(name).is_some_and(|current| contains(current, wanted))),
        (Value::Null, Value::Array(wanted)) => wanted.is_empty(),
        _ => current == wanted,
    }
}
