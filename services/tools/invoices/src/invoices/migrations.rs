//! Migrations beside services that serve.

use std::time::{Duration, Instant};

use drawbridge_proto::invoices::v1::SearchRequest;
use drawbridge_sdk::transaction_token::Principal;
use futures::future::join_all;
use sqlx::{Connection as _, Executor as _, PgConnection};
use tokio::time::{sleep, timeout};

use super::{UBL, callers::ISSUER, database::Database, no_cancellation};
use crate::{
    document::Document,
    extract::extract,
    store::{
        Access, Columns, DatabaseUrl, Scope, Store, migrate, migrate_by, migrator, save::Save,
        search::Search,
    },
};

/// How long anything may take, on a busy machine too.
const STEP_TIMEOUT: Duration = Duration::from_secs(60);

impl Database {
    async fn migrate(&self) -> i64 {
        migrate(&self.options, "migrator", &"".into()).await.unwrap()
    }

    async fn owner(&self) -> PgConnection {
        PgConnection::connect_with(&self.options.clone().username("owner")).await.unwrap()
    }

    /// Waits until a statement waits for a lock on the invoices.
    async fn until_a_lock_is_awaited(&self) {
        let mut owner = self.owner().await;
        let waiting = "SELECT count(*) FROM pg_locks \
             WHERE NOT granted AND relation = 'invoices.invoices'::regclass";
        let began = Instant::now();
        while sqlx::query_scalar::<_, i64>(waiting).fetch_one(&mut owner).await.unwrap() == 0 {
            assert!(began.elapsed() < STEP_TIMEOUT, "no lock is awaited");
            sleep(Duration::from_millis(10)).await;
        }
    }
}

fn invoice() -> (Document, Columns) {
    let document = Document { media_type: "application/xml".to_owned(), bytes: UBL.into() };
    let extracted = extract(&document, &no_cancellation(), |_| Ok(())).unwrap();
    let columns = Columns::of(&document, &extracted).unwrap();
    (document, columns)
}

#[tokio::test]
async fn of_migrations_at_once_one_migrates_and_the_others_find_nothing_to_do() {
    let database = Database::without_schema().await;
    assert_eq!(join_all([(); 4].map(|()| database.migrate())).await, [1; 4]);
    let applied = "SELECT count(*) FROM invoices._sqlx_migrations WHERE success";
    let applied: i64 =
        sqlx::query_scalar(applied).fetch_one(&mut database.owner().await).await.unwrap();
    assert_eq!(applied, 1);
}

#[tokio::test]
async fn callers_are_served_during_and_after_a_migration_to_a_newer_schema() {
    let database = Database::without_schema().await;
    let needed = database.migrate().await;
    let alice = Principal::new(ISSUER, "alice", Some("acme"));
    let (document, columns) = invoice();
    let save = Save { document: &document, columns: &columns, shared: false };
    let search = Search::new(&SearchRequest::default(), None, 100).unwrap();
    let (reader, writer) =
        (database.user(&alice, "reader").await, database.user(&alice, "writer").await);
    let serve = async || {
        let call = async {
            let scope = Scope::of(&alice, Access::Write);
            database.run(&writer, alice.as_str(), &save, &scope).await.unwrap();
            let scope = Scope::of(&alice, Access::Read);
            let found = database.run(&reader, alice.as_str(), &search, &scope).await.unwrap();
            assert_eq!(found.len(), 1);
        };
        timeout(STEP_TIMEOUT, call).await.expect("a call waits for the migration");
    };
    serve().await;

    // A backup, for example.
    let mut long = database.owner().await;
    long.execute("BEGIN; SELECT count(*) FROM invoices.invoices").await.unwrap();
    let newer = migrator([(needed + 1, "newer", "ALTER TABLE invoices ADD COLUMN paid_on text")]);
    let options = database.options.clone().username("migrator");
    let serving = async {
        for _ in 0..3 {
            database.until_a_lock_is_awaited().await;
            serve().await;
        }
        long.execute("COMMIT").await.unwrap();
    };
    let (migrated, ()) = tokio::join!(migrate_by(&newer, &options), serving);
    assert_eq!(migrated.unwrap(), needed + 1);
    serve().await;
    // A service of this version, which is started again, leaves the newer schema as it is.
    assert_eq!(database.migrate().await, needed + 1);
}

#[tokio::test]
async fn the_services_own_user_reads_the_version_and_no_invoices() {
    let database = Database::without_schema().await;
    let needed = database.migrate().await;
    let alice = Principal::new(ISSUER, "alice", Some("acme"));
    let (document, columns) = invoice();
    let save = Save { document: &document, columns: &columns, shared: true };
    let writer = database.user(&alice, "writer").await;
    let scope = Scope::of(&alice, Access::Write);
    database.run(&writer, alice.as_str(), &save, &scope).await.unwrap();
    // As Vault names a user who is no caller.
    let create = "CREATE ROLE \"v-approle-1\" LOGIN IN ROLE invoices_reader";
    database.owner().await.execute(create).await.unwrap();
    let options = [("search_path", "invoices"), ("drawbridge.principal", alice.as_str())];
    let options = database.options.clone().username("v-approle-1").options(options);
    let mut observer = PgConnection::connect_with(&options).await.unwrap();
    let version = "SELECT max(version) FROM _sqlx_migrations WHERE success";
    let version: i64 = sqlx::query_scalar(version).fetch_one(&mut observer).await.unwrap();
    assert_eq!(version, needed);
    for refused in ["SELECT FROM invoices", "DELETE FROM invoices", "DELETE FROM _sqlx_migrations"]
    {
        let error = observer.execute(refused).await.unwrap_err();
        let code = error.as_database_error().and_then(|error| error.code()).unwrap().into_owned();
        assert_eq!(code, "42501", "{refused}");
    }
}

#[tokio::test]
async fn a_new_sqlite_file_can_be_opened_several_times_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("invoices.db").display());
    let open = async || match DatabaseUrl::parse(&url).unwrap() {
        DatabaseUrl::SqliteFile(options) => Store::file(*options).await,
        other => panic!("{other:?}"),
    };
    for store in join_all([(); 8].map(|()| open())).await {
        store.unwrap().close().await;
    }
}
