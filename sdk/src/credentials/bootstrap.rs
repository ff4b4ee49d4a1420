//! Sets a Vault up for tool services: it trusts auth's transaction tokens, and gives each service
//! what it may have and nothing else. What is already as it should be is left alone.
//!
//! It stands here, and not in the command line, because the names that it sets up are those that
//! [`super::Vault`] uses.

use std::fmt;

use rustify::enums::RequestMethod;
use secrecy::SecretString;
use serde_json::Value;

use super::{
    error::CredentialsError,
    vault::{Any, As, Client, VaultConfig},
};

mod policy;
mod setup;
mod steps;

pub use setup::{
    Approle, Authority, CertificateRole, Database, DatabaseRole, Kubernetes, ServiceAccount,
    ServiceSetup, Setup,
};
use steps::{Step, contains};

/// Where a server tells its config, without its secrets.
const SERVER_CONFIG: &str = "sys/config/state/sanitized";

/// Vault cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// An HTTP client cannot be made.
    #[error(transparent)]
    Client(#[from] super::SetupError),
    /// A name cannot stand where it is to stand.
    #[error(
        "the setup has {name:?} as a name twice, or it is none: letters, digits, `.`, `_` and `-` are"
    )]
    Name {
        /// Which.
        name: String,
    },
    /// Vault does not answer as it should.
    #[error("{what}, at {path}")]
    Vault {
        /// What was to be set up.
        what: String,
        /// Where.
        path: String,
        /// Why it is not.
        source: CredentialsError,
    },
    /// Something else is there, which cannot be changed.
    #[error("{what}: something else stands at {path} already; name another mount, or take it away")]
    Taken {
        /// What was to be set up.
        what: String,
        /// Where.
        path: String,
    },
}

/// What happens to one thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// What it is.
    pub what: String,
    /// Where it stands in Vault.
    pub path: String,
    /// What happens to it.
    pub kind: ChangeKind,
}

/// What happens to one thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// It is not there yet.
    Create,
    /// It is there, and otherwise.
    Update,
    /// It is as it should be.
    Keep,
    /// It is not there, and only the server's own config can have it.
    Configure,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = match self.kind {
            ChangeKind::Create => '+',
            ChangeKind::Update => '~',
            ChangeKind::Keep => '=',
            ChangeKind::Configure => '!',
        };
        write!(f, "{sign} {}  ({})", self.what, self.path)
    }
}

/// A Vault that is being set up, with a token that may do so.
pub struct Bootstrap<'a> {
    client: Client,
    config: &'a VaultConfig,
    token: &'a SecretString,
}

impl<'a> Bootstrap<'a> {
    /// The Vault of `config`.
    ///
    /// # Errors
    /// When a certificate or a key cannot be read.
    pub fn new(config: &'a VaultConfig, token: &'a SecretString) -> Result<Self, BootstrapError> {
        Ok(Self { client: Client::new(config)?, config, token })
    }

    /// What [`Self::apply`] would do.
    ///
    /// # Errors
    /// When Vault cannot be read.
    pub async fn plan(&self, setup: &Setup) -> Result<Vec<Change>, BootstrapError> {
        self.run(setup, false).await
    }

    /// Sets Vault up, and says what was done.
    ///
    /// # Errors
    /// When Vault cannot be read or written. What was done by then stays; the next run goes on.
    pub async fn apply(&self, setup: &Setup) -> Result<Vec<Change>, BootstrapError> {
        self.run(setup, true).await
    }

    async fn run(&self, setup: &Setup, write: bool) -> Result<Vec<Change>, BootstrapError> {
        if let Some(name) = setup.wrong_name() {
            return Err(BootstrapError::Name { name: name.to_owned() });
        }
        let mut changes = Vec::new();
        if let Some(step) = steps::audit(setup) {
            changes.push(self.audit(&step, write).await?);
        }
        for step in steps::mounts(self.config, setup) {
            changes.push(self.step(&step, write).await?);
        }
        // Policies name the auth method by its accessor, which it has once it is there.
        let mount = format!("{}/", self.config.vault_auth_mount);
        let mounted = self.read("sys/auth", Some(&mount)).await;
        let mounted = mounted.map_err(|source| failed("auth method", "sys/auth", source))?;
        let accessor =
            mounted.as_ref().and_then(|method| method["accessor"].as_str()).unwrap_or("(not yet)");
        for step in steps::settings(self.config, setup, accessor) {
            changes.push(self.step(&step, write).await?);
        }
        Ok(changes)
    }

    /// The audit device, which OpenBao takes by its API only if it was started so.
    async fn audit(&self, step: &Step, write: bool) -> Result<Change, BootstrapError> {
        let by_api = !is_api_closed(&self.server_config().await?);
        let change = match self.step(step, write && by_api).await {
            // To a token that may not read the server's config it is said now.
            Err(BootstrapError::Vault { what, path, source }) if is_for_config(&source) => {
                return Ok(Change { what, path, kind: ChangeKind::Configure });
            }
            change => change?,
        };
        let is_left = !by_api && change.kind == ChangeKind::Create;
        let kind = if is_left { ChangeKind::Configure } else { change.kind };
        Ok(Change { kind, ..change })
    }

    async fn step(&self, step: &Step, write: bool) -> Result<Change, BootstrapError> {
        let Step { what, path, .. } = step;
        let failed = |source| failed(what, path, source);
        let current = self.read(step.read_at(), step.key.as_deref()).await.map_err(failed)?;
        let kind = match current {
            None => ChangeKind::Create,
            Some(current) if contains(&current, &step.wanted) => ChangeKind::Keep,
            Some(_) if step.fixed => {
                return Err(BootstrapError::Taken { what: what.clone(), path: path.clone() });
            }
            Some(_) => ChangeKind::Update,
        };
        if write && kind != ChangeKind::Keep {
            let body = step.write.as_ref().unwrap_or(&step.wanted);
            let call = Any { method: RequestMethod::POST, path, body: Some(body) };
            self.client.send(self.who(), || Ok(call.clone())).await.map_err(failed)?;
        }
        Ok(Change { what: what.clone(), path: path.clone(), kind })
    }

    /// The server's config, as far as the token may read it.
    async fn server_config(&self) -> Result<Value, BootstrapError> {
        match self.read(SERVER_CONFIG, None).await {
            Ok(config) => Ok(config.unwrap_or_default()),
            Err(CredentialsError::Refused { .. }) => Ok(Value::Null),
            Err(source) => Err(failed("the server's config", SERVER_CONFIG, source)),
        }
    }

    /// What stands at a path, or under a key there.
    async fn read(&self, path: &str, key: Option<&str>) -> Result<Option<Value>, CredentialsError> {
        let call = Any { method: RequestMethod::GET, path, body: None };
        let data = match self.client.call(self.who(), || Ok(call.clone())).await {
            Ok(answer) => answer.data,
            // Some paths say 400 for what is not there.
            Err(CredentialsError::NoSuchSecret | CredentialsError::Refused { status: 400, .. }) => {
                None
            }
            Err(error) => return Err(error),
        };
        let found = match key {
            Some(key) => data.and_then(|mut data| data.get_mut(key).map(Value::take)),
            None => data,
        };
        Ok(found.filter(|value| !value.is_null() && value != ""))
    }

    fn who(&self) -> As<'_> {
        As { token: Some(self.token), request_id: None }
    }
}

/// Whether this is the config of a server that takes no audit device by its API: OpenBao says so,
/// and Vault knows nothing of it.
fn is_api_closed(server_config: &Value) -> bool {
    server_config["unsafe_allow_api_audit_creation"] == false
}

/// Whether OpenBao answers that an audit device is a matter of its config.
fn is_for_config(error: &CredentialsError) -> bool {
    matches!(error, CredentialsError::Refused { status: 400, reason } if reason.contains("config-based audit"))
}

fn failed(what: &str, path: &str, source: CredentialsError) -> BootstrapError {
    BootstrapError::Vault { what: what.to_owned(), path: path.to_owned(), source }
}
