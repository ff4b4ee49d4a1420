use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use drawbridge_credentials::VaultConfig;
use drawbridge_mesh::{
    HostedService, Mesh, MeshConfig, Ports, WORKLOAD, dependencies::ReservedPort,
};
use drawbridge_runtime::{Listen, LogFormat, LogSink, TelemetryConfig};
use drawbridge_sdk::ToolServiceConfig;
use drawbridge_transport::{MtlsConfig, MtlsServerConfig};
use tempfile::TempDir;
use url::Url;

pub use self::contracts::{permit, serve_cached, serve_conformance, serve_notes};
use crate::{
    Client,
    browser::internal_client,
    cached::Cached,
    conformance::Conformance,
    notes::Notes,
    peers::{register, register_mesh},
    repository, sign_in,
};

mod contracts;
mod rollout;

/// The `--secret` of edges that are replicas of one another.
pub const REPLICA_SECRET: &str = "the one secret of all replicas in a test";

/// A whole mesh on free ports, with its own copy of the policies and its own log.
#[derive(Debug)]
pub struct TestMesh {
    /// The mesh.
    pub mesh: Mesh,
    config: MeshConfig,
    log: Arc<Mutex<Vec<u8>>>,
    policies: TempDir,
}

impl TestMesh {
    /// Starts a mesh over this repository's policies and source tree.
    pub async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// Starts a mesh with a changed configuration.
    pub async fn with(change: impl FnOnce(&mut MeshConfig)) -> Self {
        let policies = tempfile::tempdir().expect("a folder");
        copy_folder(&repository().join("policies"), policies.path());
        let log: Arc<Mutex<Vec<u8>>> = Arc::default();
        let mut config = MeshConfig {
            ports: Ports::Free,
            policies: policies.path().to_owned(),
            code_root: repository(),
            clients: vec![internal_client()],
            telemetry: TelemetryConfig {
                log_format: LogFormat::Json,
                log: "debug".to_owned(),
                log_sink: LogSink::Memory(Arc::clone(&log)),
                ..TelemetryConfig::default()
            },
            ..MeshConfig::default()
        };
        change(&mut config);
        let mesh = Box::pin(Mesh::start(&config))
            .await
            .unwrap_or_else(|error| panic!("{error}: {error:?}"));
        register_mesh(&mesh);
        Self { mesh, config, log, policies }
    }

    /// Stops the mesh and starts it again, on other ports, with the policies as they are now.
    pub async fn restart(self) -> Self {
        let Self { mesh, config, log, policies } = self;
        mesh.stop().await;
        let mesh = Box::pin(Mesh::start(&config)).await.expect("a mesh that starts again");
        register_mesh(&mesh);
        Self { mesh, config, log, policies }
    }

    /// A client without a token.
    pub fn anonymous(&self) -> Client {
        Client::new(self.mesh.mcp_url.clone(), None)
    }

    /// A client with the token of a demo user, obtained by signing in.
    pub async fn client(&self, user: &str) -> Client {
        let token = sign_in(&self.mesh.state.issuer, self.mesh.mcp_url.as_str(), user, user).await;
        Client::new(self.mesh.mcp_url.clone(), Some(token))
    }

    /// A client with this token.
    pub fn client_with(&self, token: &str) -> Client {
        Client::new(self.mesh.mcp_url.clone(), Some(token.to_owned()))
    }

    /// Replaces the first occurrence of `from` in a policy file, which must contain it.
    pub fn edit_policy(&self, file: &str, from: &str, to: &str) {
        let path = self.policies.path().join(file);
        let text = fs::read_to_string(&path).expect("a policy file");
        assert!(text.contains(from), "{file} does not contain {from}");
        fs::write(path, text.replacen(from, to, 1)).expect("a policy file that can be written");
    }

    /// Writes a file in the folder of policies.
    pub fn write_policy(&self, file: &str, text: &str) {
        fs::write(self.policies.path().join(file), text).expect("a file");
    }

    /// The log of all services so far.
    pub fn log(&self) -> String {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&log).into_owned()
    }

    /// Starts another edge of this mesh: a replica, or one in front of other services. It accepts
    /// the mesh's tokens.
    pub async fn edge(
        &self,
        services: &[(&str, &Url)],
        change: impl FnOnce(&mut drawbridge_edge::Config),
    ) -> Edge {
        self.edge_with_telemetry(&self.config.telemetry, services, change).await
    }

    /// Like [`Self::edge`], with its own logs and traces.
    pub async fn edge_with_telemetry(
        &self,
        telemetry: &TelemetryConfig,
        services: &[(&str, &Url)],
        change: impl FnOnce(&mut drawbridge_edge::Config),
    ) -> Edge {
        let (listen, address) =
            Listen::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).expect("a port");
        let services = services.iter().map(|(namespace, url)| format!("{namespace}={url}").parse());
        let state = &self.mesh.state;
        let issuer = state.issuer.to_string();
        let mut config = drawbridge_edge::Config {
            listen,
            admin_listen: "127.0.0.1:0".parse().expect("an address"),
            services: services.collect::<Result<_, _>>().expect("services"),
            allowed_hosts: vec![address.to_string()],
            allowed_origins: vec![format!("http://{address}")],
            mtls: self.mtls("edge"),
            ..drawbridge_edge::Config::new(
                self.mesh.mcp_url.clone(),
                issuer,
                state.auth_url.clone(),
            )
        };
        change(&mut config);
        let hosted = HostedService::start("edge", telemetry, |telemetry| async move {
            drawbridge_edge::start(config, &telemetry).await
        });
        let hosted = hosted.await.unwrap_or_else(|error| panic!("{error}: {error:?}"));
        hosted.running.readiness().wait_started().await;
        Edge { hosted, url: format!("http://{address}/mcp").parse().expect("a URL") }
    }

    /// A replica of auth over the policies of this mesh, not yet started. It has its own signing
    /// keys.
    pub fn auth(&self, change: impl FnOnce(&mut drawbridge_auth::Config)) -> Auth {
        let ports = [(); 2].map(|()| ReservedPort::new().expect("a port"));
        let [address, admin] =
            [0, 1].map(|index| SocketAddr::from((Ipv4Addr::LOCALHOST, ports[index].number)));
        let issuer = self.mesh.state.issuer_name().to_owned();
        let mut config = drawbridge_auth::Config {
            listen: Listen::Address(address),
            admin_listen: Listen::Address(admin),
            allow_private_addresses: true,
            internal_audience: self.mesh.state.internal_audience.clone(),
            policies: self.policies.path().to_owned().into(),
            ..drawbridge_auth::Config::new(issuer, vec![self.mesh.mcp_url.to_string()])
        };
        change(&mut config);
        let url = |address: SocketAddr, path: &str| {
            format!("http://{address}{path}").parse().expect("a URL")
        };
        Auth {
            url: url(address, ""),
            keys: url(admin, "/.well-known/jwks.json"),
            config,
            telemetry: self.config.telemetry.clone(),
            _ports: ports,
        }
    }

    /// The gRPC URL of a service of this mesh: `https` if the mesh uses mTLS.
    pub fn grpc_url(&self, address: impl std::fmt::Display) -> Url {
        let scheme = if self.mesh.authority.is_some() { "https" } else { "http" };
        format!("{scheme}://{address}").parse().expect("a URL")
    }

    /// The certificate and the trusted authorities of a service of this mesh.
    pub fn mtls(&self, service: &str) -> MtlsConfig {
        self.mtls_server(service).identity
    }

    /// Like [`Self::mtls`], for a service that the edge and the command line may call.
    pub fn mtls_server(&self, service: &str) -> MtlsServerConfig {
        let issued = self
            .mesh
            .authority
            .as_ref()
            .map(|authority| authority.issue_to_server(service, &["edge", WORKLOAD]));
        issued.map(|issued| issued.expect("a certificate")).unwrap_or_default()
    }

    /// The URL of the keys of transaction tokens.
    pub fn transaction_keys(&self) -> Url {
        let auth = self.mesh.service("auth").expect("auth");
        format!("http://{}/.well-known/jwks.json", auth.running.admin).parse().expect("a URL")
    }

    /// Starts the conformance service and an edge in front of it, for a mesh that
    /// [`serve_conformance`] has set up.
    pub async fn conformance(
        &self,
        change: impl FnOnce(&mut drawbridge_edge::Config),
    ) -> (Conformance, HostedService, Edge) {
        self.conformance_of(self.transaction_keys(), change).await
    }

    /// Like [`Self::conformance`], for transaction tokens of another auth.
    pub async fn conformance_of(
        &self,
        keys: Url,
        change: impl FnOnce(&mut drawbridge_edge::Config),
    ) -> (Conformance, HostedService, Edge) {
        let mut service = Conformance::default();
        service.mtls = self.mtls_server("test");
        let (listen, address) =
            Listen::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).expect("a port");
        let hosted = rollout::host(&service, listen, keys, &self.config.telemetry).await;
        let url = self.grpc_url(address);
        register(&self.mesh, "test", &url);
        let edge = self.edge(&[("test", &url)], change).await;
        (service, hosted, edge)
    }

    /// Starts the notes service and an edge, for a mesh that [`serve_notes`] has set up.
    pub async fn notes(
        &self,
        change: impl FnOnce(&mut drawbridge_edge::Config),
    ) -> (HostedService, Edge) {
        let service = Notes { mtls: self.mtls_server("notes") };
        let (listen, address) =
            Listen::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).expect("a port");
        let keys = self.transaction_keys();
        let hosted =
            HostedService::start("notes", &self.config.telemetry, |telemetry| async move {
                service.start(listen, keys, &telemetry).await
            });
        let hosted = hosted.await.expect("the service");
        let url = self.grpc_url(address);
        register(&self.mesh, "notes", &url);
        (hosted, self.edge(&[("notes", &url)], change).await)
    }

    /// Starts the service with cacheable results, for a mesh that [`serve_cached`] has set up.
    pub async fn cached(&self) -> (Cached, HostedService, Url) {
        let service = Cached::default();
        let (listen, address) =
            Listen::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).expect("a port");
        let (started, keys) = (service.clone(), self.transaction_keys());
        let hosted =
            HostedService::start("cached", &self.config.telemetry, |telemetry| async move {
                started.start(listen, keys, &telemetry).await
            });
        let url = format!("http://{address}").parse().expect("a URL");
        (service, hosted.await.expect("the service"), url)
    }

    /// Starts a tickets service with credentials from a Vault, and an edge in front of it.
    pub async fn tickets(&self, vault: VaultConfig) -> (HostedService, Edge) {
        let (listen, address) =
            Listen::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).expect("a port");
        let auth_url = self.mesh.state.auth_url.clone();
        let service = ToolServiceConfig::on_free_ports(self.transaction_keys());
        let mut config = drawbridge_tickets::Config::new(auth_url, service);
        config.service.listen = listen;
        config.credentials.vault = Some(vault);
        config.service.mtls = self.mtls_server("tickets");
        let hosted =
            HostedService::start("tickets", &self.config.telemetry, |telemetry| async move {
                drawbridge_tickets::start(config, &telemetry).await
            });
        let hosted = hosted.await.unwrap_or_else(|error| panic!("{error}: {error:?}"));
        let url = self.grpc_url(address);
        let edge = self.edge(&[("tickets", &url)], uncached).await;
        (hosted, edge)
    }

    /// Stops the mesh, which flushes its last spans.
    pub async fn stop(self) {
        self.mesh.stop().await;
    }
}

/// An edge in addition to the mesh's own.
#[derive(Debug)]
pub struct Edge {
    /// The service.
    pub hosted: HostedService,
    /// The URL of its MCP endpoint.
    pub url: Url,
}

impl Edge {
    /// A client of this edge with the token of another client.
    pub fn client(&self, other: &Client) -> Client {
        Client::new(self.url.clone(), Some(other.token().to_owned()))
    }
}

/// A replica of auth that can be stopped and restarted on the same ports.
#[derive(Debug)]
pub struct Auth {
    /// Its gRPC URL.
    pub url: Url,
    /// The URL of its transaction token keys.
    pub keys: Url,
    config: drawbridge_auth::Config,
    telemetry: TelemetryConfig,
    /// No other process gets its ports while it is stopped.
    _ports: [ReservedPort; 2],
}

impl Auth {
    /// The same replica with another configuration.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut drawbridge_auth::Config)) -> Self {
        change(&mut self.config);
        self
    }

    /// Starts it.
    pub async fn start(&self) -> HostedService {
        self.try_start().await.unwrap_or_else(|error| panic!("{error}"))
    }

    /// Starts it.
    ///
    /// # Errors
    /// The error at start, with its debug form.
    pub async fn try_start(&self) -> Result<HostedService, String> {
        let config = self.config.clone();
        let hosted = HostedService::start("auth", &self.telemetry, |telemetry| async move {
            drawbridge_auth::start(config, &telemetry).await
        });
        hosted.await.map_err(|error| format!("{error}: {error:?}"))
    }
}

/// Turns off the result cache of an edge, for tests of the services behind it.
pub fn uncached(config: &mut drawbridge_edge::Config) {
    config.config = Some(repository().join("tests/uncached.toml"));
}

/// Copies a folder, with its folders.
pub fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let path: PathBuf = entry.expect("an entry").path();
        let target = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy_folder(&path, &target);
        } else {
            fs::copy(&path, &target).expect("a file");
        }
    }
}
