//! `drawbridge up`: the whole mesh on one machine.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use drawbridge_auth::decision_log::DecisionLogConfig;
use drawbridge_edge::ServiceAddress;
use drawbridge_sdk::{TelemetryConfig, own, shutdown_signal};
use secrecy::SecretString;
use url::Url;

use crate::{
    backing::{self, Backing, Programs},
    issuer_name::IssuerName,
    mesh::{Mesh, MeshConfig, Ports},
    state::{MeshName, MeshState},
};

use self::{dependencies::Dependency, own_services::OwnService};

mod dependencies;
mod hangup;
mod own_services;
mod report;

/// Where MCP Inspector's page comes from.
const INSPECTOR_ORIGINS: [&str; 2] = ["http://localhost:6274", "http://127.0.0.1:6274"];
/// The edge's variable for Redis, which the whole mesh then uses.
const EDGE_REDIS_URL: &str = "DRAWBRIDGE_EDGE_REDIS_URL";

/// How to start the mesh.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Examples:
  drawbridge up
  drawbridge up --config edge.toml --service rooms=http://127.0.0.1:7450
  drawbridge up --name second --first-port 8100

The variables of the services' own processes, such as DRAWBRIDGE_EDGE_SESSIONS_MAX, count here too.")]
pub struct UpArgs {
    /// The folder of Cedar policies.
    #[arg(long, env = "DRAWBRIDGE_UP_POLICIES", default_value = "policies")]
    policies: PathBuf,

    /// The source tree that the service `code` searches.
    #[arg(long, env = "DRAWBRIDGE_UP_CODE_ROOT", default_value = ".")]
    code_root: PathBuf,

    /// The edge's config file: more tool services, limits, guards and the rest of docs/edge.md.
    #[arg(long, env = "DRAWBRIDGE_UP_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,

    /// A tool service of your own, as `namespace=URL`; plaintext is fine on loopback. Repeat, or
    /// separate by commas.
    #[arg(
        long = "service",
        env = "DRAWBRIDGE_UP_SERVICE",
        value_name = "NAMESPACE=URL",
        value_delimiter = ','
    )]
    services: Vec<ServiceAddress>,

    /// The URL under which clients know the MCP endpoint, with its path. Absent: `/mcp` at the
    /// edge's address.
    #[arg(long, env = "DRAWBRIDGE_EDGE_PUBLIC_URL", value_name = "URL")]
    public_url: Option<Url>,

    /// The issuer of access tokens. Absent: a built-in authorization server for development.
    #[arg(long, env = "DRAWBRIDGE_UP_ISSUER", conflicts_with = "users")]
    issuer: Option<IssuerName>,

    /// A tenant that --issuer may name in its tokens; `*` stands for any. Absent: any while it is
    /// the only issuer, and none beside those of --issuers. Repeat, or separate by commas.
    #[arg(
        long,
        env = "DRAWBRIDGE_UP_ISSUER_TENANTS",
        value_name = "TENANT",
        value_delimiter = ',',
        requires = "issuer"
    )]
    issuer_tenants: Vec<String>,

    /// A TOML file of more issuers of access tokens (docs/identity.md).
    #[arg(long, env = "DRAWBRIDGE_UP_ISSUERS", value_name = "FILE")]
    issuers: Option<PathBuf>,

    /// A TOML file of users for the built-in authorization server. Absent: alice, bob, carol, dave,
    /// erin and frank.
    #[arg(long, env = "DRAWBRIDGE_UP_USERS")]
    users: Option<PathBuf>,

    /// The name of the mesh, for --mesh of other commands, and for what it keeps over restarts.
    /// Absent: the port of its edge.
    #[arg(long, env = "DRAWBRIDGE_UP_NAME")]
    name: Option<MeshName>,

    /// Listen on these ports instead of the well-known ones: the authorization server on this one,
    /// and the others as far above it as theirs are above 7100 (the edge: 80).
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

    /// Keep nothing over a restart: registered clients, signing keys, refresh tokens and
    /// revocations end with the mesh. So it is with --free-ports without a --name too.
    #[arg(long)]
    ephemeral: bool,

    /// An origin whose pages may call the edge, besides MCP Inspector's. Repeat, or separate by
    /// commas.
    #[arg(long = "allowed-origin", value_name = "ORIGIN", value_delimiter = ',')]
    allowed_origins: Vec<String>,

    /// Say where everything is as one line of JSON instead of a table.
    #[arg(long)]
    json: bool,

    /// Redis, for what replicas share: sessions and revocations. Absent: one is started if
    /// `redis-server` is on this machine, else this process keeps them.
    #[arg(long, env = "DRAWBRIDGE_UP_REDIS_URL", hide_env_values = true)]
    redis_url: Option<SecretString>,

    /// Start no Redis, Vault or PostgreSQL, though they are on this machine: this process stands in
    /// for them.
    #[arg(long)]
    embedded: bool,

    #[command(flatten)]
    decision_log: DecisionLogConfig,

    #[command(flatten)]
    telemetry: TelemetryConfig,
}

/// A mesh that runs, and what is said of it.
struct Up {
    args: UpArgs,
    mesh: Mesh,
    dependencies: Vec<Dependency>,
    own_services: Vec<OwnService>,
}

/// Starts the mesh, says where everything is, and runs until Ctrl-C.
///
/// # Errors
/// When the mesh cannot start.
pub async fn run(args: UpArgs) -> anyhow::Result<()> {
    // The starts of all services together are too large for the stack.
    Box::pin(start(args)).await
}

async fn start(mut args: UpArgs) -> anyhow::Result<()> {
    ensure!(
        args.policies.is_dir(),
        "there is no folder {}; run this in a checkout, or name one with --policies",
        args.policies.display()
    );
    if args.redis_url.is_none() {
        args.redis_url = std::env::var(EDGE_REDIS_URL)
            .ok()
            .filter(|url| !url.is_empty())
            .map(SecretString::from);
    }
    let name = args.name.clone().or_else(|| Some(ports(&args).edge()?.into()));
    let folder = prepare_state(name.as_ref())?;
    backing::remove_left_over();
    let programs = programs(&args);
    let backing = Backing::start(&programs).await?;
    backing.migrate().await?;
    let mesh = Mesh::start(&config(&args, &backing, &folder, name)).await?;
    // Before anything is said: whoever reads it may stop the mesh at once.
    let (shutdown, hangup) = (shutdown_signal(), hangup::signal());
    let state =
        mesh.state.write(&folder).with_context(|| format!("cannot write {}", folder.display()))?;
    let (dependencies, own_services) = tokio::join!(
        dependencies::look(&args, &backing, &programs),
        own_services::look(&args, &mesh)
    );
    let up = Up { args, mesh, dependencies, own_services };
    if up.args.json {
        anstream::println!("{}", report::as_json(&up));
    } else {
        anstream::println!("{}", report::as_text(&up));
    }
    tokio::select! {
        () = shutdown => {}
        () = hangup => {}
    }
    anstream::eprintln!("stopping …");
    drop(state);
    up.mesh.stop().await;
    Ok(())
}

fn ports(args: &UpArgs) -> Ports {
    match (args.free_ports, args.first_port) {
        (true, _) => Ports::Free,
        (false, Some(first)) => Ports::From(first),
        (false, None) => Ports::WELL_KNOWN,
    }
}

/// The state folder, without what meshes of before left there. No mesh of this name may run.
fn prepare_state(name: Option<&MeshName>) -> anyhow::Result<PathBuf> {
    let folder = MeshState::folder();
    let prepare = || {
        own::create_folder(&folder)?;
        let running = name.map(|name| MeshState::runs(&folder, name)).transpose()?.flatten();
        if running.is_none() {
            MeshState::remove_stale(&folder)?;
        }
        std::io::Result::Ok(running)
    };
    let running =
        prepare().with_context(|| format!("cannot use the state folder {}", folder.display()))?;
    if let (Some(pid), Some(name)) = (running, name) {
        bail!(
            "a mesh named {name} runs already (pid {pid}): stop it, or start another with --name and \
             --first-port or --free-ports"
        );
    }
    Ok(folder)
}

/// What is to be started beside the mesh.
fn programs(args: &UpArgs) -> Programs {
    let mut programs = if args.embedded { Programs::default() } else { Programs::find() };
    if args.redis_url.is_some() {
        programs.redis = None;
    }
    programs
}

fn config(args: &UpArgs, backing: &Backing, folder: &Path, name: Option<MeshName>) -> MeshConfig {
    let inspector = INSPECTOR_ORIGINS.map(str::to_owned);
    let default = MeshConfig::default();
    // A mesh without a name of its own is not found again.
    let lasting = |what: &str| {
        let name = name.as_ref().filter(|_| !args.ephemeral)?;
        Some(folder.join(format!("{what}-{name}.json")))
    };
    MeshConfig {
        ports: ports(args),
        idp_state_file: lasting("idp"),
        revocations_file: lasting("revocations").filter(|_| args.redis_url.is_none()),
        name,
        public_url: args.public_url.clone(),
        own_services: args.services.clone(),
        edge_config: args.config.clone(),
        environment: true,
        policies: args.policies.clone(),
        code_root: args.code_root.clone(),
        issuer: args.issuer.clone(),
        issuer_tenants: args.issuer_tenants.clone(),
        issuers: args.issuers.clone(),
        users: args.users.clone(),
        allowed_origins: inspector.into_iter().chain(args.allowed_origins.clone()).collect(),
        redis_url: args.redis_url.clone().or_else(|| backing.redis_url()),
        vault: backing.mesh_vault(),
        decision_log: args.decision_log.clone(),
        telemetry: args.telemetry.clone(),
        invoices_database_url: backing
            .invoices_database_url()
            .unwrap_or(default.invoices_database_url),
        ..default
    }
}
