//! What stands behind the services, as it is at the start.

use std::{path::Path, time::Duration};

use drawbridge_sdk::{Redis, error_chain};
use secrecy::SecretString;
use tokio::{
    net::TcpStream,
    time::{error::Elapsed, timeout},
};
use url::{Host, Url};

use super::UpArgs;
use crate::backing::{Backing, Programs};

/// How long a dependency may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// How a dependency stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It is there, and answers.
    Real,
    /// This process stands in for it.
    Embedded,
    /// It does not answer, for this reason.
    Unreachable(String),
    /// There is none.
    None,
}

/// Something behind the services.
#[derive(Clone, Debug)]
pub(super) struct Dependency {
    /// Its name in the table.
    pub(super) what: &'static str,
    /// Its name in JSON.
    pub(super) key: &'static str,
    pub(super) standing: Standing,
    /// Which one, or why there is none.
    pub(super) which: String,
}

/// Asks all dependencies at once.
pub(super) async fn look(args: &UpArgs, backing: &Backing, programs: &Programs) -> Vec<Dependency> {
    let (issuers, vault, database, redis, traces) = tokio::join!(
        issuers(args),
        vault(args, backing),
        database(args, backing, programs),
        redis(args, backing),
        traces(args),
    );
    let root = args.code_root.canonicalize().unwrap_or_else(|_| args.code_root.clone());
    let mtls = (Standing::Embedded, "mTLS, by an authority of this run".to_owned());
    let helpdesk = (Standing::Embedded, "sample tickets of acme and umbrella".to_owned());
    let rest = [
        ("credentials", "credentials", vault),
        ("invoices", "invoices", database),
        ("sessions, revocations", "redis", redis),
        ("services among themselves", "mtls", mtls),
        ("helpdesk", "helpdesk", helpdesk),
        ("policies", "policies", (Standing::Real, args.policies.display().to_string())),
        ("source tree", "sourceTree", (Standing::Real, root.display().to_string())),
        ("traces", "traces", traces),
    ];
    let issuers =
        issuers.into_iter().map(|issuer| ("authorization server", "authorizationServer", issuer));
    let all = issuers.chain(rest);
    all.map(|(what, key, (standing, which))| Dependency { what, key, standing, which }).collect()
}

/// The issuers, each by its keys, as auth gets them.
async fn issuers(args: &UpArgs) -> Vec<(Standing, String)> {
    let mut all = Vec::new();
    if args.issuer.is_none() {
        all.push((Standing::Embedded, "for development; see the service idp".to_owned()));
    }
    let issuer = args.issuer.as_ref().map(|issuer| issuer.name());
    if issuer.is_none() && args.issuers.is_none() {
        return all;
    }
    let is_private = args.issuer.as_ref().is_some_and(|issuer| is_loopback(issuer));
    let asking = drawbridge_auth::reach_issuers(issuer, is_private, args.issuers.as_deref());
    match timeout(ANSWER_WITHIN, asking).await {
        // Auth has read the same before.
        Ok(Ok(issuers)) => {
            all.extend(issuers.into_iter().map(|(name, problem)| {
                (problem.map_or(Standing::Real, Standing::Unreachable), name)
            }))
        }
        Ok(Err(error)) => {
            all.push((
                Standing::Unreachable(error_chain(&error)),
                issuer.unwrap_or_default().to_owned(),
            ));
        }
        Err(late) => {
            let file =
                args.issuers.as_deref().map(Path::display).map(|path| format!("those of {path}"));
            let which = [issuer.map(str::to_owned), file]
                .into_iter()
                .flatten()
                .collect::<Vec<_>>()
                .join(", ");
            all.push((Standing::Unreachable(too_late(&late)), which));
        }
    }
    all
}

async fn redis(args: &UpArgs, backing: &Backing) -> (Standing, String) {
    match (&args.redis_url, &backing.redis) {
        (Some(url), _) => (ping(url).await, "Redis, which --redis-url names".to_owned()),
        (None, Some(redis)) => (
            ping(&redis.url.as_str().into()).await,
            format!("Redis, started on port {}", redis.port),
        ),
        (None, None) => {
            (Standing::Embedded, stand_in(args, "in this process", "redis-server is not on PATH"))
        }
    }
}

async fn ping(url: &SecretString) -> Standing {
    match Redis::open(url, ANSWER_WITHIN) {
        Ok(redis) => match timeout(ANSWER_WITHIN, redis.ping()).await {
            Ok(Ok(())) => Standing::Real,
            Ok(Err(error)) => {
                // Its text has the kind as Rust writes it.
                let kind = format!(" - {:?}", error.kind());
                Standing::Unreachable(error.to_string().replace(&kind, ""))
            }
            Err(late) => Standing::Unreachable(too_late(&late)),
        },
        Err(error) => Standing::Unreachable(error_chain(&error)),
    }
}

async fn vault(args: &UpArgs, backing: &Backing) -> (Standing, String) {
    let Some(vault) = &backing.vault else {
        let which = stand_in(args, "in this process", "neither bao nor vault is on PATH");
        return (Standing::Embedded, which);
    };
    let health = vault.url.join("v1/sys/health");
    let asking = async {
        let url = health.map_err(|error| error.to_string())?;
        let answer = reqwest::get(url).await.and_then(reqwest::Response::error_for_status);
        answer.map(drop).map_err(|error| error_chain(&error.without_url()))
    };
    let standing = match timeout(ANSWER_WITHIN, asking).await {
        Ok(Ok(())) => Standing::Real,
        Ok(Err(why)) => Standing::Unreachable(why),
        Err(late) => Standing::Unreachable(too_late(&late)),
    };
    (standing, format!("Vault, started at {}", vault.url))
}

async fn database(args: &UpArgs, backing: &Backing, programs: &Programs) -> (Standing, String) {
    match &backing.postgres {
        Some(postgres) => {
            let connecting = TcpStream::connect(("127.0.0.1", postgres.port));
            let which = format!("PostgreSQL, started on port {}", postgres.port);
            (standing(timeout(ANSWER_WITHIN, connecting).await), which)
        }
        None => {
            let missing = match (&programs.postgres, &programs.vault) {
                (None, _) => "PostgreSQL is not on this machine",
                (Some(_), _) => "PostgreSQL needs Vault, and neither bao nor vault is on PATH",
            };
            (Standing::Embedded, stand_in(args, "SQLite in memory", missing))
        }
    }
}

async fn traces(args: &UpArgs) -> (Standing, String) {
    let Some(endpoint) = &args.telemetry.otlp_endpoint else {
        return (Standing::None, "set OTEL_EXPORTER_OTLP_ENDPOINT to send them".to_owned());
    };
    let host = match endpoint.host() {
        Some(Host::Domain(name)) => name.to_owned(),
        Some(Host::Ipv4(address)) => address.to_string(),
        Some(Host::Ipv6(address)) => address.to_string(),
        None => {
            return (Standing::Unreachable("the URL has no host".to_owned()), endpoint.to_string());
        }
    };
    let port = endpoint.port_or_known_default().unwrap_or(4317);
    let connected = timeout(ANSWER_WITHIN, TcpStream::connect((host, port))).await;
    (standing(connected), endpoint.to_string())
}

/// What stands in for a server, and why.
fn stand_in(args: &UpArgs, what: &str, missing: &str) -> String {
    format!("{what}; {}", if args.embedded { "--embedded" } else { missing })
}

fn standing<T, E: std::error::Error>(answer: Result<Result<T, E>, Elapsed>) -> Standing {
    match answer {
        Ok(Ok(_)) => Standing::Real,
        Ok(Err(error)) => Standing::Unreachable(error.to_string()),
        Err(late) => Standing::Unreachable(too_late(&late)),
    }
}

pub(super) fn too_late(_: &Elapsed) -> String {
    format!("no answer within {} seconds", ANSWER_WITHIN.as_secs())
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}
