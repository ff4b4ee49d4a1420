use std::collections::HashSet;

use secrecy::SecretString;
use serde::Deserialize;
use url::Url;

use crate::is_path_segment;

/// The name of the audit device.
pub(super) const AUDIT_DEVICE: &str = "drawbridge";

/// The setup of a Vault, written as TOML.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Setup {
    /// The URL of auth's keys for transaction tokens, as Vault reaches it.
    pub jwks_url: Url,
    /// The `iss` of transaction tokens.
    #[serde(default = "auth_issuer")]
    pub auth_issuer: String,
    /// The file of the audit device. Absent: audit is set up elsewhere.
    pub audit_file: Option<String>,
    /// The database whose users Vault creates.
    pub database: Option<Database>,
    /// The authority that issues certificates. Absent: its PKI engine gets one elsewhere.
    pub pki: Option<Authority>,
    /// The Kubernetes whose service accounts log in. Absent: its auth method is configured
    /// elsewhere.
    pub kubernetes: Option<Kubernetes>,
    /// The tool services.
    #[serde(default, rename = "service")]
    pub services: Vec<ServiceSetup>,
}

/// A PostgreSQL whose users Vault creates.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Database {
    /// Its name in Vault.
    #[serde(default = "database_name")]
    pub name: String,
    /// Its URL, with `{{username}}` and `{{password}}` in place of those of Vault's own user.
    pub connection_url: String,
    /// Vault's own user, which may create others.
    pub username: String,
    /// Its password, which is not in the file. Vault gets it when the connection is created or
    /// changed.
    #[serde(skip)]
    pub password: SecretString,
}

/// An authority of Vault's own, whose key never leaves it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Authority {
    /// The name in its certificate.
    pub common_name: String,
    /// The lifetime of its certificate, in seconds.
    #[serde(default = "authority_ttl_seconds")]
    pub ttl_seconds: u64,
}

/// A Kubernetes whose service accounts log in.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kubernetes {
    /// The URL of its API, as Vault reaches it.
    pub host: Url,
    /// The PEM of the authorities that are trusted for its certificate. Vault calls it with the
    /// token of the service that logs in, whose service account needs the role
    /// `system:auth-delegator`. Absent: Vault runs in a pod of the same Kubernetes, and uses that
    /// pod's own token.
    pub ca_certificate: Option<String>,
}

/// One tool service.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceSetup {
    /// Its name: the audience of its transaction tokens.
    pub name: String,
    /// The RPCs whose transaction tokens log in, with `*` for any text. Absent: those of its
    /// protobuf package.
    pub rpcs: Option<String>,
    /// How long a login lasts before it is renewed, in seconds.
    #[serde(default = "ttl_seconds")]
    pub ttl_seconds: u64,
    /// The maximum lifetime with renewals, in seconds.
    #[serde(default = "max_ttl_seconds")]
    pub max_ttl_seconds: u64,
    /// Its roles in the database.
    #[serde(default, rename = "database_role")]
    pub database_roles: Vec<DatabaseRole>,
    /// The certificates that it gets for its callers.
    #[serde(default, rename = "certificate_role")]
    pub certificate_roles: Vec<CertificateRole>,
    /// The service account that it logs in with in its own name.
    pub kubernetes: Option<ServiceAccount>,
    /// Its login in its own name by a role id and a secret id.
    pub approle: Option<Approle>,
}

/// A role for certificates.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertificateRole {
    /// The name of the role.
    pub name: String,
    /// The names that certificates may have. `{{tenant}}` is the caller's tenant, as Vault knows
    /// it.
    pub allowed_domains: Vec<String>,
    /// Whether subdomains of those names are allowed too.
    #[serde(default)]
    pub allow_subdomains: bool,
    /// The lifetime of a certificate, in seconds.
    #[serde(default = "ttl_seconds")]
    pub ttl_seconds: u64,
}

/// A service account of Kubernetes.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceAccount {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub service_account: String,
    /// The audience that its tokens must name. Absent: any.
    pub audience: Option<String>,
}

/// A login by role id and secret id.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approle {
    /// How long a secret id is valid, in seconds.
    #[serde(default = "secret_id_ttl_seconds")]
    pub secret_id_ttl_seconds: u64,
}

/// A role for database users.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseRole {
    /// The name of the role.
    pub name: String,
    /// Whether it is the service's own role: no caller has it, and no transaction token reaches it.
    #[serde(default)]
    pub own: bool,
    /// The SQL that creates a user, with `{{name}}`, `{{password}}` and `{{expiration}}`.
    pub creation_statements: Vec<String>,
    /// The SQL that removes a user. Absent: Vault's default, which revokes and drops.
    #[serde(default)]
    pub revocation_statements: Vec<String>,
    /// How long a user lasts before it is renewed, in seconds.
    #[serde(default = "ttl_seconds")]
    pub ttl_seconds: u64,
    /// The maximum lifetime with renewals, in seconds.
    #[serde(default = "max_ttl_seconds")]
    pub max_ttl_seconds: u64,
}

impl ServiceSetup {
    pub(super) fn rpcs(&self) -> String {
        self.rpcs.clone().unwrap_or_else(|| format!("drawbridge.{}.*", self.name))
    }

    /// The name of the policy of its callers.
    pub(super) fn policy(&self) -> String {
        format!("drawbridge-{}", self.name)
    }

    /// The name of the policy of the service itself, if it needs one.
    pub(super) fn own_policy(&self) -> Option<String> {
        let own = self.kubernetes.is_some() || self.approle.is_some();
        let own = own || self.database_roles.iter().any(|role| role.own);
        own.then(|| format!("drawbridge-{}-own", self.name))
    }
}

impl Setup {
    /// The text for an OpenBao's config that replaces the audit device that its API does not
    /// accept, if the setup has one.
    #[must_use]
    pub fn audit_config(&self) -> Option<String> {
        let file = self.audit_file.as_ref()?;
        // A string in HCL is written as in JSON.
        let file = serde_json::Value::from(file.as_str());
        Some(format!(
            "audit \"file\" \"{AUDIT_DEVICE}\" {{\n  options {{\n    file_path = {file}\n  }}\n}}"
        ))
    }

    /// A name that would match more than itself in a policy, or that is used twice.
    pub(super) fn invalid_name(&self) -> Option<&str> {
        let (mut policies, mut names) = (HashSet::new(), HashSet::new());
        for service in &self.services {
            let new = policies.insert(service.policy())
                && service.own_policy().is_none_or(|policy| policies.insert(policy));
            if !new || !is_path_segment(&service.name) {
                return Some(&service.name);
            }
            let databases = service.database_roles.iter().map(|role| ("database", &role.name));
            let certificates = service.certificate_roles.iter().map(|role| ("pki", &role.name));
            for (kind, name) in databases.chain(certificates) {
                if !is_path_segment(name) || !names.insert((kind, name)) {
                    return Some(name);
                }
            }
        }
        None
    }
}

fn auth_issuer() -> String {
    "drawbridge-auth".to_owned()
}

fn database_name() -> String {
    "postgres".to_owned()
}

const fn ttl_seconds() -> u64 {
    300
}

const fn authority_ttl_seconds() -> u64 {
    5 * 365 * 24 * 60 * 60
}

const fn secret_id_ttl_seconds() -> u64 {
    24 * 60 * 60
}

const fn max_ttl_seconds() -> u64 {
    3600
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invalid_name(services: &str) -> Option<String> {
        let text = format!("jwks_url = \"http://auth/jwks\"\n{services}");
        let setup: Setup = toml::from_str(&text).unwrap();
        setup.invalid_name().map(str::to_owned)
    }

    #[test]
    fn a_name_is_unique_and_a_plain_path_segment() {
        let service = |name: &str| format!("[[service]]\nname = \"{name}\"\n");
        let role = |name: &str, own| {
            format!(
                "[[service.database_role]]\nname = \"{name}\"\nown = {own}\n\
                 creation_statements = []\n"
            )
        };
        let (code, tickets) = (service("code"), service("tickets"));
        assert_eq!(
            invalid_name(&[code.as_str(), &tickets, &role("a", true), &role("b", false)].concat()),
            None
        );
        assert_eq!(invalid_name(&[code.as_str(), &code].concat()).unwrap(), "code");
        assert_eq!(
            invalid_name(&[code.as_str(), &role("a", true), &tickets, &role("a", false)].concat())
                .unwrap(),
            "a"
        );
        // The policy of its callers would be that of the other service itself.
        assert_eq!(
            invalid_name(&[code.as_str(), &role("a", true), &service("code-own")].concat())
                .unwrap(),
            "code-own"
        );
        for name in ["", "+", "*", "code/x", ".."] {
            assert_eq!(invalid_name(&service(name)).as_deref(), Some(name));
            assert_eq!(
                invalid_name(&[code.as_str(), &role(name, false)].concat()).as_deref(),
                Some(name)
            );
        }
    }
}
