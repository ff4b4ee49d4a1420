//! The whole mesh in one process: each service from its own library, in a runtime of its own, with its own
//! logs, traces and metrics.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use drawbridge_edge::ServiceAddress;
use drawbridge_sdk::{BindError, Listen, Running, Telemetry, TelemetryConfig, TelemetryError};
use secrecy::SecretString;
use tokio::runtime::Runtime;
use url::Url;
use uuid::Uuid;

use crate::state::{MeshState, WorkloadCredentials};

/// The audience of tokens that internal callers bring to auth.
const INTERNAL_AUDIENCE: &str = "drawbridge-auth";
/// The command line's own name, as a workload.
const WORKLOAD: &str = "drawbridge-cli";
/// Threads of each service's runtime.
const WORKER_THREADS: usize = 2;
/// How long the services may take to find one another.
const READY_DEADLINE: Duration = Duration::from_secs(20);

/// What kind of mesh to start.
#[derive(Clone, Debug)]
pub struct MeshConfig {
    /// Fixed, well-known ports, or free ones.
    pub ports: Ports,
    /// The folder of Cedar policies.
    pub policies: PathBuf,
    /// The source tree that the service `code` searches.
    pub code_root: PathBuf,
    /// The users of the built-in authorization server. Absent: alice and bob.
    pub users: Option<PathBuf>,
    /// Groups of the command line's own workload identity.
    pub workload_groups: Vec<String>,
    /// Origins of pages that may call the edge.
    pub allowed_origins: Vec<String>,
    /// The largest request body that the edge takes, in bytes.
    pub body_bytes_max: usize,
    /// How long access tokens of the built-in authorization server are valid, in seconds.
    pub access_token_ttl_seconds: u64,
    /// Logs and traces of every service.
    pub telemetry: TelemetryConfig,
}

impl Default for MeshConfig {
    /// Well-known ports, this folder's policies and source tree.
    fn default() -> Self {
        Self {
            ports: Ports::WellKnown,
            policies: PathBuf::from("policies"),
            code_root: PathBuf::from("."),
            users: None,
            workload_groups: vec!["platform".to_owned()],
            allowed_origins: Vec::new(),
            body_bytes_max: 4 * 1024 * 1024,
            access_token_ttl_seconds: 600,
            telemetry: TelemetryConfig::default(),
        }
    }
}

/// Where services listen, on loopback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ports {
    /// The ports that the documentation names.
    WellKnown,
    /// Free ports.
    Free,
}

impl Ports {
    fn bind(self, port: u16) -> Result<(Listen, SocketAddr), BindError> {
        let port = if self == Self::WellKnown { port } else { 0 };
        Listen::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
    }
}

/// The mesh could not start.
#[derive(Debug, thiserror::Error)]
pub enum MeshError {
    /// A port is taken.
    #[error("{0}; is another mesh running? (--free-ports takes free ports)")]
    Bind(#[from] BindError),
    /// A service's telemetry could not start.
    #[error("cannot start the telemetry of {service}")]
    Telemetry {
        /// Which service.
        service: &'static str,
        /// Why.
        source: TelemetryError,
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
    /// An address makes no URL.
    #[error("cannot make a URL")]
    Url(#[from] url::ParseError),
}

/// A mesh that runs.
#[derive(Debug)]
pub struct Mesh {
    /// Services that run, in the order in which they stop: callers before those they call.
    pub services: Vec<Hosted>,
    /// Where clients reach MCP.
    pub mcp_url: Url,
    /// What other commands need to know.
    pub state: MeshState,
}

impl Mesh {
    /// Starts every service and waits until they have found one another.
    ///
    /// # Errors
    /// When a port is taken, a service does not start, or they do not find one another.
    pub async fn start(config: &MeshConfig) -> Result<Self, MeshError> {
        // All sockets first: each service needs to know where others are before any of them starts.
        let (idp_listen, idp) = config.ports.bind(7100)?;
        let (auth_listen, auth) = config.ports.bind(7110)?;
        let (auth_admin_listen, auth_admin) = config.ports.bind(7111)?;
        let (edge_listen, edge) = config.ports.bind(7180)?;
        let (code_listen, code) = config.ports.bind(7210)?;

        let issuer = format!("http://{idp}");
        let mcp_url: Url = format!("http://{edge}/mcp").parse()?;
        let auth_url: Url = format!("http://{auth}").parse()?;
        let code_url: Url = format!("http://{code}").parse()?;
        let client_secret = SecretString::from(format!("{}{}", Uuid::new_v4(), Uuid::new_v4()));

        let idp = drawbridge_idp::Config {
            listen: idp_listen,
            admin_listen: config.ports.bind(7101)?.0,
            issuer: Some(issuer.parse()?),
            resources: vec![mcp_url.to_string(), INTERNAL_AUDIENCE.to_owned()],
            users: config.users.clone(),
            access_token_ttl_seconds: config.access_token_ttl_seconds,
            workloads: vec![drawbridge_idp::Workload {
                client_id: WORKLOAD.to_owned(),
                client_secret: client_secret.clone(),
                groups: config.workload_groups.clone(),
            }],
            ..drawbridge_idp::Config::default()
        };
        let auth = drawbridge_auth::Config {
            listen: auth_listen,
            admin_listen: auth_admin_listen,
            issuer: issuer.clone(),
            audience: vec![mcp_url.to_string()],
            internal_audience: INTERNAL_AUDIENCE.to_owned(),
            policies: config.policies.clone(),
            transaction_issuer: "drawbridge-auth".to_owned(),
            transaction_ttl_seconds: 30,
        };
        let code = drawbridge_code::Config {
            listen: code_listen,
            admin_listen: config.ports.bind(7211)?.0,
            root: config.code_root.clone(),
            file_bytes_max: 1024 * 1024,
            auth_jwks_url: format!("http://{auth_admin}/.well-known/jwks.json").parse()?,
            auth_issuer: "drawbridge-auth".to_owned(),
        };
        let edge = edge_config(config, edge_listen, &mcp_url, &issuer, &auth_url, &code_url)?;

        let telemetry = &config.telemetry;
        let services = vec![
            host(
                "edge",
                telemetry,
                |telemetry| async move { drawbridge_edge::start(edge, &telemetry).await },
            )
            .await?,
            host(
                "code",
                telemetry,
                |telemetry| async move { drawbridge_code::start(code, &telemetry).await },
            )
            .await?,
            host(
                "auth",
                telemetry,
                |telemetry| async move { drawbridge_auth::start(auth, &telemetry).await },
            )
            .await?,
            host("idp", telemetry, |telemetry| async move { drawbridge_idp::start(idp, &telemetry).await })
                .await?,
        ];
        let state = MeshState {
            issuer: issuer.parse()?,
            auth_url,
            internal_audience: INTERNAL_AUDIENCE.to_owned(),
            services: BTreeMap::from([("code".to_owned(), code_url)]),
            workload: WorkloadCredentials { client_id: WORKLOAD.to_owned(), client_secret },
        };
        let mesh = Self { services, mcp_url, state };
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

fn edge_config(
    config: &MeshConfig,
    listen: Listen,
    mcp_url: &Url,
    issuer: &str,
    auth_url: &Url,
    code_url: &Url,
) -> Result<drawbridge_edge::Config, MeshError> {
    let code = "code".parse().map_err(|source: drawbridge_edge::NamespaceError| MeshError::Service {
        service: "edge",
        source: source.into(),
    })?;
    Ok(drawbridge_edge::Config {
        listen,
        admin_listen: config.ports.bind(7181)?.0,
        public_url: mcp_url.clone(),
        authorization_server: issuer.to_owned(),
        scopes: vec!["mcp".to_owned()],
        auth_url: auth_url.clone(),
        services: vec![ServiceAddress { namespace: code, url: code_url.clone() }],
        allowed_origins: config.allowed_origins.clone(),
        allowed_hosts: Vec::new(),
        body_bytes_max: config.body_bytes_max,
        call_timeout_ms: 30_000,
    })
}

/// A service that runs in this process, in a runtime of its own.
#[derive(Debug)]
pub struct Hosted {
    /// The service.
    pub running: Running,
    /// Its telemetry.
    pub telemetry: Arc<Telemetry>,
    runtime: OwnRuntime,
}

impl Hosted {
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

async fn host<E, F>(
    service: &'static str,
    config: &TelemetryConfig,
    start: impl FnOnce(Arc<Telemetry>) -> F,
) -> Result<Hosted, MeshError>
where
    E: std::error::Error + Send + Sync + 'static,
    F: Future<Output = Result<Running, E>> + Send + 'static,
{
    let failed = |source| MeshError::Telemetry { service, source };
    let telemetry = Arc::new(Telemetry::new(service, config).map_err(failed)?);
    let runtime = OwnRuntime(Some(telemetry.runtime(WORKER_THREADS).map_err(failed)?));
    let starting = start(Arc::clone(&telemetry));
    let started = match &runtime.0 {
        Some(own) => own.spawn(starting).await,
        None => unreachable!("it was just made"),
    };
    let broken = |source| MeshError::Service { service, source };
    let running = started.map_err(|error| broken(error.into()))?.map_err(|error| broken(error.into()))?;
    Ok(Hosted { running, telemetry, runtime })
}
