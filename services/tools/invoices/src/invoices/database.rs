//! PostgreSQL's own enforcement, tested with the service's filter disabled.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use data_encoding::HEXLOWER;
use drawbridge_proto::invoices::v1::SearchRequest;
use drawbridge_sdk::transaction_token::Principal;
use sha2::{Digest as _, Sha256};
use sqlx::{Connection as _, Executor as _, PgConnection, PgPool, postgres::PgConnectOptions};
use tempfile::TempDir;

use super::{UBL, callers::ISSUER, no_cancellation};
use crate::{
    document::Document,
    extract::extract,
    store::{
        Access, Columns, Scope, StoreError, StoreOperation, Transaction, approve::Approve,
        find::Find, migrate, save::Save, search::Search,
    },
};

const ROLES: &str = include_str!("../../../../../deploy/postgres/invoices.sql");
const START_DEADLINE: Duration = Duration::from_secs(60);

/// A PostgreSQL for this test, with the service's schema. Any local process may log in as any user:
/// the tests are about the users' permissions.
pub(super) struct Database {
    child: Child,
    pub(super) options: PgConnectOptions,
    _folder: TempDir,
}

impl Database {
    async fn start() -> Self {
        let database = Self::without_schema().await;
        migrate(&database.options, "migrator", &"".into()).await.unwrap();
        database
    }

    pub(super) async fn without_schema() -> Self {
        let binaries = binaries();
        let folder = tempfile::tempdir().unwrap();
        let is_root = Command::new("id").arg("-u").output().unwrap().stdout.trim_ascii() == b"0";
        // PostgreSQL refuses to run as root.
        let run = |program: &str| {
            if !is_root {
                return Command::new(binaries.join(program));
            }
            let mut command = Command::new("setpriv");
            command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--pdeathsig=INT"]);
            command.arg(binaries.join(program));
            command
        };
        if is_root {
            let chown = Command::new("chown").arg("65534:65534").arg(folder.path()).status();
            assert!(chown.unwrap().success());
        }
        let data = folder.path().join("data");
        let output = run("initdb")
            .args(["--auth=trust", "--username=owner", "--no-sync", "--encoding=UTF8", "--pgdata"])
            .arg(&data)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = run("postgres")
            .arg("-D")
            .arg(&data)
            .args([
                "-p",
                &port.to_string(),
                "-h",
                "127.0.0.1",
                "-F",
                "-c",
                "unix_socket_directories=",
            ])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let options = PgConnectOptions::new().host("127.0.0.1").port(port).database("postgres");
        let database = Self { child, options, _folder: folder };
        let started = Instant::now();
        let mut owner = loop {
            match PgConnection::connect_with(&database.options.clone().username("owner")).await {
                Ok(connection) => break connection,
                Err(error) => assert!(started.elapsed() < START_DEADLINE, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        owner.execute("CREATE ROLE vault CREATEROLE").await.unwrap();
        owner.execute(sqlx::AssertSqlSafe(ROLES.replace(":\"vault\"", "vault"))).await.unwrap();
        owner.execute("CREATE ROLE migrator LOGIN IN ROLE invoices_owner").await.unwrap();
        database
    }

    /// Runs an operation as a user created for one principal, while the session states another.
    pub(super) async fn run<W: StoreOperation>(
        &self,
        user: &str,
        stated_principal: &str,
        operation: &W,
        scope: &Scope,
    ) -> Result<W::Output, StoreError> {
        let options = [("search_path", "invoices"), ("drawbridge.principal", stated_principal)];
        let pool =
            PgPool::connect_with(self.options.clone().username(user).options(options)).await?;
        let mut transaction = Transaction::Postgres(pool.begin().await?);
        let result = operation.run(&mut transaction, scope).await?;
        transaction.commit().await?;
        Ok(result)
    }

    /// Creates a user with a name as Vault's, in a group role.
    pub(super) async fn user(&self, principal: &Principal, role: &str) -> String {
        let digest = Sha256::digest(format!("drawbridge-{}", principal.as_str()));
        let digest = HEXLOWER.encode(&digest[..16]);
        let name = format!("v-{digest}-{role}-1");
        let mut owner =
            PgConnection::connect_with(&self.options.clone().username("owner")).await.unwrap();
        let create = format!("CREATE ROLE \"{name}\" LOGIN IN ROLE invoices_{role}");
        owner.execute(sqlx::AssertSqlSafe(create)).await.unwrap();
        name
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // SIGINT disconnects all clients and stops the server with its children.
        let _ = Command::new("kill").args(["-INT", &self.child.id().to_string()]).status();
        let _ = self.child.wait();
    }
}

/// The folder of PostgreSQL's binaries, which Debian does not put on PATH.
fn binaries() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let on_path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders = versions
        .map(|entry| entry.path().join("bin"))
        .chain(std::env::split_paths(&on_path))
        .filter(|folder| Path::is_file(&folder.join("initdb")));
    folders.next().expect(
        "PostgreSQL, which `make test` or `tests/setup.sh test` installs (Debian: postgresql)",
    )
}

fn code(error: StoreError) -> String {
    match error {
        StoreError::Database(error) => error
            .as_database_error()
            .and_then(|error| error.code())
            .unwrap_or_default()
            .into_owned(),
        error => panic!("{error:?}"),
    }
}

#[tokio::test]
async fn without_the_services_filter_rows_of_other_tenants_are_hidden() {
    let database = Database::start().await;
    let of = |subject, tenant| Principal::new(ISSUER, subject, tenant);
    let (alice, bob, dave) =
        (of("alice", Some("acme")), of("bob", Some("acme")), of("dave", Some("umbrella")));
    let document = Document { media_type: "application/xml".to_owned(), bytes: UBL.into() };
    let columns =
        Columns::of(&document, &extract(&document, &no_cancellation(), |_| Ok(())).unwrap())
            .unwrap();
    let save = |shared| Save { document: &document, columns: &columns, shared };

    let writer = database.user(&alice, "writer").await;
    let own = Scope::of(&alice, Access::Write);
    let (private, created) =
        database.run(&writer, alice.as_str(), &save(false), &own).await.unwrap();
    assert!(created);

    // The service requests everything, for any caller.
    let unfiltered = |principal| Scope::unfiltered(principal, Access::Read);
    let all = Search::new(&SearchRequest::default(), None, 100).unwrap();
    let mut readers = Vec::new();
    for principal in [&alice, &bob, &dave] {
        readers.push((principal, database.user(principal, "reader").await));
    }
    let seen = async |shared: bool| {
        if shared {
            database.run(&writer, alice.as_str(), &save(true), &own).await.unwrap();
        }
        let mut seen = Vec::new();
        for (principal, user) in &readers {
            let scope = unfiltered(principal);
            let found = database.run(user, principal.as_str(), &all, &scope).await.unwrap();
            let find = Find { id: &private.id, access: Access::Read };
            let one = database.run(user, principal.as_str(), &find, &scope).await.unwrap();
            assert_eq!(found.len(), usize::from(one.is_some()));
            seen.push(found.len());
        }
        seen
    };
    assert_eq!(seen(false).await, [1, 0, 0], "alice's private invoice");
    assert_eq!(seen(true).await, [1, 1, 0], "the invoice shared in Acme");

    // A session that states another principal than its user's gets only errors.
    let (_, of_dave) = &readers[2];
    for principal in [alice.as_str(), bob.as_str(), "", "alice", "@@"] {
        let refused =
            database.run(of_dave, principal, &all, &unfiltered(&alice)).await.unwrap_err();
        assert_eq!(code(refused), "42501", "{principal}");
    }
    // No user can write for another principal, or beyond the permissions of the role.
    let of_bob = database.user(&bob, "writer").await;
    let stolen = database.run(&of_bob, bob.as_str(), &save(false), &own).await.unwrap_err();
    assert_eq!(code(stolen), "42501");
    let own_scope = Scope::of(&bob, Access::Write);
    let reader = &readers[1].1;
    assert_eq!(
        code(database.run(reader, bob.as_str(), &save(false), &own_scope).await.unwrap_err()),
        "42501"
    );

    // An approver approves invoices of the tenant, once, and on the approver's own behalf.
    let (of_bob, of_dave) =
        (database.user(&bob, "approver").await, database.user(&dave, "approver").await);
    let approve = Approve { id: &private.id, confirmed: true };
    let everything = |principal| Scope::unfiltered(principal, Access::Approve);
    let none = database.run(&of_dave, dave.as_str(), &approve, &everything(&dave)).await.unwrap();
    assert!(none.is_none());
    let forged =
        database.run(&of_bob, bob.as_str(), &approve, &everything(&alice)).await.unwrap_err();
    assert_eq!(code(forged), "42501");
    let refused =
        database.run(reader, bob.as_str(), &approve, &everything(&bob)).await.unwrap_err();
    assert_eq!(code(refused), "42501");
    let (approved, output) =
        database.run(&of_bob, bob.as_str(), &approve, &everything(&bob)).await.unwrap().unwrap();
    assert!(output && approved.is_approved());
    let (_, output) =
        database.run(&of_bob, bob.as_str(), &approve, &everything(&bob)).await.unwrap().unwrap();
    assert!(!output);
}
