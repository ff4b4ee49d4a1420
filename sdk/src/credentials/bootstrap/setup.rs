use secrecy::SecretString;
use serde::Deserialize;
use url::Url;

/// What a Vault is set up for. It is written as TOML.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Setup {
    /// Where auth publishes the keys of transaction tokens, as Vault reaches it.
    pub jwks_url: Url,
    /// The `iss` of transaction tokens.
    #[serde(default = "auth_issuer")]
    pub auth_issuer: String,
    /// The file of the audit device. Absent: audit is set up by somebody else.
    pub audit_file: Option<String>,
    /// The database whose users Vault makes.
    pub database: Option<Database>,
    /// The tool services.
    #[serde(default, rename = "service")]
    pub services: Vec<ServiceSetup>,
}

/// A PostgreSQL whose users Vault makes.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Database {
    /// What Vault calls it.
    #[serde(default = "database_name")]
    pub name: String,
    /// Where it is, with `{{username}}` and `{{password}}` where those of Vault's own user go.
    pub connection_url: String,
    /// Vault's own user, who may make others.
    pub username: String,
    /// Its password, which does not stand in the file. Vault is given it when the connection is made or changed.
    #[serde(skip)]
    pub password: SecretString,
}

/// One tool service.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceSetup {
    /// Its name: the audience of its transaction tokens.
    pub name: String,
    /// The RPCs whose transaction tokens log in, with `*` for any text. Absent: those of its protobuf package.
    pub rpcs: Option<String>,
    /// For how long a login lasts before it is renewed, in seconds.
    #[serde(default = "ttl_seconds")]
    pub ttl_seconds: u64,
    /// For how long it can be renewed, in seconds.
    #[serde(default = "max_ttl_seconds")]
    pub max_ttl_seconds: u64,
    /// Its roles in the database.
    #[serde(default, rename = "database_role")]
    pub database_roles: Vec<DatabaseRole>,
}

/// What a database user may do.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseRole {
    /// The name of the role.
    pub name: String,
    /// The SQL that makes a user, with `{{name}}`, `{{password}}` and `{{expiration}}`.
    pub creation_statements: Vec<String>,
    /// The SQL that takes a user away. Absent: Vault's own, which revokes and drops.
    #[serde(default)]
    pub revocation_statements: Vec<String>,
    /// For how long a user lasts before it is renewed, in seconds.
    #[serde(default = "ttl_seconds")]
    pub ttl_seconds: u64,
    /// For how long it can be renewed, in seconds.
    #[serde(default = "max_ttl_seconds")]
    pub max_ttl_seconds: u64,
}

impl ServiceSetup {
    pub(super) fn rpcs(&self) -> String {
        self.rpcs.clone().unwrap_or_else(|| format!("drawbridge.{}.*", self.name))
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

const fn max_ttl_seconds() -> u64 {
    3600
}
