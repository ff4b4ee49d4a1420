//! The servers that a mesh depends on: Redis, Vault and PostgreSQL, run from binaries on this
//! machine, on free loopback ports. They stop with the mesh and their data is deleted.

use std::{
    env,
    path::{Path, PathBuf},
};

use drawbridge_credentials::VaultConfig;
use secrecy::SecretString;

use crate::{MeshDatabase, MeshVault};

mod postgres;
mod redis;
mod run_folder;
mod server;
mod vault;

pub use postgres::Postgres;
pub use redis::Redis;
pub use run_folder::{RunFolder, remove_leftovers};
pub use server::{ReservedPort, Server};
pub use vault::{Storage, Vault};

/// The same script that a database administrator runs.
const INVOICES_ROLES: &str = include_str!("../../deploy/postgres/invoices.sql");

/// The servers that one mesh depends on. An absent one is replaced by its embedded substitute.
#[derive(Debug, Default)]
pub struct Dependencies {
    /// State shared by replicas.
    pub redis: Option<Redis>,
    /// Issues credentials.
    pub vault: Option<Vault>,
    /// Stores invoices.
    pub postgres: Option<Postgres>,
}

impl Dependencies {
    /// Starts one server for each binary, concurrently.
    ///
    /// # Errors
    /// When a server cannot be run or does not answer.
    pub async fn start(binaries: &Binaries) -> Result<Self, DependencyError> {
        // The database needs users, and only Vault creates them.
        let postgres = binaries.postgres.as_ref().filter(|_| binaries.vault.is_some());
        let (redis, vault, postgres) = tokio::try_join!(
            start_if_present(binaries.redis.as_deref().map(Redis::start)),
            start_if_present(
                binaries.vault.as_deref().map(|program| Vault::start(program, Storage::Memory))
            ),
            start_if_present(postgres.map(|folder| Postgres::start(folder))),
        )?;
        Ok(Self { redis, vault, postgres })
    }

    /// Creates the tool services' schemas if a database is running.
    ///
    /// # Errors
    /// When the database rejects a statement.
    pub async fn migrate(&self) -> anyhow::Result<()> {
        match &self.postgres {
            Some(postgres) => migrate(postgres).await,
            None => Ok(()),
        }
    }

    /// The Vault, and the database whose users it creates.
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

    /// The URL of the database that stores invoices.
    #[must_use]
    pub fn invoices_database_url(&self) -> Option<SecretString> {
        self.postgres.as_ref().map(|postgres| postgres.url().into())
    }

    /// The URL of Redis.
    #[must_use]
    pub fn redis_url(&self) -> Option<SecretString> {
        self.redis.as_ref().map(|redis| redis.url.as_str().into())
    }
}

/// Creates the tool services' schemas.
///
/// # Errors
/// When the database rejects a statement.
pub async fn migrate(postgres: &Postgres) -> anyhow::Result<()> {
    postgres.run_script(INVOICES_ROLES).await?;
    let (owner, password) = postgres.owner();
    drawbridge_invoices::migrate(&postgres.url().into(), owner, password).await?;
    Ok(())
}

async fn start_if_present<T>(
    start: Option<impl Future<Output = Result<T, DependencyError>>>,
) -> Result<Option<T>, DependencyError> {
    match start {
        Some(start) => start.await.map(Some),
        None => Ok(None),
    }
}

/// A server could not be started.
#[derive(Debug, thiserror::Error)]
pub enum DependencyError {
    /// Its folder could not be created, or no port is free.
    #[error("cannot prepare {program}")]
    Prepare {
        /// Which program.
        program: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// The binary cannot be executed.
    #[error("cannot run {program}")]
    Run {
        /// Which program.
        program: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// It exited, or does not answer.
    #[error("{program} did not start serving: {output}")]
    NotServing {
        /// Which program.
        program: &'static str,
        /// The tail of its output.
        output: String,
    },
}

/// The server binaries on this machine.
#[derive(Clone, Debug, Default)]
pub struct Binaries {
    /// `redis-server`.
    pub redis: Option<PathBuf>,
    /// `bao`, or else `vault`.
    pub vault: Option<PathBuf>,
    /// The folder of PostgreSQL's binaries.
    pub postgres: Option<PathBuf>,
}

impl Binaries {
    /// Finds binaries on `PATH`, and PostgreSQL also in Debian's folder outside it.
    #[must_use]
    pub fn find() -> Self {
        Self {
            redis: on_path("redis-server"),
            vault: on_path("bao").or_else(|| on_path("vault")),
            postgres: postgres::folder(),
        }
    }
}

fn path_folders() -> impl Iterator<Item = PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).collect::<Vec<_>>().into_iter()
}

fn on_path(program: &str) -> Option<PathBuf> {
    path_folders().map(|folder| folder.join(program)).find(|path| Path::is_file(path))
}
