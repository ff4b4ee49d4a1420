use std::{collections::BTreeMap, time::Duration};

use secrecy::SecretString;
use uuid::Uuid;

use super::{
    error::CredentialsError,
    grant::{Granted, GrantedUser, SessionToken},
    lease::Secret,
};

/// How long credentials from this source last.
const DURATION: Duration = Duration::from_secs(300);

/// Credentials that this process issues itself, for a mesh without Vault: users that no database
/// checks, and secrets that are known beforehand.
#[derive(Clone, Debug, Default)]
pub struct EmbeddedSource {
    /// The fields of each secret, by its name for every tenant, or by `tenant/name` for one.
    secrets: BTreeMap<String, BTreeMap<String, SecretString>>,
}

impl EmbeddedSource {
    /// A source with these secrets. One named `tenant/name` belongs to that tenant only, and takes
    /// precedence over one of that name for every tenant.
    #[must_use]
    pub fn new(secrets: BTreeMap<String, BTreeMap<String, SecretString>>) -> Self {
        Self { secrets }
    }

    pub(super) fn login() -> Granted<SessionToken> {
        Granted { value: SessionToken(random().into()), duration: DURATION, renewable: true }
    }

    pub(super) fn database(role: &str) -> Granted<GrantedUser> {
        let id = random();
        let user =
            GrantedUser { username: format!("v-{role}-{id}"), password: random().into(), id };
        Granted { value: user, duration: DURATION, renewable: true }
    }

    pub(super) fn secret(&self, tenant: &str, name: &str) -> Result<Secret, CredentialsError> {
        let fields =
            self.secrets.get(&format!("{tenant}/{name}")).or_else(|| self.secrets.get(name));
        Ok(Secret { fields: fields.cloned().ok_or(CredentialsError::NoSuchSecret)? })
    }

    /// The duration that a renewal grants.
    pub(super) const fn renewed() -> Duration {
        DURATION
    }
}

fn random() -> String {
    Uuid::new_v4().simple().to_string()
}
