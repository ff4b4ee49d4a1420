//! `drawbridge up`: the whole mesh on one machine.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use drawbridge_audit::AuditConfig;
use drawbridge_edge::ServiceAddress;
use drawbridge_runtime::{ShutdownSignals, TelemetryConfig, private_files};
use secrecy::SecretString;
use url::Url;

use drawbridge_mesh::{
    Mesh, MeshConfig, Ports,
    dependencies::{self, Binaries, Dependencies},
    issuer_name::IssuerName,
    state::{MeshName, MeshState},
};

use self::{dependency_status::Dependency, files::Files, own_services::OwnService};

mod calls;
mod dependency_status;
mod files;
mod hangup;
mod own_services;
mod report;

/// The origins of MCP Inspector's page.
const INSPECTOR_ORIGINS: [&str; 2] = ["http://localhost:6274", "http://127.0.0.1:6274"];
/// The edge's variable for Redis; here it applies to the whole mesh.
const EDGE_REDIS_URL: &str = "DRAWBRIDGE_EDGE_REDIS_URL";

/// How to start the mesh.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Examples:
  drawbridge up
  drawbridge init demo && cd demo && drawbridge up
  drawbridge up --config edge.toml --service venues=http://127.0.0.1:7450
  drawbridge up --name second --first-port 8100

The services' own environment variables, such as DRAWBRIDGE_EDGE_SESSIONS_MAX, apply too.")]
pub struct UpArgs {
    /// The folder of Cedar policies. Absent: `policies` in this folder, or the demo's.
    #[arg(long, env = "DRAWBRIDGE_UP_POLICIES", value_name = "DIR")]
    policies: Option<PathBuf>,

    /// The source tree that the service `code` searches.
    #[arg(long, env = "DRAWBRIDGE_UP_CODE_ROOT", default_value = ".")]
    code_root: PathBuf,

    /// The edge's config file: more tool services, limits, guards and the rest of
    /// docs/reference/edge-config.md. Absent: `edge.toml` in this folder, if it exists.
    #[arg(long, env = "DRAWBRIDGE_UP_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,

    /// A tool service of your own, as `namespace=URL`; plaintext is allowed on loopback. Repeat, or
    /// separate by commas.
    #[arg(
        long = "service",
        env = "DRAWBRIDGE_UP_SERVICE",
        value_name = "NAMESPACE=URL",
        value_delimiter = ','
    )]
    services: Vec<ServiceAddress>,

    /// The public URL of the MCP endpoint, with its path. Absent: `/mcp` at the edge's address.
    #[arg(long, env = "DRAWBRIDGE_EDGE_PUBLIC_URL", value_name = "URL")]
    public_url: Option<Url>,

    /// The issuer of access tokens. Absent: a built-in authorization server for development.
    #[arg(long, env = "DRAWBRIDGE_UP_ISSUER", conflicts_with = "users")]
    issuer: Option<IssuerName>,

    /// A tenant that --issuer may name in its tokens; `*` means any. Absent: any if it is the only
    /// issuer, none together with --issuers. Repeat, or separate by commas.
    #[arg(
        long,
        env = "DRAWBRIDGE_UP_ISSUER_TENANTS",
        value_name = "TENANT",
        value_delimiter = ',',
        requires = "issuer"
    )]
    issuer_tenants: Vec<String>,

    /// A TOML file of more issuers of access tokens (docs/reference/issuers-file.md).
    #[arg(long, env = "DRAWBRIDGE_UP_ISSUERS", value_name = "FILE")]
    issuers: Option<PathBuf>,

    /// A TOML file of users for the built-in authorization server. Absent: `users.toml` in this
    /// folder, if it exists, or else alice, bob, carol, dave, erin and frank.
    #[arg(long, env = "DRAWBRIDGE_UP_USERS", value_name = "FILE")]
    users: Option<PathBuf>,

    /// The name of the mesh, for --mesh of other commands and for its persistent state. Absent: the
    /// port of its edge.
    #[arg(long, env = "DRAWBRIDGE_UP_NAME")]
    name: Option<MeshName>,

    /// The first port to listen on, instead of 7100: the authorization server's. All others keep
    /// their offset from it (the edge: 80).
    #[arg(
        long,
        env = "DRAWBRIDGE_UP_FIRST_PORT",
        value_name = "PORT",
        conflicts_with = "free_ports",
        value_parser = clap::value_parser!(u16).range(1..=(u16::MAX - Ports::SPAN) as i64)
    )]
    first_port: Option<u16>,

    /// Listen on free ports instead of the well-known ones.
    #[arg(long)]
    free_ports: bool,

    /// Keep no state across restarts: registered clients, signing keys, refresh tokens and
    /// revocations end with the mesh. Implied by --free-ports without --name.
    #[arg(long)]
    ephemeral: bool,

    /// An origin whose pages may call the edge, in addition to MCP Inspector's. Repeat, or separate
    /// by commas.
    #[arg(long = "allowed-origin", value_name = "ORIGIN", value_delimiter = ',')]
    allowed_origins: Vec<String>,

    /// Print addresses and states as one line of JSON instead of tables.
    #[arg(long)]
    json: bool,

    /// The Redis that stores what replicas share: sessions and revocations. Absent: `redis-server`
    /// is started if it is on PATH; otherwise they are stored in this process.
    #[arg(long, env = "DRAWBRIDGE_UP_REDIS_URL", hide_env_values = true)]
    redis_url: Option<SecretString>,

    /// Start no Redis, Vault or PostgreSQL even if installed, and use embedded substitutes.
    #[arg(long)]
    embedded: bool,

    #[command(flatten)]
    audit: AuditConfig,

    #[command(flatten)]
    telemetry: TelemetryConfig,
}

/// A running mesh, with what the report shows.
struct RunningMesh {
    args: UpArgs,
    files: Files,
    mesh: Mesh,
    dependencies: Vec<Dependency>,
    own_services: Vec<OwnService>,
}

/// Starts the mesh, prints its addresses, and runs until Ctrl-C.
///
/// # Errors
/// When the mesh cannot start.
pub async fn run(args: UpArgs) -> anyhow::Result<()> {
    // The future that starts all services is too large for the stack.
    Box::pin(start(args)).await
}

async fn start(mut args: UpArgs) -> anyhow::Result<()> {
    if args.redis_url.is_none() {
        args.redis_url = std::env::var(EDGE_REDIS_URL)
            .ok()
            .filter(|url| !url.is_empty())
            .map(SecretString::from);
    }
    let name = args.name.clone().or_else(|| Some(ports(&args).edge()?.into()));
    let folder = prepare_state(name.as_ref())?;
    dependencies::remove_leftovers();
    let files = Files::find(&args)?;
    let binaries = binaries(&args);
    let dependencies = Dependencies::start(&binaries).await?;
    dependencies.migrate().await?;
    let recorder = calls::recorder(&mut args.telemetry);
    let mut mesh = Mesh::start(&config(&args, &files, &dependencies, &folder, name)).await?;
    // Before any output: its reader may stop the mesh at once.
    let (mut shutdown, hangup) = (ShutdownSignals::listen(), hangup::signal());
    let calls = calls::serve(&folder, &mesh.state.name, recorder);
    mesh.state.calls_socket = calls.as_ref().map(|socket| socket.path().to_owned());
    let state =
        mesh.state.write(&folder).with_context(|| format!("cannot write {}", folder.display()))?;
    let (dependencies, own_services) = tokio::join!(
        dependency_status::inspect(&args, &files, &dependencies, &binaries),
        own_services::inspect(&files.policies, &mesh)
    );
    let up = RunningMesh { args, files, mesh, dependencies, own_services };
    if up.args.json {
        anstream::println!("{}", report::as_json(&up));
    } else {
        anstream::println!("{}", report::as_text(&up));
    }
    tokio::select! {
        () = shutdown.next() => {}
        () = hangup => {}
    }
    anstream::eprintln!("stopping …");
    drop((state, calls));
    tokio::select! {
        () = up.mesh.stop() => {}
        () = shutdown.next() => anstream::eprintln!("a second signal: ending at once"),
    }
    Ok(())
}

fn ports(args: &UpArgs) -> Ports {
    match (args.free_ports, args.first_port) {
        (true, _) => Ports::Free,
        (false, Some(first)) => Ports::From(first),
        (false, None) => Ports::WELL_KNOWN,
    }
}

/// Prepares the state folder: removes stale files, and fails if a mesh of this name is running.
fn prepare_state(name: Option<&MeshName>) -> anyhow::Result<PathBuf> {
    let folder = MeshState::folder();
    let prepare = || {
        private_files::create_folder(&folder)?;
        let running = name.map(|name| MeshState::running_pid(&folder, name)).transpose()?.flatten();
        if running.is_none() {
            MeshState::remove_stale(&folder)?;
        }
        std::io::Result::Ok(running)
    };
    let running =
        prepare().with_context(|| format!("cannot use the state folder {}", folder.display()))?;
    if let (Some(pid), Some(name)) = (running, name) {
        bail!(
            "a mesh named {name} is already running (pid {pid}): stop it, or start another with \
             --name and --first-port or --free-ports"
        );
    }
    Ok(folder)
}

/// The servers to start with the mesh.
fn binaries(args: &UpArgs) -> Binaries {
    let mut binaries = if args.embedded { Binaries::default() } else { Binaries::find() };
    if args.redis_url.is_some() {
        binaries.redis = None;
    }
    binaries
}

fn config(
    args: &UpArgs,
    files: &Files,
    dependencies: &Dependencies,
    folder: &Path,
    name: Option<MeshName>,
) -> MeshConfig {
    let inspector = INSPECTOR_ORIGINS.map(str::to_owned);
    let default = MeshConfig::default();
    // Without a name, a restarted mesh would not find its files.
    let persistent_file = |what: &str| {
        let name = name.as_ref().filter(|_| !args.ephemeral)?;
        Some(folder.join(format!("{what}-{name}.json")))
    };
    MeshConfig {
        ports: ports(args),
        idp_state_file: persistent_file("idp"),
        revocations_file: persistent_file("revocations").filter(|_| args.redis_url.is_none()),
        name,
        public_url: args.public_url.clone(),
        own_services: args.services.clone(),
        edge_config: files.config.clone(),
        environment: true,
        policies: files.policies.clone(),
        code_root: args.code_root.clone(),
        issuer: args.issuer.clone(),
        issuer_tenants: args.issuer_tenants.clone(),
        issuers: args.issuers.clone(),
        users: files.users.clone(),
        allowed_origins: inspector.into_iter().chain(args.allowed_origins.clone()).collect(),
        redis_url: args.redis_url.clone().or_else(|| dependencies.redis_url()),
        vault: dependencies.mesh_vault(),
        audit: args.audit.clone(),
        telemetry: args.telemetry.clone(),
        invoices_database_url: dependencies
            .invoices_database_url()
            .unwrap_or(default.invoices_database_url),
        ..default
    }
}
