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

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct UsersFile {
    #[serde(default)]
    users: Vec<User>,
    #[serde(default)]
    workloads: Vec<Workload>,
}

/// The tenants of the users in a users file, or in the embedded one.
///
/// # Errors
/// When the file cannot be used.
pub fn tenants(users: Option<&Path>) -> Result<BTreeSet<String>, StartError> {
    Ok(load(users, &[])?.by_name.into_values().filter_map(|user| user.tenant).collect())
}

#[derive(Debug)]
pub(crate) struct Users {
    by_name: HashMap<String, User>,
    pub(crate) workloads: Vec<Workload>,
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

/// Reads the users file, or the embedded one, and adds `workloads` to its own.
pub(crate) fn load(path: Option<&Path>, workloads: &[Workload]) -> Result<Users, StartError> {
    let text =
        path.map_or_else(|| Ok(ConfigText::new("the embedded users file", EMBEDDED)), ConfigText::read)?;
    // A line may hold a password.
    let mut parsed: UsersFile = text.parse_unquoted()?;
    parsed.workloads.extend_from_slice(workloads);

    let mut names = HashSet::new();
    let all = parsed.users.iter().map(|user| &user.username);
    for name in all.chain(parsed.workloads.iter().map(|workload| &workload.client_id)) {
        if !names.insert(name) {
            return Err(StartError::DuplicateName { name: name.clone() });
        }
    }
    let by_name = parsed.users.into_iter().map(|user| (user.username.clone(), user)).collect();
    Ok(Users { by_name, workloads: parsed.workloads, nobody: secret::random().into() })
}
