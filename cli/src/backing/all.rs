use secrecy::SecretString;

use super::{BackingError, Postgres, Programs, Redis, Storage, Vault};

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
            started(programs.vault.as_deref().map(|program| Vault::start(program, Storage::Memory))),
            started(postgres.map(|folder| Postgres::start(folder))),
        )?;
        Ok(Self { redis, vault, postgres })
    }

    /// Where Redis is.
    #[must_use]
    pub fn redis_url(&self) -> Option<SecretString> {
        self.redis.as_ref().map(|redis| redis.url.as_str().into())
    }
}

async fn started<T>(
    starting: Option<impl Future<Output = Result<T, BackingError>>>,
) -> Result<Option<T>, BackingError> {
    match starting {
        Some(starting) => starting.await.map(Some),
        None => Ok(None),
    }
}
