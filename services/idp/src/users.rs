//! Users, workloads and clients of the users file.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    path::Path,
};

use drawbridge_runtime::ConfigText;
use secrecy::SecretString;
use serde::Deserialize;

use crate::{StartError, secret};

const EMBEDDED: &str = include_str!("../users.toml");

/// A program with its own identity: a confidential client that may use the `client_credentials`
/// grant.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Workload {
    /// Its client id, which is also the subject of its tokens.
    pub client_id: String,
    /// Its secret.
    pub client_secret: SecretString,
    /// The groups in its tokens.
    #[serde(default)]
    pub groups: Vec<String>,
    /// Whether it may get tokens for the internal resources.
    #[serde(default = "yes")]
    pub internal: bool,
}

fn yes() -> bool {
    true
}

/// A public client that is configured rather than registered.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfiguredClient {
    /// Its client id.
    pub client_id: String,
    /// Its redirect URIs.
    pub redirect_uris: Vec<String>,
    /// Whether its users may get tokens for the internal resources.
    #[serde(default)]
    pub internal: bool,
}

/// A user. The user name is the subject of their tokens.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct User {
    pub(crate) username: String,
    password: SecretString,
    pub(crate) name: Option<String>,
    pub(crate) email: Option<String>,
    pub(crate) tenant: Option<String>,
    #[serde(default)]
    pub(crate) groups: Vec<String>,
    #[serde(default)]
    pub(crate) roles: Vec<String>,
    /// Whether their tokens claim more than one factor. This server never asks for a second one.
    #[serde(default)]
    pub(crate) mfa: bool,
}

/// The claims of a user's tokens besides the subject.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The groups.
    pub groups: Vec<String>,
    /// The roles.
    pub roles: Vec<String>,
    /// The tenant.
    pub tenant: Option<String>,
    /// The email address.
    pub email: Option<String>,
    /// Whether tokens claim more than one factor.
    pub mfa: bool,
}

/// The claims of a user in a users file, or in the embedded one. `None` if the user does not exist.
///
/// # Errors
/// If the file is invalid.
pub fn facts(path: Option<&Path>, username: &str) -> Result<Option<Facts>, StartError> {
    let facts = load(path, &[], &[])?.by_name.remove(username).map(|user| Facts {
        groups: user.groups,
        roles: user.roles,
        tenant: user.tenant,
        email: user.email,
        mfa: user.mfa,
    });
    Ok(facts)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct UsersFile {
    #[serde(default)]
    users: Vec<User>,
    #[serde(default)]
    workloads: Vec<Workload>,
    #[serde(default)]
    clients: Vec<ConfiguredClient>,
}

/// The tenants of the users in a users file, or in the embedded one.
///
/// # Errors
/// If the file is invalid.
pub fn tenants(users: Option<&Path>) -> Result<BTreeSet<String>, StartError> {
    Ok(load(users, &[], &[])?.by_name.into_values().filter_map(|user| user.tenant).collect())
}

#[derive(Debug)]
pub(crate) struct Users {
    by_name: HashMap<String, User>,
    pub(crate) workloads: Vec<Workload>,
    pub(crate) clients: Vec<ConfiguredClient>,
    /// The names of the embedded users, sorted, which are also their passwords. Empty with a users
    /// file.
    pub(crate) built_in: Vec<String>,
    /// Compared with if the user does not exist, so that the time taken does not reveal it.
    dummy_password: SecretString,
}

impl Users {
    /// The user with this name and password.
    pub(crate) fn sign_in(&self, username: &str, password: &str) -> Option<&User> {
        let user = self.by_name.get(username);
        let expected = user.map_or(&self.dummy_password, |user| &user.password);
        let is_correct = secret::matches(expected, password);
        user.filter(|_| is_correct)
    }

    pub(crate) fn get(&self, username: &str) -> Option<&User> {
        self.by_name.get(username)
    }
}

/// Reads the users file, or the embedded one, and adds `workloads` and `clients` to its contents.
pub(crate) fn load(
    path: Option<&Path>,
    workloads: &[Workload],
    clients: &[ConfiguredClient],
) -> Result<Users, StartError> {
    let text = path.map_or_else(
        || Ok(ConfigText::new("the embedded users file", EMBEDDED)),
        ConfigText::read,
    )?;
    // Errors do not quote lines, which may contain passwords.
    let mut parsed: UsersFile = text.parse_unquoted()?;
    parsed.workloads.extend_from_slice(workloads);
    parsed.clients.extend_from_slice(clients);

    let mut names = HashSet::new();
    let all = parsed.users.iter().map(|user| &user.username);
    let all = all.chain(parsed.workloads.iter().map(|workload| &workload.client_id));
    for name in all.chain(parsed.clients.iter().map(|client| &client.client_id)) {
        if !names.insert(name) {
            return Err(StartError::DuplicateName { name: name.clone() });
        }
    }
    let users = std::mem::take(&mut parsed.users);
    let built_in = users.iter().filter(|_| path.is_none()).map(|user| user.username.clone());
    let built_in = built_in.collect::<BTreeSet<_>>().into_iter().collect();
    let by_name = users.into_iter().map(|user| (user.username.clone(), user)).collect();
    let UsersFile { workloads, clients, .. } = parsed;
    let dummy_password = secret::random().into();
    Ok(Users { by_name, workloads, clients, built_in, dummy_password })
}
