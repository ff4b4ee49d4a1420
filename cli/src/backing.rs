//! What the mesh stands on: Redis, Vault and PostgreSQL as programs of this machine, on free ports of loopback. They end
//! with the mesh, and their data with them.

use std::{
    env,
    path::{Path, PathBuf},
};

mod all;
mod postgres;
mod redis;
mod run_folder;
mod server;
mod vault;

pub use all::{Backing, migrate};
pub use postgres::Postgres;
pub use redis::Redis;
pub(crate) use run_folder::{RunFolder, remove_left_over};
pub use server::Server;
pub use vault::{Storage, Vault};

/// A server could not be started.
#[derive(Debug, thiserror::Error)]
pub enum BackingError {
    /// There is no folder for it, or no free port.
    #[error("cannot prepare {program}")]
    Prepare {
        /// Which program.
        program: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// The program cannot be run.
    #[error("cannot run {program}")]
    Run {
        /// Which program.
        program: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// It ended, or does not answer.
    #[error("{program} does not serve: {says}")]
    Silent {
        /// Which program.
        program: &'static str,
        /// The end of what it has written.
        says: String,
    },
}

/// The programs that are on this machine.
#[derive(Clone, Debug, Default)]
pub struct Programs {
    /// `redis-server`.
    pub redis: Option<PathBuf>,
    /// `bao`, or else `vault`.
    pub vault: Option<PathBuf>,
    /// The folder of PostgreSQL's programs.
    pub postgres: Option<PathBuf>,
}

impl Programs {
    /// Those that are on `PATH`. Debian keeps PostgreSQL off it, and it is found there too.
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
