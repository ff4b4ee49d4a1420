//! The servers that a fleet depends on, which fail like any other process.

use std::{
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use drawbridge_mesh::dependencies::{
    Binaries, Dependencies, DependencyError, Postgres, Redis, Storage, Vault,
};

use crate::bao;

/// The script that a database administrator runs.
const ROLES: &str = include_str!("../../../deploy/postgres/invoices.sql");
/// The time limit of a restart, on a busy machine too.
const RESTART_TIMEOUT: Duration = Duration::from_secs(60);
const RETRY_INTERVAL: Duration = Duration::from_millis(200);

/// A server that a fleet depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DependencyName {
    /// State shared by replicas.
    Redis,
    /// OpenBao, with storage on disk.
    Vault,
    /// The database of invoices.
    Postgres,
}

impl DependencyName {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Redis, Self::Vault, Self::Postgres];
}

/// Starts all of them, on free ports.
pub(super) async fn start() -> Dependencies {
    let postgres = Binaries::find().postgres.expect(
        "PostgreSQL, which `make test` or `tests/setup.sh test` installs (Debian: postgresql)",
    );
    let (vault, redis) = (bao(), Path::new("redis-server"));
    let (redis, vault, postgres) = tokio::join!(
        Redis::start(redis),
        Vault::start(&vault, Storage::Disk),
        Postgres::start(&postgres),
    );
    let (redis, vault, postgres) = (expect(redis), expect(vault), expect(postgres));
    expect(postgres.run_script(ROLES).await);
    Dependencies { redis: Some(redis), vault: Some(vault), postgres: Some(postgres) }
}

/// Kills one, like a failing machine.
pub(super) fn kill(dependencies: &mut Dependencies, name: DependencyName) {
    let server = match name {
        DependencyName::Redis => dependencies.redis.as_mut().map(|it| &mut it.server),
        DependencyName::Vault => dependencies.vault.as_mut().map(|it| &mut it.server),
        DependencyName::Postgres => dependencies.postgres.as_mut().map(|it| &mut it.server),
    };
    server.expect("it runs").kill();
}

/// Restarts one that was killed, with the data that it stores. Redis stores none.
pub(super) async fn restart(dependencies: &mut Dependencies, name: DependencyName) {
    let began = Instant::now();
    loop {
        let restarted = match name {
            DependencyName::Redis => dependencies.redis.as_mut().expect("Redis").restart().await,
            DependencyName::Vault => dependencies.vault.as_mut().expect("Vault").restart().await,
            DependencyName::Postgres => {
                dependencies.postgres.as_mut().expect("PostgreSQL").restart().await
            }
        };
        match restarted {
            Ok(()) => return,
            Err(error) => assert!(began.elapsed() < RESTART_TIMEOUT, "{error}: {error:?}"),
        }
        tokio::time::sleep(RETRY_INTERVAL).await;
    }
}

/// Suspends or resumes one, with the processes that it has for its clients.
pub(super) fn freeze(dependencies: &Dependencies, name: DependencyName, is_frozen: bool) {
    let id = match name {
        DependencyName::Redis => dependencies.redis.as_ref().map(|it| it.server.id()),
        DependencyName::Vault => dependencies.vault.as_ref().map(|it| it.server.id()),
        DependencyName::Postgres => dependencies.postgres.as_ref().map(|it| it.server.id()),
    };
    let id = id.expect("it runs").to_string();
    // The parent first, so that it starts no more of them.
    let children = || {
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children"));
        let children = children.expect("the children of a process");
        children.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    if is_frozen {
        signal("-STOP", std::slice::from_ref(&id));
        signal("-STOP", &children());
    } else {
        signal("-CONT", &children());
        signal("-CONT", std::slice::from_ref(&id));
    }
}

fn signal(signal: &str, ids: &[String]) {
    if ids.is_empty() {
        return;
    }
    let sent = Command::new("kill").arg(signal).args(ids).status();
    assert!(sent.is_ok_and(|status| status.success()), "kill {signal} {ids:?}");
}

fn expect<T>(result: Result<T, DependencyError>) -> T {
    result.unwrap_or_else(|error| panic!("{error}: {error:?}"))
}
