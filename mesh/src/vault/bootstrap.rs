//! Sets up Vault for tool services: Vault trusts auth's transaction tokens, and each service gets
//! what it may have and nothing else. What is already correct is left unchanged.

use std::fmt;

use drawbridge_config::setup::Setup;
use drawbridge_credentials::{CredentialsError, SetupError, VaultApi, VaultConfig};
use secrecy::SecretString;
use serde_json::Value;

mod policy;
mod steps;

use steps::{Step, contains};

/// The name of the audit device.
const AUDIT_DEVICE: &str = "drawbridge";
/// The path of a server's config without its secrets.
const SERVER_CONFIG: &str = "sys/config/state/sanitized";

/// Vault cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// An HTTP client cannot be created.
    #[error(transparent)]
    Client(#[from] SetupError),
    /// The password of the database's user is missing.
    #[error("the setup names a database, and the password of its user is missing")]
    NoDatabasePassword,
    /// A name is invalid or used twice.
    #[error("{name:?}: {problem}")]
    Name {
        /// The name.
        name: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// Vault returned an error.
    #[error("cannot set up {what} at {path}")]
    Vault {
        /// What was to be set up.
        what: String,
        /// Its path.
        path: String,
        /// The error.
        source: CredentialsError,
    },
    /// Something else exists at the path, and cannot be changed.
    #[error("{what}: something else already exists at {path}; choose another mount, or remove it")]
    Conflict {
        /// What was to be set up.
        what: String,
        /// Its path.
        path: String,
    },
}

/// A change to one object in Vault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// What it is.
    pub what: String,
    /// Its path in Vault.
    pub path: String,
    /// The kind of the change.
    pub kind: ChangeKind,
}

/// The kind of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// It does not exist yet.
    Create,
    /// It exists, but differs.
    Update,
    /// It is up to date.
    Unchanged,
    /// It does not exist, and only the server's own config can create it.
    RequiresServerConfig,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = match self.kind {
            ChangeKind::Create => '+',
            ChangeKind::Update => '~',
            ChangeKind::Unchanged => '=',
            ChangeKind::RequiresServerConfig => '!',
        };
        write!(f, "{sign} {}  ({})", self.what, self.path)
    }
}

/// Sets up a Vault with a token that may do so.
#[derive(Debug)]
pub struct Bootstrap<'a> {
    api: VaultApi,
    config: &'a VaultConfig,
    database_password: Option<SecretString>,
}

impl<'a> Bootstrap<'a> {
    /// The Vault of `config`.
    ///
    /// # Errors
    /// When a certificate or a key cannot be read.
    pub fn new(config: &'a VaultConfig, token: SecretString) -> Result<Self, BootstrapError> {
        Ok(Self { api: VaultApi::new(config, token)?, config, database_password: None })
    }

    /// Adds the password of Vault's user in the database, which a setup does not contain. Vault
    /// gets it when the connection is created or changed.
    #[must_use]
    pub fn with_database_password(self, password: Option<SecretString>) -> Self {
        Self { database_password: password, ..self }
    }

    /// The changes that [`Self::apply`] would make.
    ///
    /// # Errors
    /// When Vault cannot be read.
    pub async fn plan(&self, setup: &Setup) -> Result<Vec<Change>, BootstrapError> {
        self.run(setup, false).await
    }

    /// Sets up Vault, and returns the changes.
    ///
    /// # Errors
    /// When the setup has a database without a password, or Vault cannot be read or written.
    /// Changes made until then remain; the next run continues.
    pub async fn apply(&self, setup: &Setup) -> Result<Vec<Change>, BootstrapError> {
        self.run(setup, true).await
    }

    async fn run(&self, setup: &Setup, write: bool) -> Result<Vec<Change>, BootstrapError> {
        if let Some((name, problem)) = setup.invalid_names().into_iter().next() {
            return Err(BootstrapError::Name { name: name.to_string(), problem });
        }
        if write && setup.database.is_some() && self.database_password.is_none() {
            return Err(BootstrapError::NoDatabasePassword);
        }
        let mut changes = Vec::new();
        if let Some(step) = steps::audit(setup) {
            changes.push(self.audit(&step, write).await?);
        }
        for step in steps::mounts(self.config, setup) {
            changes.push(self.step(&step, write).await?);
        }
        // Policies name the auth method by its accessor, which it has once it exists.
        let mount = format!("{}/", self.config.vault_auth_mount);
        let mounted = self.read("sys/auth", Some(&mount)).await;
        let mounted = mounted.map_err(|source| vault_error("auth method", "sys/auth", source))?;
        let accessor =
            mounted.as_ref().and_then(|method| method["accessor"].as_str()).unwrap_or("(not yet)");
        for step in steps::settings(self.config, setup, accessor, self.database_password.as_ref()) {
            changes.push(self.step(&step, write).await?);
        }
        Ok(changes)
    }

    /// The audit device, which OpenBao accepts through its API only if it was started that way.
    async fn audit(&self, step: &Step, write: bool) -> Result<Change, BootstrapError> {
        let is_api_open = !is_api_closed(&self.server_config().await?);
        let change = match self.step(step, write && is_api_open).await {
            // A token that may not read the server's config learns it from this error.
            Err(BootstrapError::Vault { what, path, source }) if is_config_only_error(&source) => {
                return Ok(Change { what, path, kind: ChangeKind::RequiresServerConfig });
            }
            change => change?,
        };
        let is_manual = !is_api_open && change.kind == ChangeKind::Create;
        let kind = if is_manual { ChangeKind::RequiresServerConfig } else { change.kind };
        Ok(Change { kind, ..change })
    }

    async fn step(&self, step: &Step, write: bool) -> Result<Change, BootstrapError> {
        let Step { what, path, .. } = step;
        let vault_error = |source| vault_error(what, path, source);
        let current = self.read(step.read_at(), step.key.as_deref()).await.map_err(vault_error)?;
        let kind = match current {
            None => ChangeKind::Create,
            Some(current) if contains(&current, &step.wanted) => ChangeKind::Unchanged,
            Some(_) if step.fixed => {
                return Err(BootstrapError::Conflict { what: what.clone(), path: path.clone() });
            }
            Some(_) => ChangeKind::Update,
        };
        if write && kind != ChangeKind::Unchanged {
            let body = step.write.as_ref().unwrap_or(&step.wanted);
            match self.api.write(path, body).await {
                // A retry of a write that a slow Vault had made is refused: the path is in use.
                Err(CredentialsError::Refused { status: 400, .. })
                    if step.fixed && self.has_wanted(step).await => {}
                written => drop(written.map_err(vault_error)?),
            }
        }
        Ok(Change { what: what.clone(), path: path.clone(), kind })
    }

    /// Whether Vault has an object as wanted.
    async fn has_wanted(&self, step: &Step) -> bool {
        let current = self.read(step.read_at(), step.key.as_deref()).await;
        current.is_ok_and(|current| current.is_some_and(|found| contains(&found, &step.wanted)))
    }

    /// The server's config, as far as the token may read it.
    async fn server_config(&self) -> Result<Value, BootstrapError> {
        match self.read(SERVER_CONFIG, None).await {
            Ok(config) => Ok(config.unwrap_or_default()),
            Err(CredentialsError::Refused { .. }) => Ok(Value::Null),
            Err(source) => Err(vault_error("the server's config", SERVER_CONFIG, source)),
        }
    }

    /// The content of a path, or of one of its keys.
    async fn read(&self, path: &str, key: Option<&str>) -> Result<Option<Value>, CredentialsError> {
        let data = self.api.read(path).await?;
        let found = match key {
            Some(key) => data.and_then(|mut data| data.get_mut(key).map(Value::take)),
            None => data,
        };
        Ok(found.filter(|value| !value.is_null() && value != ""))
    }
}

/// The text for an OpenBao's config that replaces the audit device that its API does not accept, if
/// the setup has one.
#[must_use]
pub fn audit_config(setup: &Setup) -> Option<String> {
    let file = setup.audit_file.as_ref()?;
    // A string in HCL is written as in JSON.
    let file = Value::from(file.as_str());
    Some(format!(
        "audit \"file\" \"{AUDIT_DEVICE}\" {{\n  options {{\n    file_path = {file}\n  }}\n}}"
    ))
}

/// Whether this is the config of a server that accepts no audit device through its API. OpenBao has
/// this setting; Vault does not.
fn is_api_closed(server_config: &Value) -> bool {
    server_config["unsafe_allow_api_audit_creation"] == false
}

/// Whether OpenBao answers that audit devices are set in its config.
fn is_config_only_error(error: &CredentialsError) -> bool {
    let CredentialsError::Refused { status: 400, reason } = error else { return false };
    reason.contains("config-based audit")
}

fn vault_error(what: &str, path: &str, source: CredentialsError) -> BootstrapError {
    BootstrapError::Vault { what: what.to_owned(), path: path.to_owned(), source }
}
