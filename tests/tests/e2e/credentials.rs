//! Credentials from a real Vault for users of a real database, on behalf of callers that a real
//! auth authenticated.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use drawbridge_config::setup::{Database, DatabaseRole, ServiceSetup, Setup};
use drawbridge_credentials::{
    CredentialLimits, CredentialSource, Credentials, CredentialsError, VaultConfig,
};
use drawbridge_mesh::vault::bootstrap::Bootstrap;
use drawbridge_runtime::{LogFormat, LogSink, RequestId, Telemetry, TelemetryConfig};
use drawbridge_tests::{Postgres, TestMesh, Vault, sign_in};
use drawbridge_transport::{
    CallContext,
    transaction_token::{
        Principal, TransactionClaims, TransactionContext, VerifiedCaller, Verifier,
    },
};
use secrecy::SecretString;

use crate::identity::exchange;

mod aws;
mod azure;
mod certificates;
mod keys;
mod leases;
mod load;
mod outages;
mod own;
mod revocation;
mod setup;
mod sharing;
mod terraform;
mod tls;

/// The time limit for Vault's background work, on a busy machine too.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(20);
const RPC: &str = "drawbridge.code.v1.CodeService/ListFiles";
const ROLE: &str = "code-reader";

/// A mesh in which every caller may call `code`, a Vault that trusts its auth, and a database whose
/// users Vault creates.
struct World {
    mesh: TestMesh,
    vault: Vault,
    postgres: Postgres,
    setup: Setup,
}

impl World {
    /// Starts all of it and sets up Vault.
    async fn start(change: impl FnOnce(&mut Setup)) -> Self {
        let mut world = Self::bare().await;
        change(&mut world.setup);
        world.bootstrap().await;
        world
    }

    /// Starts all of it, without setting up Vault.
    async fn bare() -> Self {
        Self::bare_with(Vault::start()).await
    }

    async fn bare_with(vault: impl Future<Output = Vault>) -> Self {
        let mesh = TestMesh::with(|config| {
            std::fs::remove_file(config.policies.join("tenants.cedar")).expect("a removable file");
            std::fs::remove_dir_all(config.policies.join("tests")).expect("a removable folder");
            let policy =
                "@id(\"all-code\")\npermit (principal, action, resource in Service::\"code\");\n";
            std::fs::write(config.policies.join("all-code.cedar"), policy).expect("a file");
        })
        .await;
        let (vault, postgres) = tokio::join!(vault, Postgres::start());
        let setup = setup(&mesh, &vault, &postgres);
        Self { mesh, vault, postgres, setup }
    }

    fn config(&self) -> VaultConfig {
        VaultConfig::new(self.vault.url.clone())
    }

    async fn bootstrap(&self) {
        let config = self.config();
        let done = self.bootstrap_of(&config).apply(&self.setup).await;
        done.unwrap_or_else(|error| panic!("{error}: {error:?}"));
    }

    /// What sets up the Vault of `config`, by its root token.
    fn bootstrap_of<'a>(&self, config: &'a VaultConfig) -> Bootstrap<'a> {
        let token = SecretString::from(self.vault.root_token.clone());
        let (_, password) = self.postgres.owner();
        let bootstrap = Bootstrap::new(config, token).expect("a client");
        bootstrap.with_database_password(Some(password.into()))
    }

    /// The credentials of the service `service`.
    fn credentials_of(&self, service: &str, limits: CredentialLimits) -> Credentials {
        let vault = drawbridge_credentials::Vault::new(service, self.config()).expect("a client");
        Credentials::new(CredentialSource::Vault(vault.into()), limits)
    }

    fn credentials(&self) -> Credentials {
        self.credentials_of("code", CredentialLimits::default())
    }

    /// A caller of `code`, as the service verifies it.
    async fn caller(&self, user: &str) -> VerifiedCaller {
        let token = self.transaction_token(user).await;
        let verifier = Verifier::new("code", "drawbridge-auth", self.mesh.transaction_keys());
        verifier.expect("a verifier").verify(Some(&token), RPC).await.expect("a caller")
    }

    async fn transaction_token(&self, user: &str) -> String {
        let own = sign_in(&self.mesh.mesh.state.issuer, "drawbridge-auth", user, user).await;
        exchange(&self.mesh, &own, RPC).await.expect("a token")
    }
}

fn setup(mesh: &TestMesh, vault: &Vault, postgres: &Postgres) -> Setup {
    let (username, _) = postgres.owner();
    let role = DatabaseRole {
        name: ROLE.to_owned().into(),
        own: false,
        creation_statements: vec![
            "CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'"
                .to_owned(),
        ],
        revocation_statements: Vec::new(),
        ttl_seconds: 60.into(),
        max_ttl_seconds: 600,
    };
    let service = |name: &str, database_roles| ServiceSetup {
        name: name.to_owned().into(),
        rpcs: None,
        ttl_seconds: 120.into(),
        max_ttl_seconds: 600,
        database_roles,
        certificate_roles: Vec::new(),
        kubernetes: None,
        approle: None,
    };
    Setup {
        jwks_url: mesh.transaction_keys(),
        auth_issuer: "drawbridge-auth".to_owned(),
        audit_file: Some(vault.audit_file().display().to_string()),
        database: Some(Database {
            name: "postgres".to_owned(),
            connection_url: postgres.connection_url(),
            username: username.to_owned(),
        }),
        pki: None,
        kubernetes: None,
        services: vec![service("code", vec![role]), service("tickets", Vec::new())],
    }
}

fn context() -> CallContext {
    CallContext::new(RequestId::generate(), Duration::from_secs(10))
}

/// A caller of a tenant, as a service has verified it.
fn caller_of_tenant(tenant: Option<&str>) -> VerifiedCaller {
    let claims = TransactionClaims {
        iss: "drawbridge-auth".to_owned(),
        aud: "tickets".to_owned(),
        sub: "erin".to_owned(),
        iat: 0,
        exp: 0,
        txn: "test".to_owned(),
        scope: String::new(),
        tctx: TransactionContext {
            iss: "idp".to_owned(),
            principal: Principal::new("idp", "erin", tenant),
            tenant: tenant.map(str::to_owned),
            client_id: "test".to_owned(),
            tool: "test".to_owned(),
            rpc: "a.B/C".to_owned(),
            message_sha256: None,
            facts: None,
        },
        act: None,
    };
    VerifiedCaller { claims: Arc::new(claims), token: Arc::new("token".into()) }
}

/// Asserts that a source of secrets offers no databases and no certificates.
async fn check_secrets_only(credentials: &Credentials) {
    let caller = caller_of_tenant(Some("acme"));
    let database = credentials.database(&caller, &context(), ROLE).await.map(drop);
    let own = credentials.service_database(ROLE).await.map(drop);
    let certificate = credentials.certificate(&caller, &context(), "role", "name").await.map(drop);
    for result in [database, own, certificate] {
        let error = result.expect_err("no credentials");
        assert!(
            matches!(error, CredentialsError::Unsupported(_)) && !error.is_retryable(),
            "{error:?}"
        );
    }
}

/// Waits until a condition is met.
async fn eventually(what: &str, within: Duration, is_met: impl Fn() -> bool) {
    let started = Instant::now();
    while !is_met() {
        assert!(started.elapsed() < within, "not within {within:?}: {what}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Runs `work` like a service. Returns its log at the level trace, and its metrics.
fn observed<F: Future<Output = ()> + Send + 'static>(
    work: impl FnOnce() -> F + Send + 'static,
) -> (String, String) {
    let log: Arc<Mutex<Vec<u8>>> = Arc::default();
    let config = TelemetryConfig {
        log_format: LogFormat::Json,
        log: "trace".to_owned(),
        log_sink: LogSink::Memory(Arc::clone(&log)),
        ..TelemetryConfig::default()
    };
    let outer = tokio::runtime::Runtime::new().expect("a runtime");
    let telemetry = outer.block_on(async { Telemetry::new("code", &config).expect("telemetry") });
    let inner = telemetry.runtime(2).expect("a runtime");
    inner.block_on(async {
        tokio::spawn(async move { work().await }).await.expect("a completed task");
    });
    let metrics = telemetry.metrics().render();
    let log = log.lock().unwrap_or_else(PoisonError::into_inner);
    (String::from_utf8_lossy(&log).into_owned(), metrics)
}
