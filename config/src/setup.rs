//! The setup of a Vault for tool services.

use std::collections::HashSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use url::Url;

use crate::{ConfigError, ConfigText, Mistakes, Spanned};

/// The setup of a Vault: whose transaction tokens it trusts, and what each tool service may have.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
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

/// A PostgreSQL whose users Vault creates. The password of Vault's own user is not in the file.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Database {
    /// Its name in Vault.
    #[serde(default = "database_name")]
    pub name: String,
    /// Its URL, with `{{username}}` and `{{password}}` in place of those of Vault's own user.
    pub connection_url: String,
    /// Vault's own user, which may create others.
    pub username: String,
}

/// An authority of Vault's own, whose key never leaves it.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Authority {
    /// The name in its certificate.
    pub common_name: String,
    /// The lifetime of its certificate, in seconds.
    #[serde(default = "authority_ttl_seconds")]
    pub ttl_seconds: u64,
}

/// A Kubernetes whose service accounts log in.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
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
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServiceSetup {
    /// Its name: the audience of its transaction tokens.
    pub name: Spanned<String>,
    /// The RPCs whose transaction tokens log in, with `*` for any text. Absent: those of its
    /// protobuf package.
    pub rpcs: Option<String>,
    /// How long a login lasts before it is renewed, in seconds.
    #[serde(default = "ttl_seconds")]
    pub ttl_seconds: Spanned<u64>,
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
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CertificateRole {
    /// The name of the role.
    pub name: Spanned<String>,
    /// The names that certificates may have. `{{tenant}}` is the caller's tenant, as Vault knows
    /// it.
    pub allowed_domains: Vec<String>,
    /// Whether subdomains of those names are allowed too.
    #[serde(default)]
    pub allow_subdomains: bool,
    /// The lifetime of a certificate, in seconds.
    #[serde(default = "ttl_seconds")]
    pub ttl_seconds: Spanned<u64>,
}

/// A service account of Kubernetes.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
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
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Approle {
    /// How long a secret id is valid, in seconds.
    #[serde(default = "secret_id_ttl_seconds")]
    pub secret_id_ttl_seconds: u64,
}

/// A role for database users.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DatabaseRole {
    /// The name of the role.
    pub name: Spanned<String>,
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
    pub ttl_seconds: Spanned<u64>,
    /// The maximum lifetime with renewals, in seconds.
    #[serde(default = "max_ttl_seconds")]
    pub max_ttl_seconds: u64,
}

impl ServiceSetup {
    /// The name of the policy of its callers.
    #[must_use]
    pub fn policy(&self) -> String {
        format!("drawbridge-{}", self.name)
    }

    /// The name of the policy of the service itself, if it needs one.
    #[must_use]
    pub fn own_policy(&self) -> Option<String> {
        let own = self.kubernetes.is_some() || self.approle.is_some();
        let own = own || self.database_roles.iter().any(|role| role.own);
        own.then(|| format!("drawbridge-{}-own", self.name))
    }

    /// The names of its roles, with their engines.
    fn roles(&self) -> impl Iterator<Item = (&'static str, &Spanned<String>)> {
        let databases = self.database_roles.iter().map(|role| ("database", &role.name));
        databases.chain(self.certificate_roles.iter().map(|role| ("PKI", &role.name)))
    }

    /// Lifetimes that exceed their maximum, with it.
    fn excessive_lifetimes(&self) -> impl Iterator<Item = (&Spanned<u64>, u64)> {
        let roles =
            self.database_roles.iter().map(|role| (&role.ttl_seconds, role.max_ttl_seconds));
        let all = [(&self.ttl_seconds, self.max_ttl_seconds)].into_iter().chain(roles);
        all.filter(|(ttl, max)| ***ttl > *max)
    }
}

impl Setup {
    /// Names that would match more than themselves in a policy, or that are used twice, with what
    /// is wrong.
    #[must_use]
    pub fn invalid_names(&self) -> Vec<(&Spanned<String>, &'static str)> {
        let mut invalid = Vec::new();
        let (mut services, mut policies, mut roles) =
            (HashSet::new(), HashSet::new(), HashSet::new());
        let malformed = "the name is not a path segment of letters, digits, `.`, `_` and `-`";
        for service in &self.services {
            if !is_path_segment(&service.name) {
                invalid.push((&service.name, malformed));
            } else if !services.insert(service.name.as_str()) {
                invalid.push((&service.name, "this service is set up twice"));
            } else {
                let own = [Some(service.policy()), service.own_policy()];
                if own.into_iter().flatten().any(|policy| !policies.insert(policy)) {
                    let problem = "its policy in Vault has the same name as another service's";
                    invalid.push((&service.name, problem));
                }
            }
            for (engine, name) in service.roles() {
                if !is_path_segment(name) {
                    invalid.push((name, malformed));
                } else if !roles.insert((engine, name.as_str())) {
                    invalid.push((name, "this role is set up twice"));
                }
            }
        }
        invalid
    }
}

/// Reads the setup of a Vault.
///
/// # Errors
/// The mistakes of the file.
pub fn read(text: &ConfigText) -> Result<Setup, ConfigError> {
    let mut mistakes = Mistakes::new(text);
    let setup: Option<Setup> = mistakes.parse();
    for (name, problem) in setup.iter().flat_map(Setup::invalid_names) {
        mistakes.push(name.span(), problem);
    }
    for service in setup.iter().flat_map(|setup| &setup.services) {
        for (ttl, max) in service.excessive_lifetimes() {
            mistakes.push_combined(
                ttl.span(),
                format!("ttl_seconds must be at most max_ttl_seconds, which is {max}"),
            );
        }
    }
    mistakes.finish(setup)
}

/// Whether a text is safe as one segment of a Vault path and in a policy.
fn is_path_segment(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    !text.is_empty() && text.bytes().all(allowed) && !text.bytes().all(|byte| byte == b'.')
}

fn auth_issuer() -> String {
    "drawbridge-auth".to_owned()
}

fn database_name() -> String {
    "postgres".to_owned()
}

fn ttl_seconds() -> Spanned<u64> {
    300.into()
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
        let setup: Setup = ConfigText::new("setup.toml", text).parse().unwrap();
        setup.invalid_names().first().map(|(name, _)| name.to_string())
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
