//! The table of docs/reference/readiness.md: what takes a replica out, and what only degrades it.

use std::{net::SocketAddr, time::Duration};

use drawbridge_credentials::{
    CredentialLimits, CredentialSource, Credentials, Vault as VaultSource, VaultConfig,
};
use drawbridge_mesh::{HostedService, dependencies::ReservedPort};
use drawbridge_runtime::{Listen, Readiness, ServiceBuilder, TelemetryConfig};
use drawbridge_sdk::ToolServiceConfig;
use drawbridge_tests::{
    Postgres, REPLICA_SECRET, Redis, TestMesh, Vault, conformance::Conformance, connect,
    serve_conformance,
};
use serde_json::Value;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
    time::{sleep, timeout},
};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

/// The time limit of a change, on a busy machine too.
const STEP_TIMEOUT: Duration = Duration::from_secs(60);

async fn until(what: &str, is_met: impl Fn() -> bool) {
    let waiting = async {
        while !is_met() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(STEP_TIMEOUT, waiting).await.unwrap_or_else(|_| panic!("not in time: {what}"));
}

/// Waits until the service is out, for this reason.
async fn until_out(readiness: &Readiness, reason: &str) {
    until(reason, || readiness.reason().as_deref() == Some(reason)).await;
}

/// Waits until the service is degraded, for this reason, and asserts that it is not out.
async fn until_degraded(readiness: &Readiness, name: &str, reason: &str) {
    until(reason, || readiness.notes().get(name).map(String::as_str) == Some(reason)).await;
    assert_eq!(readiness.reason(), None);
}

async fn until_undisturbed(readiness: &Readiness) {
    until("no problem", || readiness.reason().is_none() && readiness.notes().is_empty()).await;
}

#[tokio::test]
async fn an_edge_is_out_while_no_replica_of_auth_can_be_asked() {
    let mesh = TestMesh::start().await;
    let auth = mesh.auth(|_| {});
    let edge = mesh.edge(&[], |config| config.auth_urls = vec![auth.url.clone().into()]).await;
    let readiness = edge.hosted.running.readiness();
    until_out(&readiness, "auth: no replica can be asked").await;
    let running = auth.start().await;
    until_undisturbed(&readiness).await;
    running.stop().await;
    until_out(&readiness, "auth: no replica can be asked").await;
    let _running = auth.start().await;
    until_undisturbed(&readiness).await;
}

#[tokio::test]
async fn an_edge_without_any_contract_is_out_and_without_one_tool_service_only_degraded() {
    let mesh = TestMesh::with(serve_conformance).await;
    let port = ReservedPort::new().expect("a port");
    let address = SocketAddr::from(([127, 0, 0, 1], port.number));
    let url = mesh.grpc_url(address);
    let edge = mesh.edge(&[("test", &url)], |_| {}).await;
    let readiness = edge.hosted.running.readiness();
    until_out(&readiness, "catalog: no contract of a tool service has been read yet").await;
    let mut service = Conformance::default();
    service.mtls = mesh.mtls_server("test");
    let start = async || {
        let (service, keys) = (service.clone(), mesh.transaction_keys());
        HostedService::start("test", &TelemetryConfig::default(), move |telemetry| async move {
            service.start(Listen::Address(address), keys, &telemetry).await
        })
        .await
        .unwrap_or_else(|error| panic!("{error}: {error:?}"))
    };
    let running = start().await;
    until_undisturbed(&readiness).await;
    running.stop().await;
    until_degraded(&readiness, "service:test", "no replica can be reached").await;
    let _running = start().await;
    until_undisturbed(&readiness).await;
}

#[tokio::test]
async fn without_redis_an_edge_is_degraded_and_out_only_if_a_limit_is_closed_to_all() {
    let (mut redis, mesh) = (Redis::start().await, TestMesh::start().await);
    let folder = tempfile::tempdir().expect("a folder");
    let mut edges = vec![];
    for without_redis in ["local", "closed"] {
        let file = folder.path().join(format!("{without_redis}.toml"));
        let limit = format!(
            "[[limit]]\nname = \"all\"\nby = \"principal\"\nrate = 1000\nper_seconds = 1\n\
             without_redis = \"{without_redis}\"\n"
        );
        std::fs::write(&file, limit).expect("a file");
        let edge = mesh.edge(&[], |config| {
            config.config = Some(file);
            config.secret = Some(REPLICA_SECRET.into());
            config.redis_url = Some(redis.url.as_str().into());
        });
        edges.push(edge.await);
    }
    let [local, closed] = [0, 1].map(|index: usize| edges[index].hosted.running.readiness());
    until_undisturbed(&local).await;
    until_undisturbed(&closed).await;
    redis.kill();
    until_degraded(&local, "redis", "cannot be reached").await;
    until_out(&closed, "rate_limits: the limit all is closed while Redis is away").await;
    redis.restart().await;
    until_undisturbed(&local).await;
    until_undisturbed(&closed).await;
}

#[tokio::test]
async fn auth_is_out_while_revocations_or_the_keys_of_every_issuer_are_missing() {
    let (mut redis, mesh) = (Redis::start().await, TestMesh::start().await);
    let auth = mesh.auth(|config| config.redis_url = Some(redis.url.as_str().into()));
    let running = auth.start().await;
    let readiness = running.running.readiness();
    until_undisturbed(&readiness).await;
    redis.kill();
    until_out(&readiness, "revocations: their list cannot be read; all tokens are rejected").await;
    redis.restart().await;
    until_undisturbed(&readiness).await;

    let nowhere = ReservedPort::new().expect("a port");
    let issuer = format!("http://127.0.0.1:{}", nowhere.number);
    let auth = mesh.auth(|config| config.issuer = Some(issuer));
    let running = auth.start().await;
    let readiness = running.running.readiness();
    until_out(&readiness, "issuer_keys: the keys of no issuer could be fetched").await;
}

/// A port that leads to a server, or to nothing.
struct Path {
    address: SocketAddr,
    forwarding: Option<JoinHandle<()>>,
}

impl Path {
    /// Opens the port again, to this port.
    async fn open(&mut self, to: u16) {
        let listener = TcpListener::bind(self.address).await.expect("the port");
        self.forwarding = Some(tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut from, _)) = listener.accept().await {
                connections.spawn(async move {
                    if let Ok(mut to) = TcpStream::connect(("127.0.0.1", to)).await {
                        let _ = copy_bidirectional(&mut from, &mut to).await;
                    }
                });
            }
        }));
    }

    /// Closes the port, with its connections.
    async fn close(&mut self) {
        if let Some(forwarding) = self.forwarding.take() {
            forwarding.abort();
            let _ = forwarding.await;
        }
    }
}

#[tokio::test]
async fn invoices_is_out_without_postgresql_also_for_grpc_health_and_degraded_without_vault() {
    let (mesh, postgres) =
        (TestMesh::with(|config| config.mtls = false).await, Postgres::start().await);
    let port = ReservedPort::new().expect("a port");
    let mut path =
        Path { address: SocketAddr::from(([127, 0, 0, 1], port.number)), forwarding: None };
    let database = format!("postgres://{}/postgres?sslmode=disable", path.address);
    let service = ToolServiceConfig::on_free_ports(mesh.transaction_keys());
    let auth_url = mesh.mesh.state.auth_url.clone();
    let mut config = drawbridge_invoices::Config::new(database.into(), auth_url, service);
    let nowhere = ReservedPort::new().expect("a port");
    let vault = format!("http://127.0.0.1:{}", nowhere.number).parse().expect("a URL");
    config.credentials.vault = Some(VaultConfig::new(vault));
    let telemetry = TelemetryConfig::default();
    let invoices = HostedService::start("invoices", &telemetry, |telemetry| async move {
        drawbridge_invoices::start(config, &telemetry).await
    });
    let invoices = invoices.await.unwrap_or_else(|error| panic!("{error}: {error:?}"));
    let readiness = invoices.running.readiness();
    let url = mesh.grpc_url(&invoices.running.address);
    let health = async || {
        let mut client = HealthClient::new(connect(&url).expect("a channel"));
        let checked = client.check(HealthCheckRequest { service: String::new() }).await;
        checked.expect("an answer").into_inner().status()
    };

    until_out(&readiness, "database: cannot be reached").await;
    assert_eq!(health().await, ServingStatus::NotServing);
    path.open(postgres.port).await;
    until("the database", || readiness.reason().is_none()).await;
    until_degraded(&readiness, "vault", "cannot be reached").await;
    let serving = async {
        while health().await != ServingStatus::Serving {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(STEP_TIMEOUT, serving).await.expect("the health follows");
    path.close().await;
    until_out(&readiness, "database: cannot be reached").await;

    let admin = format!("http://{}", invoices.running.admin);
    let verbose = reqwest::get(format!("{admin}/readyz?verbose")).await.expect("an answer");
    let body: Value = verbose.json().await.expect("JSON");
    let conditions = body["conditions"].as_array().expect("conditions");
    let names: Vec<_> = conditions.iter().map(|it| it["name"].as_str().expect("a name")).collect();
    assert_eq!(names, ["auth_keys", "database", "schema", "serving", "vault"]);
    let database = &conditions[1];
    assert_eq!((&database["effect"], &database["is_up"]), (&"required".into(), &false.into()));
    assert!(database["since"].as_u64().is_some_and(|since| since > 1_700_000_000), "{database}");
    let metrics = reqwest::get(format!("{admin}/metrics")).await.expect("an answer");
    let metrics = metrics.text().await.expect("a text");
    for line in [
        "drawbridge_ready 0",
        "drawbridge_dependency_up{dependency=\"database\",effect=\"required\"} 0",
        "drawbridge_dependency_up{dependency=\"vault\",effect=\"degrading\"} 0",
        "drawbridge_dependency_up{dependency=\"auth_keys\",effect=\"required\"} 1",
    ] {
        assert!(metrics.lines().any(|other| other == line), "{line} is not in\n{metrics}");
    }
}

#[tokio::test]
async fn a_service_is_degraded_while_vault_is_sealed_or_away() {
    let mut vault = Vault::start().await;
    let service = ServiceBuilder::new();
    let readiness = service.readiness();
    readiness.set_ready();
    let source = VaultSource::new("code", VaultConfig::new(vault.url.clone())).expect("a client");
    let source = CredentialSource::Vault(source.into());
    let credentials = Credentials::new(source, CredentialLimits::default());
    credentials.watch_source(&service);
    until_undisturbed(&readiness).await;
    vault.seal().await;
    until_degraded(&readiness, "vault", "is sealed").await;
    vault.kill();
    until_degraded(&readiness, "vault", "cannot be reached").await;
}
