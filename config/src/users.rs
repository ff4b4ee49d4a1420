//! The users file of the development authorization server.

use schemars::JsonSchema;
use secrecy::SecretString;
use serde::Deserialize;

use crate::Spanned;

/// The users, programs and clients of the development authorization server. It holds passwords.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct UsersFile {
    /// The users.
    pub users: Vec<User>,
    /// The programs with their own identities.
    pub workloads: Vec<Workload>,
    /// The clients that do not register themselves.
    pub clients: Vec<ConfiguredClient>,
}

/// A user. The user name is the subject of their tokens.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// The name that they sign in with.
    pub username: Spanned<String>,
    /// The password that they sign in with.
    #[schemars(with = "String")]
    pub password: SecretString,
    /// The name that the consent page shows.
    pub name: Option<String>,
    /// Their email address.
    pub email: Option<String>,
    /// Their tenant.
    pub tenant: Option<String>,
    /// Their groups.
    #[serde(default)]
    pub groups: Vec<String>,
    /// Their roles.
    #[serde(default)]
    pub roles: Vec<String>,
    /// Whether their tokens claim more than one factor. The server never asks for a second one.
    #[serde(default)]
    pub mfa: bool,
}

/// A program with its own identity: a confidential client that may use the `client_credentials`
/// grant.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Workload {
    /// Its client id, which is also the subject of its tokens.
    pub client_id: Spanned<String>,
    /// Its secret.
    #[schemars(with = "String")]
    pub client_secret: SecretString,
    /// The groups in its tokens.
    #[serde(default)]
    pub groups: Vec<String>,
    /// Whether it may get tokens for the internal resources.
    #[serde(default = "yes")]
    pub internal: bool,
}

const fn yes() -> bool {
    true
}

/// A public client that is configured rather than registered.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConfiguredClient {
    /// Its client id.
    pub client_id: Spanned<String>,
    /// Its redirect URIs.
    pub redirect_uris: Vec<Spanned<String>>,
    /// Whether its users may get tokens for the internal resources.
    #[serde(default)]
    pub internal: bool,
}
