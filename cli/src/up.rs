//! `drawbridge up`: the whole mesh on one machine.

use std::{net::SocketAddr, path::PathBuf};

use anyhow::{Context as _, ensure};
use comfy_table::{Cell, Color, Table};
use drawbridge_auth::decision_log::DecisionLogConfig;
use drawbridge_sdk::{TelemetryConfig, shutdown_signal};
use secrecy::SecretString;
use serde_json::json;

use crate::{
    backing::{Backing, Programs},
    issuer_name::IssuerName,
    mesh::{Mesh, MeshConfig, Ports},
    state::MeshState,
};

/// Where MCP Inspector's page comes from.
const INSPECTOR_ORIGINS: [&str; 2] = ["http://localhost:6274", "http://127.0.0.1:6274"];

/// How to start the mesh.
#[derive(Clone, Debug, clap::Args)]
pub struct UpArgs {
    /// The folder of Cedar policies.
    #[arg(long, env = "DRAWBRIDGE_UP_POLICIES", default_value = "policies")]
    policies: PathBuf,

    /// The source tree that the service `code` searches.
    #[arg(long, env = "DRAWBRIDGE_UP_CODE_ROOT", default_value = ".")]
    code_root: PathBuf,

    /// The issuer of access tokens. Absent: a built-in authorization server for development.
    #[arg(long, env = "DRAWBRIDGE_UP_ISSUER", conflicts_with = "users")]
    issuer: Option<IssuerName>,

    /// A tenant that --issuer may name in its tokens; `*` stands for any. Absent: any while it is the only issuer, and
    /// none beside those of --issuers. Repeat, or separate by commas.
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

    /// A TOML file of users for the built-in authorization server. Absent: alice, bob, carol, dave, erin and frank.
    #[arg(long, env = "DRAWBRIDGE_UP_USERS")]
    users: Option<PathBuf>,

    /// Listen on free ports instead of the well-known ones.
    #[arg(long)]
    free_ports: bool,

    /// An origin whose pages may call the edge, besides MCP Inspector's. Repeat, or separate by commas.
    #[arg(long = "allowed-origin", value_name = "ORIGIN", value_delimiter = ',')]
    allowed_origins: Vec<String>,

    /// Say where everything is as one line of JSON instead of a table.
    #[arg(long)]
    json: bool,

    /// Redis, for what replicas share: sessions and revocations. Absent: one is started if `redis-server` is on this
    /// machine, else this process keeps them.
    #[arg(long, env = "DRAWBRIDGE_UP_REDIS_URL", hide_env_values = true)]
    redis_url: Option<SecretString>,

    /// Start no Redis, Vault or PostgreSQL, though they are on this machine: this process stands in for them.
    #[arg(long)]
    embedded: bool,

    #[command(flatten)]
    decision_log: DecisionLogConfig,

    #[command(flatten)]
    telemetry: TelemetryConfig,
}

/// Starts the mesh, says where everything is, and runs until Ctrl-C.
///
/// # Errors
/// When the mesh cannot start.
pub async fn run(args: UpArgs) -> anyhow::Result<()> {
    ensure!(
        args.policies.is_dir(),
        "there is no folder {}; run this in a checkout, or name one with --policies",
        args.policies.display()
    );
    let backing = Backing::start(&programs(&args)).await?;
    backing.migrate().await?;
    let mesh = Mesh::start(&config(&args, &backing)).await?;
    let folder = MeshState::folder();
    // Before anything is said: whoever reads it may stop the mesh at once.
    let shutdown = shutdown_signal();
    let state = mesh.state.write(&folder).with_context(|| format!("cannot write {}", folder.display()))?;
    if args.json {
        anstream::println!("{}", as_json(&mesh));
    } else {
        anstream::println!("{}", as_text(&mesh, &args, &backing));
    }
    shutdown.await;
    anstream::eprintln!("stopping …");
    drop(state);
    mesh.stop().await;
    Ok(())
}

/// What is to be started beside the mesh.
fn programs(args: &UpArgs) -> Programs {
    let mut programs = if args.embedded { Programs::default() } else { Programs::find() };
    if args.redis_url.is_some() {
        programs.redis = None;
    }
    programs
}

fn config(args: &UpArgs, backing: &Backing) -> MeshConfig {
    let inspector = INSPECTOR_ORIGINS.map(str::to_owned);
    let default = MeshConfig::default();
    MeshConfig {
        ports: if args.free_ports { Ports::Free } else { Ports::WellKnown },
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
        invoices_database_url: backing.invoices_database_url().unwrap_or(default.invoices_database_url),
        ..default
    }
}

fn as_json(mesh: &Mesh) -> serde_json::Value {
    let service = |name: &str, address: fn(&crate::mesh::Hosted) -> SocketAddr| {
        mesh.service(name).map(|service| address(service).to_string())
    };
    let services: serde_json::Map<_, _> = ["edge", "auth", "code", "invoices", "tickets", "idp"]
        .into_iter()
        .map(|name| {
            let address = service(name, |service| service.running.address);
            let admin = service(name, |service| service.running.admin);
            (name.to_owned(), json!({ "address": address, "admin": admin }))
        })
        .collect();
    json!({ "mcpUrl": mesh.mcp_url, "issuer": mesh.state.issuer, "services": services })
}

fn as_text(mesh: &Mesh, args: &UpArgs, backing: &Backing) -> String {
    let users = match (&args.issuer, &args.users) {
        (Some(issuer), _) => format!("those of {issuer}"),
        (None, None) => {
            "alice (engineering), bob (support), carol (auditor), erin (approves invoices), and of another tenant dave \
             (engineering), frank (support); password as name"
                .to_owned()
        }
        (None, Some(path)) => format!("those of {}", path.display()),
    };
    let mcp_url = &mesh.mcp_url;
    format!(
        "\n{}\n\n{}\n
MCP URL      {mcp_url}
Users        {users}

Claude Code     claude mcp add --transport http drawbridge {mcp_url}
MCP Inspector   npx @modelcontextprotocol/inspector    then connect to {mcp_url} (Streamable HTTP)
curl            curl -i -X POST {mcp_url}    (401: it names where to get a token)
Internal call   drawbridge call code Search '{{\"query\":\"fn main\"}}'

Ctrl-C ends it.",
        services_table(mesh),
        backing_table(args, backing),
    )
}

fn services_table(mesh: &Mesh) -> Table {
    let mut table = new_table(["service", "what it is", "address", "health and metrics"]);
    let rows = [
        ("edge", "MCP over HTTP in, gRPC out", "http://"),
        ("auth", "tokens and policies (gRPC)", ""),
        ("code", "searches a source tree (gRPC)", ""),
        ("invoices", "reads, keeps and approves invoices (gRPC)", ""),
        ("tickets", "works on support tickets (gRPC)", ""),
        ("idp", "OAuth 2.1 authorization server", "http://"),
    ];
    for (name, what, scheme) in rows {
        let Some(service) = mesh.service(name) else { continue };
        let address = format!("{scheme}{}", service.running.address);
        let admin = format!("http://{}/readyz", service.running.admin);
        table.add_row([name, what, &address, &admin]);
    }
    table
}

/// What stands behind the services: real things, or embedded stand-ins.
fn backing_table(args: &UpArgs, backing: &Backing) -> Table {
    let mut table = new_table(["behind them", "", "which"]);
    let root = args.code_root.canonicalize().unwrap_or_else(|_| args.code_root.clone());
    let traces = match &args.telemetry.otlp_endpoint {
        Some(endpoint) => ("real", endpoint.to_string()),
        None => ("none", "set OTEL_EXPORTER_OTLP_ENDPOINT to send them".to_owned()),
    };
    let issuer = match &args.issuer {
        Some(issuer) => ("real", issuer.to_string()),
        None => ("embedded", "for development; see the service idp".to_owned()),
    };
    let redis = match (&args.redis_url, &backing.redis) {
        (Some(_), _) => ("real", "Redis, which --redis-url names".to_owned()),
        (None, Some(redis)) => ("real", format!("Redis, started on port {}", redis.port)),
        (None, None) => ("embedded", "in this process; redis-server is not on PATH".to_owned()),
    };
    let vault = match &backing.vault {
        Some(vault) => ("real", format!("Vault, started at {}", vault.url)),
        None => ("embedded", "in this process; neither bao nor vault is on PATH".to_owned()),
    };
    let database = match &backing.postgres {
        Some(postgres) => ("real", format!("PostgreSQL, started on port {}", postgres.port)),
        None => ("embedded", "SQLite in memory; PostgreSQL or Vault is not on this machine".to_owned()),
    };
    let rows = [
        ("authorization server", issuer.0, issuer.1),
        ("credentials", vault.0, vault.1),
        ("invoices", database.0, database.1),
        ("sessions, revocations", redis.0, redis.1),
        ("services among themselves", "embedded", "mTLS, by an authority of this run".to_owned()),
        ("helpdesk", "embedded", "sample tickets of acme and umbrella".to_owned()),
        ("policies", "real", args.policies.display().to_string()),
        ("source tree", "real", root.display().to_string()),
        ("traces", traces.0, traces.1),
    ];
    for (what, kind, which) in rows {
        let color = if kind == "real" { Color::Green } else { Color::Yellow };
        table.add_row([Cell::new(what), Cell::new(kind).fg(color), Cell::new(which)]);
    }
    table
}

fn new_table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = crate::table::new();
    table.set_header(header);
    table
}
