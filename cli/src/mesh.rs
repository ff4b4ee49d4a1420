//! The whole mesh in one process: each service from its own library, in a runtime of its own, with its own
//! logs, traces and metrics.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use drawbridge_auth::decision_log::DecisionLogConfig;
use drawbridge_edge::{BodyLimits, NamedServices, ServiceAddress};
use drawbridge_sdk::{
    BindError, ConfigTextError, EnvironmentError, Listen, MtlsConfig, RunningService, Telemetry,
    TelemetryConfig, TelemetryError, UrlTextError,
};
use secrecy::SecretString;
use tokio::runtime::Runtime;
use url::Url;

use crate::{
    issuer_name::IssuerName,
    state::{MeshName, MeshState, WorkloadCredentials},
};

use self::plan::{Plan, Socket};

mod authority;
mod environment;
mod plan;
mod vault;

pub use self::{
    authority::{AuthorityError, MeshAuthority},
    vault::{MeshDatabase, MeshVault},
};
pub use drawbridge_idp::ConfiguredClient;

/// The audience of tokens that internal callers bring to auth.
const INTERNAL_AUDIENCE: &str = "drawbridge-auth";
/// The `iss` of transaction tokens.
const TRANSACTION_ISSUER: &str = "drawbridge-auth";
/// The command line's own name, as a workload.
pub const WORKLOAD: &str = "drawbridge-cli";
/// Threads of each service's runtime.
const WORKER_THREADS: usize = 2;
/// How long the services may take to find one another.
const READY_DEADLINE: Duration = Duration::from_secs(20);

/// What kind of mesh to start.
#[derive(Clone, Debug)]
pub struct MeshConfig {
    /// Fixed, well-known ports, or free ones.
    pub ports: Ports,
    /// The name of the mesh among those of its user. Absent: the port of its edge.
    pub name: Option<MeshName>,
    /// The URL under which clients know the MCP endpoint. Absent: `/mcp` at the edge's address.
    pub public_url: Option<Url>,
    /// Tool services besides the mesh's own.
    pub own_services: Vec<ServiceAddress>,
    /// The edge's config file.
    pub edge_config: Option<PathBuf>,
    /// Whether the variables of the services' own processes (`DRAWBRIDGE_<SERVICE>_…`) count here too.
    pub environment: bool,
    /// Where the built-in authorization server keeps over restarts what it remembers. Absent: in memory.
    pub idp_state_file: Option<PathBuf>,
    /// Where auth keeps revocations over restarts. Absent: in memory, or in `redis_url`.
    pub revocations_file: Option<PathBuf>,
    /// The folder of Cedar policies.
    pub policies: PathBuf,
    /// The source tree that the service `code` searches.
    pub code_root: PathBuf,
    /// The issuer of access tokens. Absent: the built-in authorization server.
    pub issuer: Option<IssuerName>,
    /// Tenants that the tokens of `issuer` may name. Empty: any while it is the only issuer, and none beside others.
    /// The built-in authorization server names those of its users.
    pub issuer_tenants: Vec<String>,
    /// A TOML file of more issuers, whose tokens are accepted too.
    pub issuers: Option<PathBuf>,
    /// The users of the built-in authorization server. Absent: alice, bob, carol, dave, erin and frank.
    pub users: Option<PathBuf>,
    /// Clients of the built-in authorization server besides those that register themselves.
    pub clients: Vec<ConfiguredClient>,
    /// Groups of the command line's own workload identity.
    pub workload_groups: Vec<String>,
    /// Origins of pages that may call the edge.
    pub allowed_origins: Vec<String>,
    /// What request bodies may take of the edge.
    pub bodies: BodyLimits,
    /// Redis, for what replicas share: sessions and revocations. Absent: this process keeps them.
    pub redis_url: Option<SecretString>,
    /// Where the service `invoices` keeps them.
    pub invoices_database_url: SecretString,
    /// Where credentials come from. Absent: services are given none that Vault knows.
    pub vault: Option<MeshVault>,
    /// Whether services speak mTLS, by an authority of the mesh's own, as they do where they are deployed.
    pub mtls: bool,
    /// What is written down of decisions.
    pub decision_log: DecisionLogConfig,
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
            decision_log: DecisionLogConfig::default(),
            telemetry: TelemetryConfig::default(),
        }
    }
}

/// Where services listen, on loopback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ports {
    /// The first is that of the authorization server; the others lie as far above it as those that the documentation
    /// names lie above 7100.
    From(u16),
    /// Free ports.
    Free,
}

impl Ports {
    /// The first of the ports that the documentation names.
    pub const FIRST: u16 = 7100;
    /// How far above the first the last one is.
    pub const SPAN: u16 = 131;
    /// The ports that the documentation names.
    pub const WELL_KNOWN: Self = Self::From(Self::FIRST);
    /// The edge's among those that the documentation names.
    const EDGE: u16 = 7180;

    /// The port of the edge, if it is known before it is bound.
    #[must_use]
    pub fn edge(self) -> Option<u16> {
        match self {
            Self::From(first) => Some(first + (Self::EDGE - Self::FIRST)),
            Self::Free => None,
        }
    }

    /// Binds the port that the documentation names so.
    fn bind(self, port: u16) -> Result<Socket, BindError> {
        let port = match self {
            Self::From(first) => first + (port - Self::FIRST),
            Self::Free => 0,
        };
        let (listen, address) = Listen::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
        Ok(Socket { listen, address })
    }
}

/// The mesh could not start.
#[derive(Debug, thiserror::Error)]
pub enum MeshError {
    /// A port is taken.
    #[error("{0}; is another mesh running? (--free-ports takes free ports, --first-port others)")]
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
    /// The services did not find one another in time.
    #[error("{service} is not ready: {reason}")]
    NotReady {
        /// Which service.
        service: &'static str,
        /// Why.
        reason: String,
    },
    /// The certificates of services could not be made.
    #[error("cannot make certificates for the services")]
    Authority(#[from] AuthorityError),
    /// Vault does not take what it is told.
    #[error("cannot set up Vault")]
    Vault(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// An address makes no URL.
    #[error("cannot make a URL")]
    Url(#[from] url::ParseError),
    /// The issuer's name is no URL.
    #[error("cannot use the issuer")]
    Issuer(#[from] UrlTextError),
    /// A service's variable cannot be used.
    #[error(transparent)]
    Environment(#[from] EnvironmentError),
    /// The edge's config file cannot be used.
    #[error(transparent)]
    EdgeConfig(#[from] ConfigTextError),
    /// A service has the name of one of the mesh's own.
    #[error("the mesh has a service {namespace} of its own: give yours another namespace")]
    OwnService {
        /// The name.
        namespace: String,
    },
}

/// A mesh that runs.
#[derive(Debug)]
pub struct Mesh {
    /// Services that run, in the order in which they stop: callers before those they call.
    pub services: Vec<Hosted>,
    /// Where clients reach MCP.
    pub mcp_url: Url,
    /// The edge's config file.
    pub edge_config: Option<PathBuf>,
    /// What the edge shows to tool services, and which it believes.
    pub edge_mtls: MtlsConfig,
    /// The tool services and virtual servers besides the mesh's own.
    pub own_services: NamedServices,
    /// What other commands need to know.
    pub state: MeshState,
    /// What signs the certificates of services. Absent: they speak plaintext.
    pub authority: Option<MeshAuthority>,
}

impl Mesh {
    /// Starts every service and waits until they have found one another.
    ///
    /// # Errors
    /// When a port is taken, a service does not start, or they do not find one another.
    pub async fn start(config: &MeshConfig) -> Result<Self, MeshError> {
        // All sockets first: each service needs to know where others are before any of them starts.
        let plan = Plan::new(config)?;
        let telemetry = &config.telemetry;
        let auth = plan.auth(config)?;
        let (edge, own_services) = plan.edge(config)?;
        let (edge_config, edge_mtls) = (edge.config.clone(), edge.mtls.clone());
        let (code, invoices) = (plan.code(config)?, plan.invoices(config)?);
        let tickets = plan.tickets(config)?;
        let mut services = vec![
            Hosted::start("edge", telemetry, |telemetry| async move {
                drawbridge_edge::start(edge, &telemetry).await
            })
            .await?,
            Hosted::start("code", telemetry, |telemetry| async move {
                drawbridge_code::start(code, &telemetry).await
            })
            .await?,
            Hosted::start("invoices", telemetry, |telemetry| async move {
                drawbridge_invoices::start(invoices, &telemetry).await
            })
            .await?,
            Hosted::start("tickets", telemetry, |telemetry| async move {
                drawbridge_tickets::start(tickets, &telemetry).await
            })
            .await?,
            Hosted::start("auth", telemetry, |telemetry| async move {
                drawbridge_auth::start(auth, &telemetry).await
            })
            .await?,
        ];
        let mut workload = None;
        if let Some(idp_socket) = &plan.idp {
            let credentials = WorkloadCredentials::generate(WORKLOAD);
            let idp = plan.idp(config, idp_socket, &credentials, &own_services)?;
            workload = Some(credentials);
            services.push(
                Hosted::start("idp", telemetry, |telemetry| async move {
                    drawbridge_idp::start(idp, &telemetry).await
                })
                .await?,
            );
        }
        let state = plan.state(config, workload, &own_services)?;
        if let Some(vault) = &config.vault {
            vault.bootstrap(plan.keys()?).await?;
        }
        let (mcp_url, authority) = (plan.mcp_url, plan.authority);
        let mesh =
            Self { services, mcp_url, edge_config, edge_mtls, own_services, state, authority };
        mesh.ready().await?;
        Ok(mesh)
    }

    async fn ready(&self) -> Result<(), MeshError> {
        let deadline = tokio::time::Instant::now() + READY_DEADLINE;
        for service in &self.services {
            let readiness = service.running.readiness();
            if tokio::time::timeout_at(deadline, readiness.wait()).await.is_err() {
                let reason = readiness.reason().unwrap_or_default();
                return Err(MeshError::NotReady { service: service.telemetry.service(), reason });
            }
        }
        Ok(())
    }

    /// The service of this name.
    #[must_use]
    pub fn service(&self, name: &str) -> Option<&Hosted> {
        self.services.iter().find(|service| service.telemetry.service() == name)
    }

    /// Stops every service: callers first, so that calls in flight can end.
    pub async fn stop(self) {
        for service in self.services {
            service.stop().await;
        }
    }
}

/// A service that runs in this process, in a runtime of its own.
#[derive(Debug)]
pub struct Hosted {
    /// The service.
    pub running: RunningService,
    /// Its telemetry.
    pub telemetry: Arc<Telemetry>,
    runtime: OwnRuntime,
}

impl Hosted {
    /// Starts a service in a runtime of its own.
    ///
    /// # Errors
    /// When its telemetry or the service itself does not start.
    pub async fn start<E, F>(
        service: &'static str,
        config: &TelemetryConfig,
        start: impl FnOnce(Arc<Telemetry>) -> F,
    ) -> Result<Self, MeshError>
    where
        E: std::error::Error + Send + Sync + 'static,
        F: Future<Output = Result<RunningService, E>> + Send + 'static,
    {
        let failed = |source| MeshError::Telemetry { service, source: Box::new(source) };
        let telemetry = Arc::new(Telemetry::new(service, config).map_err(failed)?);
        let runtime = OwnRuntime(Some(telemetry.runtime(WORKER_THREADS).map_err(failed)?));
        let starting = start(Arc::clone(&telemetry));
        let started = match &runtime.0 {
            Some(own) => own.spawn(starting).await,
            None => unreachable!("it was just made"),
        };
        let broken = |source| MeshError::Service { service, source };
        let running =
            started.map_err(|error| broken(error.into()))?.map_err(|error| broken(error.into()))?;
        Ok(Self { running, telemetry, runtime })
    }

    /// Stops the service and sends its last spans.
    pub async fn stop(self) {
        let Self { running, telemetry, runtime } = self;
        // Its tasks speak through its own telemetry to the end.
        if let Some(runtime) = &runtime.0
            && let Err(error) = runtime.spawn(running.stop()).await
        {
            tracing::error!(service = telemetry.service(), %error, "a service did not stop cleanly");
        }
        telemetry.flush().await;
    }
}

/// A runtime that may be dropped anywhere: what still runs in it is not waited for.
#[derive(Debug)]
struct OwnRuntime(Option<Runtime>);

impl Drop for OwnRuntime {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
