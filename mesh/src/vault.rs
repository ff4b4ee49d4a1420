//! A Vault that a mesh sets up for its tool services.

use drawbridge_config::{
    ConfigText,
    setup::{self, Database, Setup},
};
use drawbridge_credentials::VaultConfig;
use secrecy::SecretString;
use url::Url;

use self::bootstrap::Bootstrap;
use super::{MeshError, TRANSACTION_ISSUER};

pub mod bootstrap;

/// The same setup that an operator applies.
const SETUP: &str = include_str!("../../deploy/vault/setup.toml");

/// The mesh's Vault.
#[derive(Clone, Debug)]
pub struct MeshVault {
    /// Its connection settings.
    pub config: VaultConfig,
    /// A token with permission for the setup.
    pub token: SecretString,
    /// The file of its audit device, if any.
    pub audit_file: Option<String>,
    /// The PostgreSQL whose users it creates. Absent: no database.
    pub database: Option<MeshDatabase>,
}

/// A PostgreSQL whose users a Vault creates.
#[derive(Clone, Debug)]
pub struct MeshDatabase {
    /// Its URL for Vault.
    pub connection_url: String,
    /// The user that creates other users.
    pub username: String,
    /// Its password.
    pub password: SecretString,
}

impl MeshVault {
    /// Sets it up to trust the keys of auth, which must be running.
    ///
    /// # Errors
    /// When Vault rejects the setup.
    pub async fn bootstrap(&self, jwks_url: Url) -> Result<(), MeshError> {
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| MeshError::Vault(source);
        let text = ConfigText::new("deploy/vault/setup.toml", SETUP);
        let setup = setup::read(&text).map_err(|error| failed(error.into()))?;
        let setup = self.adapted(setup, jwks_url);
        let password = self.database.as_ref().map(|database| database.password.clone());
        let bootstrap = Bootstrap::new(&self.config, self.token.clone())
            .map_err(|error| failed(error.into()))?
            .with_database_password(password);
        bootstrap.apply(&setup).await.map_err(|error| failed(error.into()))?;
        Ok(())
    }

    fn adapted(&self, mut setup: Setup, jwks_url: Url) -> Setup {
        setup.jwks_url = jwks_url;
        TRANSACTION_ISSUER.clone_into(&mut setup.auth_issuer);
        setup.audit_file.clone_from(&self.audit_file);
        setup.database = match (setup.database, &self.database) {
            (Some(database), Some(MeshDatabase { connection_url, username, .. })) => {
                Some(Database {
                    connection_url: connection_url.clone(),
                    username: username.clone(),
                    ..database
                })
            }
            _ => None,
        };
        if setup.database.is_none() {
            for service in &mut setup.services {
                service.database_roles.clear();
            }
        }
        setup
    }
}
