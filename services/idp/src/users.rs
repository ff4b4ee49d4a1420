//! Who may sign in, and which workloads have an identity of their own.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    path::Path,
};

use drawbridge_sdk::ConfigText;
use secrecy::SecretString;
use serde::Deserialize;

use crate::{StartError, secret};

const EMBEDDED: &str = include_str!("../users.toml");

/// A program with an identity of its own: a confidential client that may use the `client_credentials` grant.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Workload {
    /// Its client id, which is also the subject of its tokens.
    pub client_id: String,
    /// What it proves itself with.
    pub client_secret: SecretString,
    /// The groups that its tokens name.
    #[serde(default)]
    pub groups: Vec<String>,
    /// Whether its tokens may be for the internal resources.
    #[serde(default = "yes")]
    pub internal: bool,
}

fn yes() -> bool {
    true
}

/// A public client that is known beforehand and does not register itself.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfiguredClient {
    /// Its client id.
    pub client_id: String,
    /// Where its users are sent back to.
    pub redirect_uris: Vec<String>,
    /// Whether the tokens of its users may be for the internal resources.
    #[serde(default)]
    pub internal: bool,
}

/// A person who may sign in. The username is the subject of their tokens.
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
    /// Whether their tokens say that they showed more than one factor. Nobody is asked for a second one here.
    #[serde(default)]
    pub(crate) mfa: bool,
}

/// What the tokens of a person say, besides who it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The groups.
    pub groups: Vec<String>,
    /// The roles.
    pub roles: Vec<String>,
    /// The tenant.
    pub tenant: Option<String>,
    /// The address.
    pub email: Option<String>,
    /// Whether more than one factor was shown.
    pub mfa: bool,
}

/// What a users file, or the embedded one, says of a person. None when there is no such person.
///
/// # Errors
/// When the file cannot be used.
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
/// When the file cannot be used.
pub fn tenants(users: Option<&Path>) -> Result<BTreeSet<String>, StartError> {
    Ok(load(users, &[], &[])?.by_name.into_values().filter_map(|user| user.tenant).collect())
}

#[derive(Debug)]
pub(crate) struct Users {
    by_name: HashMap<String, User>,
    pub(crate) workloads: Vec<Workload>,
    pub(crate) clients: Vec<ConfiguredClient>,
    /// The names of the embedded users, sorted, each of whom has it as password. Empty with a users file.
    pub(crate) built_in: Vec<String>,
    /// Compared with when there is no such user, so that the time taken does not tell.
    nobody: SecretString,
}

impl Users {
    /// The user with this name and password.
    pub(crate) fn sign_in(&self, username: &str, password: &str) -> Option<&User> {
        let user = self.by_name.get(username);
        let expected = user.map_or(&self.nobody, |user| &user.password);
        let right = secret::matches(expected, password);
        user.filter(|_| right)
    }

    pub(crate) fn get(&self, username: &str) -> Option<&User> {
        self.by_name.get(username)
    }
}

/// Reads the users file, or the embedded one, and adds `workloads` and `clients` to its own.
pub(crate) fn load(
    path: Option<&Path>,
    workloads: &[Workload],
    clients: &[ConfiguredClient],
) -> Result<Users, StartError> {
    let text = path.map_or_else(
        || Ok(ConfigText::new("the embedded users file", EMBEDDED)),
        ConfigText::read,
    )?;
    // A line may hold a password.
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
    Ok(Users { by_name, workloads, clients, built_in, nobody: secret::random().into() })
}
