//! The whole mesh in one process, and the servers that it depends on. Each service has its own
//! runtime, logs, traces and metrics.

use std::{path::PathBuf, sync::Arc, time::Duration};

use drawbridge_audit::AuditConfig;
use drawbridge_config::ConfigError;
use drawbridge_edge::{BodyLimits, NamedServices, ServiceAddress};
use drawbridge_runtime::{
    BindError, EnvironmentError, ParseUrlError, RunningService, Telemetry, TelemetryConfig,
    TelemetryError,
};
use drawbridge_transport::MtlsConfig;
use secrecy::SecretString;
use tokio::runtime::Runtime;
use url::Url;

use crate::{
    issuer_name::IssuerName,
    state::{MeshName, MeshState, WorkloadCredentials},
};

use self::plan::Plan;

mod authority;
pub mod calls;
pub mod dependencies;
mod environment;
pub mod issuer_name;
mod plan;
mod services;
mod sockets;
pub mod state;
mod tools;
pub mod vault;

pub use self::{
    authority::{AuthorityError, MeshAuthority},
    services::{ServiceInfo, metric_tables, services},
    sockets::Ports,
    tools::{TOOLS, ToolService, contracts},
    vault::{MeshDatabase, MeshVault},
};
pub use drawbridge_idp::ConfiguredClient;

/// The audience of tokens that internal callers present to auth.
const INTERNAL_AUDIENCE: &str = "drawbridge-auth";
/// The `iss` of transaction tokens.
const TRANSACTION_ISSUER: &str = "drawbridge-auth";
/// The command line's workload name.
pub const WORKLOAD: &str = "drawbridge-cli";
/// Worker threads per service runtime.
const WORKER_THREADS: usize = 2;
/// How long the services may take to become ready.
const READY_DEADLINE: Duration = Duration::from_secs(20);
/// How long to wait for what they depend on.
const DEPENDENCIES_DEADLINE: Duration = Duration::from_secs(2);

/// The config of a mesh.
#[derive(Clone, Debug)]
pub struct MeshConfig {
    /// Well-known ports, or free ones.
    pub ports: Ports,
    /// The name of the mesh, unique per user. Absent: the port of its edge.
    pub name: Option<MeshName>,
    /// The public URL of the MCP endpoint. Absent: `/mcp` at the edge's address.
    pub public_url: Option<Url>,
    /// User-supplied tool services.
    pub own_services: Vec<ServiceAddress>,
    /// The edge's config file.
    pub edge_config: Option<PathBuf>,
    /// Whether the services' environment variables (`DRAWBRIDGE_<SERVICE>_…`) apply.
    pub environment: bool,
    /// The state file of the built-in authorization server. Absent: in memory.
    pub idp_state_file: Option<PathBuf>,
    /// The file in which auth stores revocations. Absent: in memory, or in `redis_url`.
    pub revocations_file: Option<PathBuf>,
    /// The folder of Cedar policies.
    pub policies: PathBuf,
    /// The source tree that the service `code` searches.
    pub code_root: PathBuf,
    /// The issuer of access tokens. Absent: the built-in authorization server.
    pub issuer: Option<IssuerName>,
    /// Tenants that the tokens of `issuer` may name. Empty: any if it is the only issuer, otherwise
    /// none. The built-in authorization server names its users' tenants.
    pub issuer_tenants: Vec<String>,
    /// A TOML file of more accepted issuers.
    pub issuers: Option<PathBuf>,
    /// The users of the built-in authorization server. Absent: alice, bob, carol, dave, erin and
    /// frank.
    pub users: Option<PathBuf>,
    /// Preconfigured clients of the built-in authorization server.
    pub clients: Vec<ConfiguredClient>,
    /// Groups of the command line's workload identity.
    pub workload_groups: Vec<String>,
    /// Origins of pages that may call the edge.
    pub allowed_origins: Vec<String>,
    /// The edge's limits on request bodies.
    pub bodies: BodyLimits,
    /// The Redis that stores what replicas share: sessions and revocations. Absent: they are stored
    /// in this process.
    pub redis_url: Option<SecretString>,
    /// The database of the service `invoices`.
    pub invoices_database_url: SecretString,
    /// The Vault that issues credentials. Absent: none are issued.
    pub vault: Option<MeshVault>,
    /// Whether services use mTLS as in a deployment, with the mesh's own certificate authority.
    pub mtls: bool,
    /// The audit logs of auth, the edge and the authorization server.
    pub audit: AuditConfig,
    /// Logs and traces of every service.
    pub telemetry: TelemetryConfig,
}

impl Default for MeshConfig {
    /// Well-known ports, this folder's policies and source tree.
    fn default() -> Self {
        Self {
            ports: Ports::WELL_KNOWN,
            name: None,
            public_url: None,
            own_services: Vec::new(),
            edge_config: None,
            environment: false,
            idp_state_file: None,
            revocations_file: None,
            policies: PathBuf::from("policies"),
            code_root: PathBuf::from("."),
            issuer: None,
            issuer_tenants: Vec::new(),
            issuers: None,
            users: None,
            clients: Vec::new(),
            workload_groups: vec!["platform".to_owned()],
            allowed_origins: Vec::new(),
            bodies: BodyLimits::default(),
            redis_url: None,
            invoices_database_url: "sqlite::memory:".into(),
            vault: None,
            mtls: true,
            audit: AuditConfig::default(),
            telemetry: TelemetryConfig::default(),
        }
    }
}

/// The mesh could not start.
#[derive(Debug, thiserror::Error)]
pub enum MeshError {
    /// A port is taken.
    #[error("{0}; is another mesh running? (use --free-ports or --first-port for other ports)")]
    Bind(#[from] BindError),
    /// A service's telemetry could not start.
    #[error("cannot start the telemetry of {service}")]
    Telemetry {
        /// Which service.
        service: &'static str,
        /// Why.
        source: Box<TelemetryError>,
    },
    /// A service could not start.
    #[error("cannot start {service}")]
    Service {
        /// Which service.
        service: &'static str,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A service did not become ready in time.
    #[error("{service} is not ready: {reason}")]
    NotReady {
        /// Which service.
        service: &'static str,
        /// Why.
        reason: String,
    },
    /// The services' certificates could not be created.
    #[error("cannot create the services' certificates")]
    Authority(#[from] AuthorityError),
    /// Vault rejected the setup.
    #[error("cannot set up Vault")]
    Vault(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// An address does not form a URL.
    #[error("cannot form a URL")]
    Url(#[from] url::ParseError),
    /// The issuer is not a valid URL.
    #[error("invalid issuer")]
    Issuer(#[from] ParseUrlError),
    /// A service's environment variable is invalid.
    #[error(transparent)]
    Environment(#[from] EnvironmentError),
    /// The edge's config file is invalid.
    #[error(transparent)]
    EdgeConfig(#[from] ConfigError),
    /// A user-supplied service has the namespace of a built-in one.
    #[error("the namespace {namespace} belongs to a built-in service: choose another namespace")]
    OwnService {
        /// The name.
        namespace: String,
    },
}

/// A running mesh.
#[derive(Debug)]
pub struct Mesh {
    /// The services in stop order: callers before callees.
    pub services: Vec<HostedService>,
    /// The MCP endpoint.
    pub mcp_url: Url,
    /// The edge's config file.
    pub edge_config: Option<PathBuf>,
    /// The edge's client mTLS config.
    pub edge_mtls: MtlsConfig,
    /// The user-supplied tool services and virtual servers.
    pub own_services: NamedServices,
    /// The state for other commands.
    pub state: MeshState,
    /// The certificate authority. Absent: services use plaintext.
    pub authority: Option<MeshAuthority>,
}

impl Mesh {
    /// Starts every service and waits until all are ready.
    ///
    /// # Errors
    /// When a port is taken, or a service does not start or become ready.
    pub async fn start(config: &MeshConfig) -> Result<Self, MeshError> {
        // All sockets first: each service needs the others' addresses before it starts.
        let plan = Plan::new(config, TOOLS.iter().map(|tool| (tool.name, tool.port)))?;
        let telemetry = &config.telemetry;
        let auth = plan.auth(config)?;
        let (edge, own_services) = plan.edge(config)?;
        let (edge_config, edge_mtls) = (edge.config.clone(), edge.mtls.clone());
        let tools = tools::prepare(&plan, config)?;
        let mut services = vec![
            HostedService::start("edge", telemetry, |telemetry| async move {
                drawbridge_edge::start(edge, &telemetry).await
            })
            .await?,
        ];
        for (name, start) in tools {
            services.push(HostedService::start(name, telemetry, start).await?);
        }
        services.push(
            HostedService::start("auth", telemetry, |telemetry| async move {
                drawbridge_auth::start(auth, &telemetry).await
            })
            .await?,
        );
        let mut workload = None;
        if let Some(idp_socket) = &plan.idp {
            let credentials = WorkloadCredentials::generate(WORKLOAD);
            let idp = plan.idp(config, idp_socket, &credentials, &own_services)?;
            workload = Some(credentials);
            services.push(
                HostedService::start("idp", telemetry, |telemetry| async move {
                    drawbridge_idp::start(idp, &telemetry).await
                })
                .await?,
            );
        }
        let mut state = plan.state(config, workload, &own_services)?;
        for service in &services {
            let admin = format!("http://{}", service.running.admin).parse()?;
            state.admin.insert(service.telemetry.service().to_owned(), admin);
        }
        if let Some(vault) = &config.vault {
            vault.bootstrap(plan.jwks_url()?).await?;
        }
        let (mcp_url, authority) = (plan.mcp_url, plan.authority);
        let mesh =
            Self { services, mcp_url, edge_config, edge_mtls, own_services, state, authority };
        mesh.wait_until_ready().await?;
        Ok(mesh)
    }

    async fn wait_until_ready(&self) -> Result<(), MeshError> {
        let deadline = tokio::time::Instant::now() + READY_DEADLINE;
        for service in &self.services {
            let readiness = service.running.readiness();
            if tokio::time::timeout_at(deadline, readiness.wait_started()).await.is_err() {
                let reason = readiness.reason().unwrap_or_default();
                return Err(MeshError::NotReady { service: service.telemetry.service(), reason });
            }
        }
        // What the mesh does not start, as another issuer, may be away.
        let ready = self.services.iter().map(|service| service.running.readiness());
        let ready = futures::future::join_all(ready.map(|it| async move { it.wait_ready().await }));
        let _ = tokio::time::timeout(DEPENDENCIES_DEADLINE, ready).await;
        Ok(())
    }

    /// The service of this name.
    #[must_use]
    pub fn service(&self, name: &str) -> Option<&HostedService> {
        self.services.iter().find(|service| service.telemetry.service() == name)
    }

    /// Stops every service, callers first, so that calls in flight can complete.
    pub async fn stop(self) {
        for service in self.services {
            service.stop().await;
        }
    }
}

/// A service in this process, with its own runtime.
#[derive(Debug)]
pub struct HostedService {
    /// The service.
    pub running: RunningService,
    /// Its telemetry.
    pub telemetry: Arc<Telemetry>,
    runtime: ServiceRuntime,
}

impl HostedService {
    /// Starts a service in its own runtime.
    ///
    /// # Errors
    /// When its telemetry or the service fails to start.
    pub async fn start<E, F>(
        service: &'static str,
        config: &TelemetryConfig,
        start: impl FnOnce(Arc<Telemetry>) -> F,
    ) -> Result<Self, MeshError>
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>> + Send + 'static,
        F: Future<Output = Result<RunningService, E>> + Send + 'static,
    {
        let telemetry_failed = |source| MeshError::Telemetry { service, source: Box::new(source) };
        let telemetry = Arc::new(Telemetry::new(service, config).map_err(telemetry_failed)?);
        let runtime =
            ServiceRuntime(Some(telemetry.runtime(WORKER_THREADS).map_err(telemetry_failed)?));
        let starting = start(Arc::clone(&telemetry));
        let started = match &runtime.0 {
            Some(own) => own.spawn(starting).await,
            None => unreachable!("it was just made"),
        };
        let service_failed = |source| MeshError::Service { service, source };
        let running = started
            .map_err(|error| service_failed(error.into()))?
            .map_err(|error| service_failed(error.into()))?;
        Ok(Self { running, telemetry, runtime })
    }

    /// Stops the service and flushes its telemetry.
    pub async fn stop(self) {
        let Self { running, telemetry, runtime } = self;
        // On its own runtime, so that its tasks log through its own telemetry.
        if let Some(runtime) = &runtime.0
            && let Err(error) = runtime.spawn(running.stop()).await
        {
            tracing::error!(service = telemetry.service(), %error, "a service failed to stop");
        }
        telemetry.flush().await;
    }
}

/// A runtime that may be dropped in async code: it does not wait for its tasks.
#[derive(Debug)]
struct ServiceRuntime(Option<Runtime>);

impl Drop for ServiceRuntime {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
