//! Running services: readiness with its reasons, versions, contracts and the catalog lock.

use std::{path::PathBuf, sync::Arc, time::Duration};

use drawbridge_config::ConfigText;
use drawbridge_contract::Contract;
use drawbridge_edge::{CatalogLock, LOCK_BYTES_MAX, preview_catalog};
use drawbridge_runtime::{RequestId, error_chain};
use drawbridge_transport::{
    CallContext, Peers, SpiffeId,
    reflection::{self, ReflectionError},
    status_text,
};
use http::StatusCode;
use tokio::{
    sync::OnceCell,
    time::{Instant, timeout_at},
};
use url::Url;

use super::{
    check::{Check, Finding},
    http::{compare_clock, get},
};
use crate::scrape::Scrape;

/// The version of this command.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The check of a service's admin port.
pub(super) fn admin(name: String, url: Url) -> Check {
    Check::new("service", name, async move {
        let mut findings = readiness(&url).await;
        if findings.len() == 1 && findings[0].finding.starts_with(UNREACHABLE) {
            return findings;
        }
        findings.push(version(&url).await);
        findings
    })
}

const UNREACHABLE: &str = "its admin port";

async fn readiness(url: &Url) -> Vec<Finding> {
    let Ok(mut ready) = url.join("/readyz") else { return Vec::new() };
    ready.set_query(Some("verbose"));
    let answer = match get(&ready).await {
        Ok(answer) => answer,
        Err(error) => {
            return vec![Finding::failed(
                format!("{UNREACHABLE} {url} cannot be reached: {error}"),
                "start the service, and see its --admin-listen and its log",
            )];
        }
    };
    let mut findings: Vec<_> = compare_clock(&answer.headers).into_iter().collect();
    let Ok(body) = answer.json() else {
        let status = answer.status;
        findings.push(Finding::failed(
            format!("{ready} answered {status} without JSON"),
            "name the admin port (--admin-listen), not the service's own",
        ));
        return findings;
    };
    match body["reason"].as_str() {
        None if answer.status == StatusCode::OK => findings.push(Finding::ok("ready")),
        reason => findings.push(Finding::failed(
            format!("not ready: {}", reason.unwrap_or("for no known reason")),
            "see docs/reference/readiness.md for what this condition needs",
        )),
    }
    let notes = body["notes"].as_object().cloned().unwrap_or_default();
    for (condition, note) in notes {
        let note = note.as_str().map_or_else(|| note.to_string(), str::to_owned);
        findings.push(Finding::warning(
            format!("{condition}: {note}"),
            "it serves without; see docs/reference/readiness.md",
        ));
    }
    findings
}

async fn version(url: &Url) -> Finding {
    let unknown = || {
        Finding::warning(
            "its version is unknown: /metrics has no drawbridge_build_info",
            format!("upgrade it to {VERSION}"),
        )
    };
    let Ok(url) = url.join("/metrics") else { return unknown() };
    let Ok(answer) = get(&url).await else { return unknown() };
    let scrape = Scrape::parse(&String::from_utf8_lossy(&answer.body));
    let info = scrape.samples("drawbridge_build_info").next();
    info.map_or_else(unknown, |info| judge_version(info.label("version")))
}

/// Compares the version of a service with this command's: releases differ by one minor version at
/// most.
fn judge_version(version: &str) -> Finding {
    let parse = |text: &str| {
        let mut parts = text.split('.').map(|part| part.parse::<u32>().ok());
        Some((parts.next()??, parts.next()??))
    };
    match (parse(version), parse(VERSION)) {
        (Some(theirs), Some(ours)) if theirs == ours => Finding::ok(format!("version {version}")),
        (Some((major, minor)), Some((our_major, our_minor)))
            if major == our_major && minor.abs_diff(our_minor) == 1 =>
        {
            Finding::warning(
                format!("version {version}; this command is {VERSION}"),
                "finish the upgrade: neighbouring versions work together, others may not",
            )
        }
        _ => Finding::failed(
            format!("version {version}; this command is {VERSION}"),
            "upgrade one version after the other, the edge last (docs/how-to/deploy.md)",
        ),
    }
}

/// A tool service, as the edge calls it.
#[derive(Clone, Debug)]
pub(super) struct ToolTarget {
    pub(super) namespace: String,
    pub(super) urls: Vec<Url>,
    pub(super) spiffe_id: Option<SpiffeId>,
    /// Filled by the service's own check, for that of the lock.
    pub(super) contract: Arc<OnceCell<Option<Contract>>>,
}

impl ToolTarget {
    pub(super) fn check(self, peers: Peers, limit: Duration) -> Check {
        let subject = format!("{} (contract)", self.namespace);
        Check::new("service", subject, async move { self.inspect(&peers, limit).await })
    }

    async fn inspect(&self, peers: &Peers, limit: Duration) -> Vec<Finding> {
        let mut findings = Vec::new();
        for url in &self.urls {
            match self.read(peers, url, limit).await {
                Ok(contract) => {
                    let count = contract.services.len();
                    let plural = if count == 1 { "" } else { "s" };
                    findings
                        .push(Finding::ok(format!("{url} serves {count} gRPC service{plural}")));
                    // The first one counts: replicas have the same contract.
                    let _ = self.contract.set(Some(contract));
                }
                Err(error) => findings.push(Finding::failed(
                    format!("{url}: {error}"),
                    "see whether it runs, accepts the edge (--mtls-allow), and serves reflection",
                )),
            }
        }
        let _ = self.contract.set(None);
        findings
    }

    async fn read(&self, peers: &Peers, url: &Url, limit: Duration) -> Result<Contract, String> {
        let channel = peers.connect(url, &self.namespace, self.spiffe_id.as_ref());
        let channel = channel.map_err(|error| error_chain(&error))?;
        let context = CallContext::new(RequestId::generate(), limit);
        let contract = reflection::fetch_contract(channel, &context).await;
        contract.map_err(|error| match error {
            ReflectionError::Call(status) => status_text(&status),
            error => error_chain(&error),
        })
    }
}

/// The catalog lock that an edge's config file names.
#[derive(Clone, Debug)]
pub(super) struct LockTarget {
    pub(super) config: PathBuf,
    pub(super) lock: PathBuf,
    pub(super) limit: Duration,
}

/// The check of the lock that the edge's config file names, against the contracts of `tools`.
pub(super) fn lock(
    LockTarget { config, lock, limit }: LockTarget,
    tools: Vec<ToolTarget>,
    peers: Peers,
) -> Check {
    Check::new("catalog lock", lock.display().to_string(), async move {
        let mut contracts = Vec::new();
        // Less than the limit of this check itself.
        let deadline = Instant::now() + limit * 9 / 10;
        for tool in &tools {
            match timeout_at(deadline, wait(&tool.contract)).await {
                Ok(Some(contract)) => contracts.push(contract),
                Ok(None) | Err(_) => {
                    return vec![Finding::warning(
                        format!("not compared: the contract of {} is unknown", tool.namespace),
                        "correct that service first",
                    )];
                }
            }
        }
        vec![compare(&config, &lock, &peers, &contracts).await.unwrap_or_else(|error| {
            Finding::failed(error, "correct the file, or write it by `drawbridge catalog lock`")
        })]
    })
}

/// Waits until the check of a service has read its contract, or has failed.
async fn wait(contract: &OnceCell<Option<Contract>>) -> Option<Contract> {
    loop {
        match contract.get() {
            Some(read) => return read.clone(),
            None => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

async fn compare(
    config: &std::path::Path,
    lock: &std::path::Path,
    peers: &Peers,
    contracts: &[Contract],
) -> Result<Finding, String> {
    let text =
        ConfigText::read_within(lock, LOCK_BYTES_MAX).map_err(|error| error_chain(&error))?;
    let before = CatalogLock::parse(&text).map_err(|error| error_chain(&error))?;
    let offer = preview_catalog(Some(config), peers, contracts).await;
    let offer = offer.map_err(|error| error_chain(&error))?;
    let differences = before.differences(&offer.propose_lock(before.clone()).lock);
    let names: Vec<_> = differences
        .iter()
        .map(|item| format!("{} {} ({})", item.kind.as_str(), item.name, item.change))
        .collect();
    Ok(if names.is_empty() {
        Finding::ok("agrees with what the services offer")
    } else {
        Finding::failed(
            format!("differs from what the services offer: {}", names.join(", ")),
            "review the differences with `drawbridge catalog lock --check`, then lock them",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::{super::check::Level, *};

    #[test]
    fn a_service_may_be_one_minor_version_apart() {
        let (major, rest) = VERSION.split_once('.').unwrap();
        let minor: u32 = rest.split('.').next().unwrap().parse().unwrap();
        let level = |minor: u32| judge_version(&format!("{major}.{minor}.7")).level;
        assert_eq!(level(minor), Level::Ok);
        assert_eq!(level(minor + 1), Level::Warning);
        assert_eq!(level(minor + 2), Level::Failed);
        assert_eq!(judge_version("").level, Level::Failed);
    }
}
