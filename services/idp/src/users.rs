//! Users, workloads and clients of the users file.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    path::Path,
};

use drawbridge_config::{
    ConfigError, ConfigText, Mistakes, Spanned,
    users::{ConfiguredClient, User, UsersFile, Workload},
};
use secrecy::SecretString;

use crate::{StartError, client::RedirectUri, secret};

const EMBEDDED: &str = include_str!("../users.toml");

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

/// Checks a users file. No error quotes it: it holds passwords.
///
/// # Errors
/// The mistakes of the file.
pub fn check(text: &ConfigText) -> Result<UsersFile, ConfigError> {
    let text = text.clone().with_secrets();
    let mut mistakes = Mistakes::new(&text);
    let file: UsersFile = mistakes.parse().unwrap_or_default();
    let mut known = HashSet::new();
    for name in names(&file).filter(|name| !known.insert(name.as_str())) {
        mistakes.push(name.span(), "another user, workload or client has this name");
    }
    for uri in file.clients.iter().flat_map(|client| &client.redirect_uris) {
        if let Err(error) = RedirectUri::parse(uri) {
            mistakes.push(uri.span(), error.to_string());
        }
    }
    mistakes.finish(Some(file))
}

/// The subjects and client ids, each of which must be unique.
fn names(file: &UsersFile) -> impl Iterator<Item = &Spanned<String>> {
    let users = file.users.iter().map(|user| &user.username);
    let workloads = file.workloads.iter().map(|workload| &workload.client_id);
    users.chain(workloads).chain(file.clients.iter().map(|client| &client.client_id))
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
    let mut file = check(&text)?;
    file.workloads.extend_from_slice(workloads);
    file.clients.extend_from_slice(clients);
    let mut known = HashSet::new();
    if let Some(name) = names(&file).find(|name| !known.insert(name.as_str())) {
        return Err(StartError::DuplicateName { name: name.to_string() });
    }
    let UsersFile { users, workloads, clients } = file;
    let by_name: HashMap<_, _> =
        users.into_iter().map(|user| (user.username.to_string(), user)).collect();
    let built_in = by_name.keys().filter(|_| path.is_none()).cloned().collect::<BTreeSet<_>>();
    let (built_in, dummy_password) = (built_in.into_iter().collect(), secret::random().into());
    Ok(Users { by_name, workloads, clients, built_in, dummy_password })
}
