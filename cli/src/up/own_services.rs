//! User-supplied tool services, and the steps until clients see them.

use std::{fmt::Write as _, path::Path, time::Duration};

use drawbridge_config::ConfigText;
use drawbridge_contract::{Contract, exposed_methods};
use drawbridge_edge::{CatalogLock, LOCK_BYTES_MAX, NamedServices, preview_catalog};
use drawbridge_runtime::{RequestId, bounded, error_chain};
use drawbridge_transport::{
    CallContext, Peers,
    reflection::{self, ReflectionError},
    status_text,
};
use tokio::time::timeout;
use tonic::transport::Channel;
use url::Url;

use crate::policy::schema;
use drawbridge_mesh::Mesh;

/// The deadline for reading a service's contract.
const TIMEOUT: Duration = Duration::from_secs(3);

/// A tool service named by a flag, a variable or the config file.
#[derive(Debug)]
pub(super) struct OwnService {
    pub(super) namespace: String,
    pub(super) urls: Vec<Url>,
    /// Why its contract cannot be read.
    pub(super) unreachable: Option<String>,
    /// The steps until clients see it: one sentence each, with its command.
    pub(super) next_steps: Vec<String>,
}

/// Reads each service's contract, and compares it with the policies and the catalog lock.
pub(super) async fn inspect(policies: &Path, mesh: &Mesh) -> Vec<OwnService> {
    let NamedServices { services, lock, .. } = &mesh.own_services;
    // The edge's own certificate, so that the result matches what the edge can reach.
    let peers = match Peers::open(&mesh.edge_mtls) {
        Ok(peers) => peers,
        Err(error) => {
            tracing::warn!(error = error_chain(&error), "cannot connect to the tool services");
            return Vec::new();
        }
    };
    let mut tasks = Vec::new();
    for (namespace, urls, id) in services {
        let Some(url) = urls.first() else { continue };
        let channel = peers.connect(url, namespace.as_str(), id.as_ref());
        let task =
            tokio::spawn(
                async move { contract(channel.map_err(|error| error_chain(&error))?).await },
            );
        tasks.push((namespace.to_string(), urls.clone(), task));
    }
    let (mut found, mut contracts) = (Vec::new(), Vec::new());
    for (namespace, urls, task) in tasks {
        let mut service = OwnService { namespace, urls, unreachable: None, next_steps: Vec::new() };
        match task.await.unwrap_or_else(|error| Err(error.to_string())) {
            Ok(contract) => {
                service.next_steps = steps_for_policies(&service, &contract, policies);
                contracts.push(contract);
            }
            Err(reason) => {
                service.unreachable = Some(reason);
                service.next_steps = steps_for_unreachable(&service, policies);
            }
        }
        found.push(service);
    }
    if let Some(lock) = lock {
        let unlocked_items = unlocked_items(mesh, lock, &peers, contracts).await;
        for service in &mut found {
            service.next_steps.extend(step_for_lock(service, &unlocked_items, mesh, lock));
        }
    }
    found
}

async fn contract(channel: Channel) -> Result<Contract, String> {
    let context = CallContext::new(RequestId::generate(), TIMEOUT);
    match timeout(TIMEOUT, reflection::fetch_contract(channel, &context)).await {
        Ok(Err(ReflectionError::Call(status))) => Err(status_text(&status)),
        Ok(read) => read.map_err(|error| error_chain(&error)),
        Err(_) => Err(format!("no answer within {} seconds", TIMEOUT.as_secs())),
    }
}

/// The steps until the policy folder covers a contract.
fn steps_for_policies(service: &OwnService, contract: &Contract, policies: &Path) -> Vec<String> {
    let OwnService { namespace, urls, .. } = service;
    let offers = exposed_methods(&contract.pool, &contract.services);
    let mut namespaces: Vec<_> = offers.map(|offer| offer.namespace).collect();
    namespaces.dedup();
    if namespaces.is_empty() {
        return vec![
            "its contract has no tool, resource or prompt: docs/how-to/write-a-tool-service.md \
             says how to mark one"
                .to_owned(),
        ];
    }
    if !namespaces.contains(namespace) {
        let (first, url) = (&namespaces[0], urls.first().map(Url::as_str).unwrap_or_default());
        return vec![format!(
            "its contract has the namespace {first}: use that name, as in --service {first}={url}"
        )];
    }
    let catalog = policies.join("catalog");
    let is_known = |(name, text): (String, String)| {
        bounded::read_file_to_string(&catalog.join(name), text.len() as u64)
            .is_ok_and(|current| current == text)
    };
    let of_service = |name: &str| name.split_once('.').is_some_and(|(stem, _)| stem == namespace);
    if schema::files(contract).into_iter().filter(|(name, _)| of_service(name)).all(is_known) {
        return Vec::new();
    }
    let (command, file) = registration_steps(service, policies);
    vec![format!(
        "the policy catalog is out of date, so its new items are hidden: run `{command}`, then \
         permit them in {file}"
    )]
}

/// The steps for an unreachable service that the policy folder does not cover.
fn steps_for_unreachable(service: &OwnService, policies: &Path) -> Vec<String> {
    if policies.join(format!("catalog/{}.cedarschema", service.namespace)).exists() {
        return Vec::new();
    }
    let (command, file) = registration_steps(service, policies);
    vec![format!("start it, run `{command}`, then permit its items in {file}")]
}

/// The command that adds a service to the policy catalog, and the file in which to permit its
/// items.
fn registration_steps(service: &OwnService, policies: &Path) -> (String, String) {
    let mut command = "drawbridge policy schema".to_owned();
    add_urls(&mut command, service.urls.first());
    if policies != Path::new("policies") {
        // Writing to a string cannot fail.
        let _ = write!(command, " --out {}", policies.join("catalog").display());
    }
    (command, policies.join(format!("{}.cedar", service.namespace)).display().to_string())
}

/// The items that are new or changed since the lock: kind and name of each.
async fn unlocked_items(
    mesh: &Mesh,
    lock: &Path,
    peers: &Peers,
    mut contracts: Vec<Contract>,
) -> Result<Vec<String>, String> {
    let text =
        ConfigText::read_within(lock, LOCK_BYTES_MAX).map_err(|error| error_chain(&error))?;
    let before = CatalogLock::parse(&text).map_err(|error| error_chain(&error))?;
    let pool = drawbridge_mesh::contracts().map_err(|error| error_chain(&error))?;
    let services = pool.services().map(|service| service.full_name().to_owned()).collect();
    contracts.push(Contract { pool, services });
    let offer = preview_catalog(mesh.edge_config.as_deref(), peers, &contracts)
        .await
        .map_err(|error| error_chain(&error))?;
    let differences = before.differences(&offer.propose_lock(before.clone()).lock);
    let unlocked_items = differences.into_iter().filter(|difference| difference.change != "gone");
    Ok(unlocked_items.map(|item| format!("{} {}", item.kind.as_str(), item.name)).collect())
}

fn step_for_lock(
    service: &OwnService,
    unlocked_items: &Result<Vec<String>, String>,
    mesh: &Mesh,
    lock: &Path,
) -> Option<String> {
    let prefix = format!(" {}_", service.namespace);
    let items: Vec<_> = match unlocked_items {
        Ok(items) => {
            items.iter().filter(|item| item.contains(&prefix)).map(String::as_str).collect()
        }
        Err(error) => return Some(format!("cannot compare it with the catalog lock: {error}")),
    };
    if items.is_empty() {
        return None;
    }
    let mut command = "drawbridge catalog lock".to_owned();
    if let Some(config) = &mesh.edge_config {
        let _ = write!(command, " --config {}", config.display());
    }
    add_urls(&mut command, mesh.state.services.values());
    Some(format!(
        "{} lacks {}: review them, then run `{command}`",
        lock.display(),
        items.join(", ")
    ))
}

fn add_urls<'a>(command: &mut String, urls: impl IntoIterator<Item = &'a Url>) {
    for url in urls {
        // Writing to a string cannot fail.
        let _ = write!(command, " --service-url {}", url.as_str().trim_end_matches('/'));
    }
}
