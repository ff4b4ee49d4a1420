//! The desired objects in Vault, in the order of their dependencies.

use drawbridge_config::setup::{
    Approle, Authority, CertificateRole, Database, DatabaseRole, Kubernetes, ServiceAccount,
    ServiceSetup, Setup,
};
use drawbridge_credentials::VaultConfig;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};

use super::{AUDIT_DEVICE, policy};

/// The clock skew that Vault tolerates, in seconds. Its own default is a minute: as long as a token
/// lives.
const LEEWAY_SECONDS: u64 = 5;

/// Wanted of an object that only has to exist.
const ANYTHING: Value = Value::Null;

/// The names of database users, within the 63 bytes that PostgreSQL allows: by a hash of Vault's
/// display name of the login, which is its mount and its principal. So a schema can tell whom its
/// session acts for, whatever the service claims (docs/explanation/credentials.md).
const USERNAME_TEMPLATE: &str =
    r#"{{ printf "v-%s-%s-%s" (.DisplayName | sha256 | truncate 32) (random 8) (unix_time) }}"#;

/// One desired object.
pub(super) struct Step {
    pub(super) what: String,
    /// The path that is written, and read unless `list` is another path.
    pub(super) path: String,
    list: Option<String>,
    /// Its key in the response.
    pub(super) key: Option<String>,
    /// The expected content. Other fields may have any value.
    pub(super) wanted: Value,
    /// The content to write, if it differs from what is read.
    pub(super) write: Option<Value>,
    /// Whether it cannot be changed once it exists.
    pub(super) fixed: bool,
}

impl Step {
    fn new(what: String, path: String, wanted: Value) -> Self {
        Self { what, path, list: None, key: None, wanted, write: None, fixed: false }
    }

    fn policy(name: &str, text: String) -> Self {
        let path = format!("sys/policies/acl/{name}");
        Self::new(format!("policy {name}"), path, json!({ "policy": text }))
    }

    /// An object that is mounted at `name` and listed at `list`.
    fn mount(what: &str, list: &str, name: &str, wanted: Value) -> Self {
        let key = Some(format!("{name}/"));
        let step = Self::new(format!("{what} {name}"), format!("{list}/{name}"), wanted);
        Self { list: Some(list.to_owned()), key, fixed: true, ..step }
    }

    pub(super) fn read_at(&self) -> &str {
        self.list.as_deref().unwrap_or(&self.path)
    }
}

/// The audit device, first: it records the rest.
pub(super) fn audit(setup: &Setup) -> Option<Step> {
    let file = setup.audit_file.as_ref()?;
    let device = json!({ "type": "file", "options": { "file_path": file } });
    Some(Step::mount("audit device", "sys/audit", AUDIT_DEVICE, device))
}

/// The engines.
pub(super) fn mounts(config: &VaultConfig, setup: &Setup) -> Vec<Step> {
    let mut steps = Vec::new();
    // Audit is not configured in a namespace, but in the Vault that contains it.
    if config.vault_namespace.is_none() {
        let path = "sys/config/auditing/request-headers/x-request-id".to_owned();
        let header =
            Step::new("request ids in the audit log".to_owned(), path, json!({ "hmac": false }));
        steps.push(Step { key: Some("x-request-id".to_owned()), ..header });
    }
    let method = json!({ "type": "jwt" });
    steps.push(Step::mount("auth method", "sys/auth", &config.vault_auth_mount, method));
    let own = [
        (
            "kubernetes",
            &config.vault_kubernetes_mount,
            setup.services.iter().any(|service| service.kubernetes.is_some()),
        ),
        (
            "approle",
            &config.vault_approle_mount,
            setup.services.iter().any(|service| service.approle.is_some()),
        ),
    ];
    for (method, mount, used) in own {
        if used {
            steps.push(Step::mount("auth method", "sys/auth", mount, json!({ "type": method })));
        }
    }
    let kv = json!({ "type": "kv", "options": { "version": "2" } });
    steps.push(Step::mount("key-value store", "sys/mounts", &config.vault_kv_mount, kv));
    if setup.database.is_some() {
        let engine = json!({ "type": "database" });
        steps.push(Step::mount(
            "database engine",
            "sys/mounts",
            &config.vault_database_mount,
            engine,
        ));
    }
    if setup.services.iter().any(|service| !service.certificate_roles.is_empty()) {
        let engine = json!({ "type": "pki" });
        // An authority cannot outlive the engine's maximum lease.
        let longest = setup.pki.as_ref().map(|authority| format!("{}s", authority.ttl_seconds));
        let write =
            json!({ "type": "pki", "config": { "max_lease_ttl": longest.unwrap_or_default() } });
        let step = Step::mount("PKI engine", "sys/mounts", &config.vault_pki_mount, engine);
        steps.push(Step { write: Some(write), ..step });
    }
    steps
}

/// The settings in the engines.
pub(super) fn settings(
    config: &VaultConfig,
    setup: &Setup,
    accessor: &str,
    database_password: Option<&SecretString>,
) -> Vec<Step> {
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
        steps.push(connection(config, database, database_password, roles()));
        steps.extend(roles().map(|role| database_role(config, database, role)));
    }
    steps.extend(setup.pki.iter().map(|pki| authority(config, pki)));
    let roles = setup.services.iter().flat_map(|service| &service.certificate_roles);
    steps.extend(roles.map(|role| certificate_role(config, role, accessor)));
    if let Some(kubernetes) = &setup.kubernetes {
        let path = format!("auth/{}/config", config.vault_kubernetes_mount);
        steps.push(Step::new(
            "trust in Kubernetes".to_owned(),
            path,
            trust_in_kubernetes(kubernetes),
        ));
    }
    for service in &setup.services {
        let policy = service.policy();
        steps.push(Step::policy(&policy, policy::caller_policy(config, service, accessor)));
        steps.push(Step::new(
            format!("login of {}", service.name),
            format!("auth/{auth}/role/{}", service.name),
            login_role(service, &policy),
        ));
        steps.extend(service_login(config, service));
    }
    steps
}

/// The policy of a service in its own name, and its logins.
fn service_login(config: &VaultConfig, service: &ServiceSetup) -> Vec<Step> {
    let Some(policy) = service.own_policy() else { return Vec::new() };
    let mut steps = vec![Step::policy(&policy, policy::service_policy(config, service))];
    let roles = [
        service
            .kubernetes
            .as_ref()
            .map(|it| (&config.vault_kubernetes_mount, "Kubernetes", account(it))),
        service.approle.as_ref().map(|it| (&config.vault_approle_mount, "AppRole", approle(it))),
    ];
    for (mount, method, mut role) in roles.into_iter().flatten() {
        role["token_policies"] = json!([policy]);
        role["token_no_default_policy"] = json!(true);
        role["token_ttl"] = json!(service.ttl_seconds);
        role["token_max_ttl"] = json!(service.max_ttl_seconds);
        let what = format!("own login of {} by {method}", service.name);
        steps.push(Step::new(what, format!("auth/{mount}/role/{}", service.name), role));
    }
    steps
}

fn trust_in_kubernetes(kubernetes: &Kubernetes) -> Value {
    json!({
        // Vault stores it unchanged, and appends no slash.
        "kubernetes_host": kubernetes.host.as_str().trim_end_matches('/'),
        "kubernetes_ca_cert": kubernetes.ca_certificate.as_deref().unwrap_or_default(),
        "disable_local_ca_jwt": kubernetes.ca_certificate.is_some(),
    })
}

fn account(account: &ServiceAccount) -> Value {
    json!({
        "bound_service_account_names": [account.service_account],
        "bound_service_account_namespaces": [account.namespace],
        "audience": account.audience.as_deref().unwrap_or_default(),
    })
}

fn approle(approle: &Approle) -> Value {
    json!({ "bind_secret_id": true, "secret_id_ttl": approle.secret_id_ttl_seconds })
}

fn connection<'a>(
    config: &VaultConfig,
    database: &Database,
    password: Option<&SecretString>,
    roles: impl Iterator<Item = &'a DatabaseRole>,
) -> Step {
    let path = format!("{}/config/{}", config.vault_database_mount, database.name);
    let Database { connection_url, username, .. } = database;
    let mut allowed: Vec<_> = roles.map(|role| role.name.as_str()).collect();
    allowed.sort_unstable();
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
        "password": password.map(SecretString::expose_secret),
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

/// An authority, which is created once: a PKI engine that has one keeps it.
fn authority(config: &VaultConfig, authority: &Authority) -> Step {
    let Authority { common_name, ttl_seconds } = authority;
    let pki = &config.vault_pki_mount;
    let generate = json!({
        "common_name": common_name,
        "ttl": ttl_seconds,
        "key_type": "ec",
        "key_bits": 256,
    });
    Step {
        list: Some(format!("{pki}/config/issuers")),
        key: Some("default".to_owned()),
        write: Some(generate),
        ..Step::new("authority".to_owned(), format!("{pki}/root/generate/internal"), ANYTHING)
    }
}

fn certificate_role(config: &VaultConfig, role: &CertificateRole, accessor: &str) -> Step {
    let domain = |domain: &String| domain.replace("{{tenant}}", &policy::tenant(accessor));
    let wanted = json!({
        "allowed_domains": role.allowed_domains.iter().map(domain).collect::<Vec<_>>(),
        "allowed_domains_template": true,
        "allow_bare_domains": true,
        "allow_subdomains": role.allow_subdomains,
        "allow_wildcard_certificates": false,
        "allow_localhost": false,
        "allow_ip_sans": false,
        "key_type": "ec",
        "key_bits": 256,
        "ttl": role.ttl_seconds,
        "max_ttl": role.ttl_seconds,
        // They are revoked with the session.
        "generate_lease": true,
    });
    let path = format!("{}/roles/{}", config.vault_pki_mount, role.name);
    Step::new(format!("certificate role {}", role.name), path, wanted)
}

fn login_role(service: &ServiceSetup, policy: &str) -> Value {
    json!({
        "role_type": "jwt",
        // Issuer, subject and tenant: no other principal becomes the same user of Vault.
        "user_claim": "/tctx/principal",
        "user_claim_json_pointer": true,
        "bound_audiences": [service.name],
        "bound_claims_type": "glob",
        // In a list, as Terraform writes it.
        "bound_claims": { "/tctx/rpc": [rpcs(service)] },
        "claim_mappings": {
            "sub": "subject",
            "txn": "request_id",
            "/tctx/iss": "issuer",
            "/tctx/tenant": "tenant",
            "/act/sub": "actor",
            "/act/iss": "actor_issuer",
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

/// The RPCs whose transaction tokens log in.
fn rpcs(service: &ServiceSetup) -> String {
    service.rpcs.clone().unwrap_or_else(|| format!("drawbridge.{}.*", service.name))
}

/// Whether `current` contains all of `wanted`. It may have more fields.
pub(super) fn contains(current: &Value, wanted: &Value) -> bool {
    match (current, wanted) {
        (Value::Object(current), Value::Object(wanted)) => wanted.iter().all(|(name, wanted)| {
            current.get(name).is_some_and(|current| contains(current, wanted))
        }),
        (Value::Null, Value::Array(wanted)) => wanted.is_empty(),
        (_, &ANYTHING) => true,
        _ => current == wanted,
    }
}
