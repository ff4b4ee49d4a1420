use drawbridge_sdk::credentials::VaultConfig;
use secrecy::SecretString;

use super::{BackingError, Postgres, Programs, Redis, Storage, Vault};
use crate::mesh::{MeshDatabase, MeshVault};

/// What a database administrator runs too.
const INVOICES_ROLES: &str = include_str!("../../../deploy/postgres/invoices.sql");

/// The servers that one mesh stands on. Where there is none, the mesh does without.
#[derive(Debug, Default)]
pub struct Backing {
    /// What replicas share.
    pub redis: Option<Redis>,
    /// What gives credentials.
    pub vault: Option<Vault>,
    /// What invoices are stored in.
    pub postgres: Option<Postgres>,
}

impl Backing {
    /// Starts a server of each program, all at once.
    ///
    /// # Errors
    /// When one cannot be run or does not answer.
    pub async fn start(programs: &Programs) -> Result<Self, BackingError> {
        // A database is of use only with users, which Vault makes.
        let postgres = programs.postgres.as_ref().filter(|_| programs.vault.is_some());
        let (redis, vault, postgres) = tokio::try_join!(
            started(programs.redis.as_deref().map(Redis::start)),
            started(
                programs.vault.as_deref().map(|program| Vault::start(program, Storage::Memory))
            ),
            started(postgres.map(|folder| Postgres::start(folder))),
        )?;
        Ok(Self { redis, vault, postgres })
    }

    /// Makes the schemas of the tool services, in the database that there is.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn migrate(&self) -> anyhow::Result<()> {
        match &self.postgres {
            Some(postgres) => migrate(postgres).await,
            None => Ok(()),
        }
    }

    /// The Vault, and the database whose users it makes.
    #[must_use]
    pub fn mesh_vault(&self) -> Option<MeshVault> {
        let vault = self.vault.as_ref()?;
        let database = self.postgres.as_ref().map(|postgres| {
            let (username, password) = postgres.owner();
            MeshDatabase {
                connection_url: postgres.connection_url(),
                username: username.to_owned(),
                password: password.clone(),
            }
        });
        Some(MeshVault {
            config: VaultConfig::new(vault.url.clone()),
            token: vault.root_token.clone(),
            audit_file: Some(vault.audit_file().display().to_string()),
            database,
        })
    }

    /// Where invoices are stored.
    #[must_use]
    pub fn invoices_database_url(&self) -> Option<SecretString> {
        self.postgres.as_ref().map(|postgres| postgres.url().into())
    }

    /// Where Redis is.
    #[must_use]
    pub fn redis_url(&self) -> Option<SecretString> {
        self.redis.as_ref().map(|redis| redis.url.as_str().into())
    }
}

/// Makes the schemas of the tool services.
///
/// # Errors
/// When the database refuses.
pub async fn migrate(postgres: &Postgres) -> anyhow::Result<()> {
    postgres.run_script(INVOICES_ROLES).await?;
    let (owner, password) = postgres.owner();
    drawbridge_invoices::migrate(&postgres.url().into(), owner, password).await?;
    Ok(())
}

async fn started<T>(
    starting: Option<impl Future<Output = Result<T, BackingError>>>,
) -> Result<Option<T>, BackingError> {
    match starting {
        Some(starting) => starting.await.map(Some),
        None => Ok(None),
    }
}
