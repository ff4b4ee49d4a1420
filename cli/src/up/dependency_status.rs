//! The status of the mesh's dependencies at start.

use std::{path::Path, time::Duration};

use drawbridge_runtime::{Redis, error_chain, is_loopback};
use secrecy::SecretString;
use tokio::{
    net::TcpStream,
    time::{error::Elapsed, timeout},
};
use url::Host;

use super::{UpArgs, files::Files};
use drawbridge_mesh::dependencies::{Binaries, Dependencies};

/// The deadline of each probe.
const TIMEOUT: Duration = Duration::from_secs(3);

/// The status of a dependency.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum DependencyStatus {
    /// It answers.
    Real,
    /// An embedded substitute is used.
    Embedded,
    /// It does not answer, with the reason.
    Unreachable(String),
    /// It is not configured.
    None,
}

/// A dependency of the services.
#[derive(Clone, Debug)]
pub(super) struct Dependency {
    /// Its name in the table.
    pub(super) label: &'static str,
    /// Its name in JSON.
    pub(super) key: &'static str,
    pub(super) status: DependencyStatus,
    /// Which server, or why none is used.
    pub(super) which: String,
}

/// Probes all dependencies concurrently.
pub(super) async fn inspect(
    args: &UpArgs,
    files: &Files,
    dependencies: &Dependencies,
    binaries: &Binaries,
) -> Vec<Dependency> {
    let (issuers, vault, database, redis, traces) = tokio::join!(
        issuers(args),
        vault(args, dependencies),
        database(args, dependencies, binaries),
        redis(args, dependencies),
        traces(args),
    );
    let root = args.code_root.canonicalize().unwrap_or_else(|_| args.code_root.clone());
    let mtls =
        (DependencyStatus::Embedded, "mTLS, with a certificate authority of this run".to_owned());
    let helpdesk = (DependencyStatus::Embedded, "sample tickets of acme and umbrella".to_owned());
    let config = match files.config {
        Some(_) => DependencyStatus::Real,
        None => DependencyStatus::None,
    };
    let rest = [
        ("credentials", "credentials", vault),
        ("invoices", "invoices", database),
        ("sessions, revocations", "redis", redis),
        ("between services", "mtls", mtls),
        ("helpdesk", "helpdesk", helpdesk),
        ("policies", "policies", (DependencyStatus::Real, files.describe_policies())),
        ("edge's config", "edgeConfig", (config, files.describe_config())),
        ("source tree", "sourceTree", (DependencyStatus::Real, root.display().to_string())),
        ("traces", "traces", traces),
    ];
    let issuers =
        issuers.into_iter().map(|issuer| ("authorization server", "authorizationServer", issuer));
    let all = issuers.chain(rest);
    all.map(|(label, key, (status, which))| Dependency { label, key, status, which }).collect()
}

/// The issuers. The probe fetches each one's keys, as auth does.
async fn issuers(args: &UpArgs) -> Vec<(DependencyStatus, String)> {
    let mut all = Vec::new();
    if args.issuer.is_none() {
        all.push((DependencyStatus::Embedded, "for development; see the service idp".to_owned()));
    }
    let issuer = args.issuer.as_ref().map(|issuer| issuer.name());
    if issuer.is_none() && args.issuers.is_none() {
        return all;
    }
    let is_private = args.issuer.as_ref().is_some_and(|issuer| is_loopback(issuer));
    let probe = drawbridge_auth::probe_issuers(issuer, is_private, args.issuers.as_deref());
    match timeout(TIMEOUT, probe).await {
        // Cannot fail on the file: auth has read it already.
        Ok(Ok(issuers)) => all.extend(issuers.into_iter().map(|(name, problem)| {
            (problem.map_or(DependencyStatus::Real, DependencyStatus::Unreachable), name)
        })),
        Ok(Err(error)) => {
            all.push((
                DependencyStatus::Unreachable(error_chain(&error)),
                issuer.unwrap_or_default().to_owned(),
            ));
        }
        Err(elapsed) => {
            let file =
                args.issuers.as_deref().map(Path::display).map(|path| format!("those of {path}"));
            let which = [issuer.map(str::to_owned), file]
                .into_iter()
                .flatten()
                .collect::<Vec<_>>()
                .join(", ");
            all.push((DependencyStatus::Unreachable(timed_out(&elapsed)), which));
        }
    }
    all
}

async fn redis(args: &UpArgs, dependencies: &Dependencies) -> (DependencyStatus, String) {
    match (&args.redis_url, &dependencies.redis) {
        (Some(url), _) => (ping(url).await, "Redis, from --redis-url".to_owned()),
        (None, Some(redis)) => (
            ping(&redis.url.as_str().into()).await,
            format!("Redis, started on port {}", redis.port),
        ),
        (None, None) => (
            DependencyStatus::Embedded,
            substitute(
                args,
                "in this process",
                "redis-server is not \
                on PATH",
            ),
        ),
    }
}

async fn ping(url: &SecretString) -> DependencyStatus {
    match Redis::open(url, TIMEOUT) {
        Ok(redis) => match timeout(TIMEOUT, redis.ping()).await {
            Ok(Ok(())) => DependencyStatus::Real,
            Ok(Err(error)) => {
                // The message ends with the kind in Rust's debug format.
                let kind = format!(" - {:?}", error.kind());
                DependencyStatus::Unreachable(error.to_string().replace(&kind, ""))
            }
            Err(elapsed) => DependencyStatus::Unreachable(timed_out(&elapsed)),
        },
        Err(error) => DependencyStatus::Unreachable(error_chain(&error)),
    }
}

async fn vault(args: &UpArgs, dependencies: &Dependencies) -> (DependencyStatus, String) {
    let Some(vault) = &dependencies.vault else {
        let which = substitute(args, "in this process", "neither bao nor vault is on PATH");
        return (DependencyStatus::Embedded, which);
    };
    let health = vault.url.join("v1/sys/health");
    let probe = async {
        let url = health.map_err(|error| error.to_string())?;
        let result = reqwest::get(url).await.and_then(reqwest::Response::error_for_status);
        result.map(drop).map_err(|error| error_chain(&error.without_url()))
    };
    let status = match timeout(TIMEOUT, probe).await {
        Ok(Ok(())) => DependencyStatus::Real,
        Ok(Err(why)) => DependencyStatus::Unreachable(why),
        Err(elapsed) => DependencyStatus::Unreachable(timed_out(&elapsed)),
    };
    (status, format!("Vault, started at {}", vault.url))
}

async fn database(
    args: &UpArgs,
    dependencies: &Dependencies,
    binaries: &Binaries,
) -> (DependencyStatus, String) {
    match &dependencies.postgres {
        Some(postgres) => {
            let connecting = TcpStream::connect(("127.0.0.1", postgres.port));
            let which = format!("PostgreSQL, started on port {}", postgres.port);
            (status(timeout(TIMEOUT, connecting).await), which)
        }
        None => {
            let missing = match (&binaries.postgres, &binaries.vault) {
                (None, _) => "PostgreSQL is not installed",
                (Some(_), _) => "PostgreSQL needs Vault, and neither bao nor vault is on PATH",
            };
            (DependencyStatus::Embedded, substitute(args, "SQLite in memory", missing))
        }
    }
}

async fn traces(args: &UpArgs) -> (DependencyStatus, String) {
    let Some(endpoint) = args.telemetry.traces_endpoint() else {
        return (DependencyStatus::None, "set OTEL_EXPORTER_OTLP_ENDPOINT to send them".to_owned());
    };
    let host = match endpoint.host() {
        Some(Host::Domain(name)) => name.to_owned(),
        Some(Host::Ipv4(address)) => address.to_string(),
        Some(Host::Ipv6(address)) => address.to_string(),
        None => {
            return (
                DependencyStatus::Unreachable("the URL has no host".to_owned()),
                endpoint.to_string(),
            );
        }
    };
    let port = endpoint.port_or_known_default().unwrap_or(4317);
    let connected = timeout(TIMEOUT, TcpStream::connect((host, port))).await;
    (status(connected), endpoint.to_string())
}

/// The substitute for a server, and why it is used.
fn substitute(args: &UpArgs, label: &str, missing: &str) -> String {
    format!("{label}; {}", if args.embedded { "--embedded" } else { missing })
}

fn status<T, E: std::error::Error>(result: Result<Result<T, E>, Elapsed>) -> DependencyStatus {
    match result {
        Ok(Ok(_)) => DependencyStatus::Real,
        Ok(Err(error)) => DependencyStatus::Unreachable(error.to_string()),
        Err(elapsed) => DependencyStatus::Unreachable(timed_out(&elapsed)),
    }
}

pub(super) fn timed_out(_: &Elapsed) -> String {
    format!("no answer within {} seconds", TIMEOUT.as_secs())
}
