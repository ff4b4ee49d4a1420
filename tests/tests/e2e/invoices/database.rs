//! The invoices service on a real OpenBao and PostgreSQL, checked in PostgreSQL itself.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use drawbridge_config::{
    ConfigText,
    setup::{self, Approle},
};
use drawbridge_credentials::{
    CredentialLimits, CredentialSource, Credentials, LoginMethod, VaultConfig, VaultLogin,
};
use drawbridge_mesh::{HostedService, vault::bootstrap::Bootstrap};
use drawbridge_proto::auth::v1::token_set::Which;
use drawbridge_runtime::{Listen, TelemetryConfig};
use drawbridge_sdk::ToolServiceConfig;
use drawbridge_tests::{Client, Edge, Postgres, TestMesh, Vault, repository, sign_in, uncached};
use drawbridge_transport::transaction_token::{VerifiedCaller, Verifier};
use reqwest::Method;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::json;
use tempfile::TempDir;

use super::{
    approvals::{approve, respond},
    saved::{found, save},
};
use crate::{
    auth::revocation::{platform, revoke_of},
    identity::{context, exchange},
};

/// The time limit for Vault's background work, on a busy machine too.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(20);
const SEARCH: &str = "drawbridge.invoices.v1.InvoiceService/Search";

/// Users of two tenants.
const USERS: &str = r#"
[[users]]
username = "alice"
password = "alice"
tenant = "acme"
groups = ["finance"]

[[users]]
username = "anna"
password = "anna"
tenant = "acme"
groups = ["finance"]
roles = ["invoice-approver"]
mfa = true

[[users]]
username = "bob"
password = "bob"
tenant = "umbrella"
groups = ["finance"]
roles = ["invoice-approver"]
mfa = true
"#;

/// A mesh, and the service on its own PostgreSQL behind its own edge.
struct World {
    mesh: TestMesh,
    vault: Vault,
    postgres: Postgres,
    /// The password of Vault's own database user.
    vault_password: String,
    service: HostedService,
    edge: Edge,
    _users: TempDir,
}

impl World {
    /// Starts all of it and creates the schema.
    async fn start() -> Self {
        let world = Self::unmigrated().await;
        world.migrate().await;
        world
    }

    async fn unmigrated() -> Self {
        let users = tempfile::tempdir().expect("a folder");
        let file = users.path().join("users.toml");
        fs::write(&file, USERS).expect("a file");
        let mesh = TestMesh::with(|config| config.users = Some(file)).await;
        let (vault, postgres) = (Vault::start().await, Postgres::start().await);
        let vault_password = uuid::Uuid::new_v4().to_string();
        let create = format!("CREATE ROLE vault LOGIN CREATEROLE PASSWORD '{vault_password}'");
        postgres.query(&create).expect("a role");
        let roles =
            fs::read_to_string(repository().join("deploy/postgres/invoices.sql")).expect("a file");
        postgres.query(&roles.replace(":\"vault\"", "vault")).expect("roles");
        set_up(&mesh, &vault, &postgres, &vault_password).await;

        let (listen, address) =
            Listen::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).expect("a port");
        let mut config = config(&mesh, &vault, &postgres);
        config.service.listen = listen;
        let telemetry = TelemetryConfig::default();
        let service = HostedService::start("invoices", &telemetry, |telemetry| async move {
            drawbridge_invoices::start(config, &telemetry).await
        });
        let service = service.await.unwrap_or_else(|error| panic!("{error}: {error:?}"));
        let url = mesh.grpc_url(address);
        let edge = mesh.edge(&[("invoices", &url)], uncached).await;
        Self { mesh, vault, postgres, vault_password, service, edge, _users: users }
    }

    /// Migrates like the deployment of the service does.
    async fn migrate(&self) {
        let folder = tempfile::tempdir().expect("a folder");
        let config = self.config_with_own_login(&folder).await;
        let migrating = drawbridge_invoices::migrate_by_own_login;
        assert_eq!(migrating(config.clone()).await.expect("a schema"), 1);
        assert_eq!(migrating(config).await.expect("nothing to do"), 1);
        // The migrating users own nothing, and are removed.
        let owners = "select distinct pg_get_userbyid(relowner) from pg_class where relnamespace = 'invoices'::regnamespace";
        assert_eq!(self.query(owners), ["invoices_owner"]);
        let members = "select rolname from pg_roles where rolname like 'v-%' and pg_has_role(oid, 'invoices_owner', 'member')";
        eventually("no member of the owner remains", || self.query(members).is_empty()).await;
    }

    /// The configuration of a service that logs in to Vault in its own name, too.
    async fn config_with_own_login(&self, folder: &TempDir) -> drawbridge_invoices::Config {
        let write_id = async |method, path: &str, name: &str| {
            let path = format!("auth/approle/role/invoices/{path}");
            let (_, response) = self.vault.request(method, &path, json!({})).await;
            let id =
                response["data"][name].as_str().unwrap_or_else(|| panic!("{response}")).to_owned();
            let file = folder.path().join(name);
            fs::write(&file, id).expect("a file");
            Some(file)
        };
        let mut config = self.config();
        config.credentials.vault_login = VaultLogin {
            vault_login: Some(LoginMethod::Approle),
            vault_login_file: write_id(Method::POST, "secret-id", "secret_id").await,
            vault_role_id_file: write_id(Method::GET, "role-id", "role_id").await,
        };
        config
    }

    /// The configuration of the service.
    fn config(&self) -> drawbridge_invoices::Config {
        config(&self.mesh, &self.vault, &self.postgres)
    }

    fn query(&self, sql: &str) -> Vec<String> {
        self.postgres.query(sql).unwrap_or_else(|error| panic!("{error}"))
    }

    async fn client(&self, user: &str) -> Client {
        self.edge.client(&self.mesh.client(user).await)
    }

    /// A caller of Search, as the service verifies it.
    async fn caller(&self, user: &str) -> VerifiedCaller {
        let own = sign_in(&self.mesh.mesh.state.issuer, "drawbridge-auth", user, user).await;
        let token = exchange(&self.mesh, &own, SEARCH).await.expect("a token");
        let verifier = Verifier::new("invoices", "drawbridge-auth", self.mesh.transaction_keys());
        verifier.expect("a verifier").verify(Some(&token), SEARCH).await.expect("a caller")
    }
}

fn config(mesh: &TestMesh, vault: &Vault, postgres: &Postgres) -> drawbridge_invoices::Config {
    let url = format!("postgres://127.0.0.1:{}/postgres?sslmode=disable", postgres.port).into();
    let auth_url = mesh.mesh.state.auth_url.clone();
    let service = ToolServiceConfig::on_free_ports(mesh.transaction_keys());
    let mut config = drawbridge_invoices::Config::new(url, auth_url, service);
    config.database_connections_max = 8;
    config.service.mtls = mesh.mtls_server("invoices");
    config.credentials.vault = Some(VaultConfig::new(vault.url.clone()));
    config
}

/// Sets up Vault with `deploy/vault/setup.toml`.
async fn set_up(mesh: &TestMesh, vault: &Vault, postgres: &Postgres, password: &str) {
    let file = repository().join("deploy/vault/setup.toml");
    let mut setup = setup::read(&ConfigText::read(&file).expect("a file")).expect("a setup");
    let invoices =
        setup.services.iter_mut().find(|service| *service.name == "invoices").expect("the service");
    invoices.approle = Some(Approle { secret_id_ttl_seconds: 600 });
    setup.jwks_url = mesh.transaction_keys();
    setup.audit_file = Some(vault.audit_file().display().to_string());
    let database = setup.database.as_mut().expect("a database");
    database.connection_url = postgres.connection_url();
    assert_eq!(database.username, "vault");
    let (config, token) =
        (VaultConfig::new(vault.url.clone()), SecretString::from(vault.root_token.clone()));
    let bootstrap = Bootstrap::new(&config, token).expect("a client");
    let bootstrap = bootstrap.with_database_password(Some(password.into()));
    bootstrap.apply(&setup).await.unwrap_or_else(|error| panic!("{error}: {error:?}"));
}

/// Waits until a condition is met.
async fn eventually(what: &str, is_met: impl Fn() -> bool) {
    let started = Instant::now();
    while !is_met() {
        assert!(started.elapsed() < SETTLE_TIMEOUT, "not within {SETTLE_TIMEOUT:?}: {what}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn each_caller_has_its_own_database_user_which_is_removed_at_revocation_and_at_drain() {
    let world = World::start().await;
    let before = world.query("select rolname from pg_roles order by 1");
    let (alice, bob) = (world.client("alice").await, world.client("bob").await);
    save(&alice, "D-1", true).await;
    let of_alice = world.postgres.leased_users();
    assert_eq!(of_alice.len(), 1, "{of_alice:?}");
    // The database connection is hers.
    let connected = "select distinct usename from pg_stat_activity where application_name = 'drawbridge-invoices'";
    assert_eq!(world.query(connected), of_alice);
    assert_eq!(found(&bob, json!({})).await, [""; 0]);
    let mut of_bob = world.postgres.leased_users();
    of_bob.retain(|user| !of_alice.contains(user));
    assert_eq!(of_bob.len(), 1, "{of_bob:?}");
    assert_ne!(of_alice[0][..34], of_bob[0][..34], "the names contain a hash of the principal");

    let (state, platform) = (&world.mesh.mesh.state, platform(&world.mesh).await);
    revoke_of(&world.mesh, &platform, state.issuer_name(), Which::Subject("alice".to_owned()))
        .await;
    eventually("alice's user is removed", || world.postgres.leased_users() == of_bob).await;
    eventually("alice's connections are closed", || world.query(connected) == of_bob).await;

    // The process's environment contains no database credentials.
    let environment = fs::read("/proc/self/environ").expect("an environment");
    let environment = String::from_utf8_lossy(&environment).into_owned();
    for secret in
        [&world.vault_password, &world.vault.root_token, &world.postgres.owner().1.to_owned()]
    {
        assert!(!environment.contains(secret.as_str()));
    }
    let debug = format!("{:?}", world.config());
    assert!(!debug.contains("@127.0.0.1"), "{debug}");
    world.service.stop().await;
    let is_restored = || {
        world.postgres.query("select rolname from pg_roles order by 1").expect("roles") == before
    };
    eventually("the original roles are restored", is_restored).await;
}

#[tokio::test]
async fn raw_sql_with_a_lease_sees_only_the_rows_of_its_principal() {
    let world = World::start().await;
    save(&world.client("alice").await, "D-2", true).await;
    let vault =
        drawbridge_credentials::Vault::new("invoices", VaultConfig::new(world.vault.url.clone()));
    let source = CredentialSource::Vault(vault.expect("a client").into());
    let credentials = Credentials::new(source, CredentialLimits::default());
    let mut principals = Vec::new();
    for user in ["alice", "anna", "bob"] {
        let caller = world.caller(user).await;
        let lease =
            credentials.database(&caller, &context(), "invoices-reader").await.expect("a lease");
        principals.push((caller.principal().clone(), lease));
    }
    let numbers = |claimed: &str, lease: &drawbridge_credentials::DatabaseLease| {
        let sql =
            format!("set drawbridge.principal = '{claimed}'; select number from invoices.invoices");
        world.postgres.query_as(&lease.username, lease.password.expose_secret(), &sql)
    };
    let [alice, anna, bob] = &principals[..] else { panic!("three leases") };
    assert_eq!(numbers(alice.0.as_str(), &alice.1).expect("rows"), ["D-2"]);
    assert_eq!(numbers(anna.0.as_str(), &anna.1).expect("rows"), ["D-2"], "it is shared");
    assert_eq!(numbers(bob.0.as_str(), &bob.1).expect("no rows"), [""; 0]);
    // A session cannot claim another principal.
    for claimed in [alice.0.as_str(), anna.0.as_str(), "bob@acme@https%3A%2F%2Fidp", ""] {
        let refused = numbers(claimed, &bob.1).expect_err("an error");
        assert!(refused.contains("was not made for the principal"), "{refused}");
    }
    // A reader can neither write nor change the schema.
    for sql in [
        "update invoices.invoices set shared = true",
        "delete from invoices.invoices",
        "insert into invoices.approvals (invoice_id, approved_by, confirmed) select id, owner, true from invoices.invoices",
        "alter table invoices.invoices disable row level security",
        "set role invoices_owner",
        "create table invoices.mine (a int)",
    ] {
        let sql = format!("set drawbridge.principal = '{}'; {sql}", alice.0);
        let lease = &alice.1;
        let refused =
            world.postgres.query_as(&lease.username, lease.password.expose_secret(), &sql);
        let refused = refused.expect_err("an error");
        assert!(
            refused.contains("denied") || refused.contains("must be owner"),
            "{sql}: {refused}"
        );
    }
    credentials.close().await;
}

#[tokio::test]
async fn a_dropped_or_disconnected_database_user_is_replaced_within_the_call() {
    let world = World::start().await;
    let alice = world.client("alice").await;
    save(&alice, "D-3", false).await;
    assert_eq!(found(&alice, json!({})).await, ["D-3"]);
    let users = world.postgres.leased_users();
    for user in &users {
        world.query(&format!("drop role {user:?}"));
    }
    // Its open connections are still used.
    assert_eq!(found(&alice, json!({})).await, ["D-3"]);
    let replaced = world.postgres.leased_users();
    assert!(replaced.len() == 1 && !users.contains(&replaced[0]), "{users:?} {replaced:?}");

    world.query("select pg_terminate_backend(pid) from pg_stat_activity where usename like 'v-%'");
    assert_eq!(found(&alice, json!({})).await, ["D-3"]);
    save(&alice, "D-4", false).await;
}

#[tokio::test]
async fn an_approval_is_written_by_the_approvers_own_user() {
    let world = World::start().await;
    let saved = save(&world.client("alice").await, "D-5", false).await;
    let (anna, bob) = (world.client("anna").await, world.client("bob").await);
    let id = &saved["invoice_id"];
    let elicits = || json!({ "elicitation": {} });
    // An approver of another tenant.
    let hidden = approve(&bob, id, elicits(), json!({})).await;
    assert!(hidden.message().contains("no such invoice"), "{hidden:?}");
    let elicitation = approve(&anna, id, elicits(), json!({})).await;
    assert_eq!(elicitation.json["result"]["resultType"], "input_required", "{elicitation:?}");
    assert_eq!(world.query("select count(*) from invoices.approvals"), ["0"]);
    let done = approve(&anna, id, elicits(), respond(&elicitation, "accept", true)).await;
    let approved = &done.json["result"]["structuredContent"]["invoice"];
    assert_eq!(approved["approval"]["approved_by"], "anna", "{done:?}");
    let written =
        world.query("select split_part(approved_by, '@', 1), confirmed from invoices.approvals");
    assert_eq!(written, ["anna|t"]);
}

#[tokio::test]
async fn a_missing_schema_is_reported_and_awaited() {
    let world = World::unmigrated().await;
    let alice = world.client("alice").await;
    let refused = alice.call_tool("invoices_search", json!({})).await;
    assert!(refused.message().contains("the tool service is unavailable; retry"), "{refused:?}");
    let readiness = world.service.running.readiness();
    let reason = readiness.reason().expect("a reason");
    assert!(reason.contains("no version") && reason.contains("run `migrate`"), "{reason}");

    world.migrate().await;
    tokio::time::timeout(SETTLE_TIMEOUT, readiness.wait_ready()).await.expect("readiness");
    // The edge polls the service's readiness.
    let started = Instant::now();
    while alice.call_tool("invoices_search", json!({})).await.json["result"]["structuredContent"]
        .is_null()
    {
        assert!(started.elapsed() < SETTLE_TIMEOUT, "the service is not served");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test]
async fn a_service_with_its_own_login_checks_the_schema_before_any_call() {
    let world = World::unmigrated().await;
    let folder = tempfile::tempdir().expect("a folder");
    let config = world.config_with_own_login(&folder).await;
    let telemetry = TelemetryConfig::default();
    let service = HostedService::start("invoices", &telemetry, |telemetry| async move {
        drawbridge_invoices::start(config, &telemetry).await
    });
    let service = service.await.unwrap_or_else(|error| panic!("{error}: {error:?}"));
    let readiness = service.running.readiness();
    let reason = || readiness.reason().unwrap_or_default();
    eventually("it is not ready", || reason().contains("no version")).await;
    assert!(reason().contains("requires version 1 or later: run `migrate`"), "{}", reason());

    world.migrate().await;
    tokio::time::timeout(SETTLE_TIMEOUT, readiness.wait_ready()).await.expect("readiness");
    // The migration of a newer version of the service.
    world.query("insert into invoices._sqlx_migrations values (2, 'newer', now(), true, '', 0)");
    let alice = world.client("alice").await;
    save(&alice, "D-6", false).await;
    assert_eq!(found(&alice, json!({})).await, ["D-6"]);
    let config = world.config_with_own_login(&folder).await;
    let version = drawbridge_invoices::migrate_by_own_login(config).await.expect("nothing to do");
    assert_eq!(version, 2);
}
