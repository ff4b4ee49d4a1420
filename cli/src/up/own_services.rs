//! Tool services besides the mesh's own, and what of them clients do not see yet.

use std::{fmt::Write as _, fs, path::Path, time::Duration};

use drawbridge_edge::{CatalogLock, LOCK_BYTES_MAX, NamedServices, offered};
use drawbridge_sdk::{
    CallContext, ConfigText, Peers, RequestId,
    contract::offers,
    error_chain,
    reflection::{self, Contract, ReflectionError},
    status_text,
};
use tokio::time::timeout;
use tonic::transport::Channel;
use url::Url;

use super::UpArgs;
use crate::{mesh::Mesh, policy::schema};

/// How long a service may take to give its contract.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// A tool service that flags, variables or the config file name.
#[derive(Debug)]
pub(super) struct OwnService {
    pub(super) namespace: String,
    pub(super) urls: Vec<Url>,
    /// Why it gives no contract.
    pub(super) unreachable: Option<String>,
    /// What is to be done before clients see it: a sentence for each thing, with its command.
    pub(super) to_do: Vec<String>,
}

/// Asks each for its contract, and compares that with what policies and the catalog lock know.
pub(super) async fn look(args: &UpArgs, mesh: &Mesh) -> Vec<OwnService> {
    let NamedServices { services, lock, .. } = &mesh.own_services;
    // As the edge asks them: what it reaches is not to be shown as unreachable.
    let peers = match Peers::open(&mesh.edge_mtls) {
        Ok(peers) => peers,
        Err(error) => {
            tracing::warn!(error = error_chain(&error), "the tool services cannot be asked");
            return Vec::new();
        }
    };
    let mut asked = Vec::new();
    for (namespace, urls, id) in services {
        let Some(url) = urls.first() else { continue };
        let channel = peers.connect(url, namespace.as_str(), id.as_ref());
        let asking =
            tokio::spawn(
                async move { contract(channel.map_err(|error| error_chain(&error))?).await },
            );
        asked.push((namespace.to_string(), urls.clone(), asking));
    }
    let (mut found, mut contracts) = (Vec::new(), Vec::new());
    for (namespace, urls, asking) in asked {
        let mut service = OwnService { namespace, urls, unreachable: None, to_do: Vec::new() };
        match asking.await.unwrap_or_else(|error| Err(error.to_string())) {
            Ok(contract) => {
                service.to_do = unknown_to_policies(&service, &contract, &args.policies);
                contracts.push(contract);
            }
            Err(why) => {
                service.unreachable = Some(why);
                service.to_do = unknown_until_it_answers(&service, &args.policies);
            }
        }
        found.push(service);
    }
    if let Some(lock) = lock {
        let withheld = withheld(mesh, lock, &peers, contracts).await;
        for service in &mut found {
            service.to_do.extend(not_locked(service, &withheld, mesh, lock));
        }
    }
    found
}

async fn contract(channel: Channel) -> Result<Contract, String> {
    let context = CallContext::new(RequestId::generate(), ANSWER_WITHIN);
    match timeout(ANSWER_WITHIN, reflection::contract(channel, &context)).await {
        Ok(Err(ReflectionError::Call(status))) => Err(status_text(&status)),
        Ok(read) => read.map_err(|error| error_chain(&error)),
        Err(_) => Err(format!("no answer within {} seconds", ANSWER_WITHIN.as_secs())),
    }
}

/// What the folder of policies does not know of a contract.
fn unknown_to_policies(service: &OwnService, contract: &Contract, policies: &Path) -> Vec<String> {
    let OwnService { namespace, urls, .. } = service;
    let offers = offers(&contract.pool, &contract.services);
    let mut named: Vec<_> = offers.map(|offer| offer.namespace).collect();
    named.dedup();
    if named.is_empty() {
        return vec![
            "its contract has no tool, resource or prompt: docs/tools.md says how to mark one"
                .to_owned(),
        ];
    }
    if !named.contains(namespace) {
        let (first, url) = (&named[0], urls.first().map(Url::as_str).unwrap_or_default());
        return vec![format!(
            "its contract is of the namespace {first}: name it so, as in --service {first}={url}"
        )];
    }
    let catalog = policies.join("catalog");
    let is_known = |(name, text): (String, String)| {
        fs::read_to_string(catalog.join(name)).is_ok_and(|there| there == text)
    };
    let of_service = |name: &str| name.split_once('.').is_some_and(|(stem, _)| stem == namespace);
    if schema::files(contract).into_iter().filter(|(name, _)| of_service(name)).all(is_known) {
        return Vec::new();
    }
    let (command, file) = make_known(service, policies);
    vec![format!(
        "policies do not know what it offers now, so nobody sees that: `{command}`, then permit it in {file}"
    )]
}

/// What is to be done about a service that gives no contract, and of which policies know nothing.
fn unknown_until_it_answers(service: &OwnService, policies: &Path) -> Vec<String> {
    if policies.join(format!("catalog/{}.cedarschema", service.namespace)).exists() {
        return Vec::new();
    }
    let (command, file) = make_known(service, policies);
    vec![format!("start it, then `{command}`, and permit what it offers in {file}")]
}

/// The command by which policies know a service, and the file in which to permit it.
fn make_known(service: &OwnService, policies: &Path) -> (String, String) {
    let mut command = "drawbridge policy schema".to_owned();
    add_urls(&mut command, service.urls.first());
    if policies != Path::new("policies") {
        // Writing to a string cannot fail.
        let _ = write!(command, " --out {}", policies.join("catalog").display());
    }
    (command, policies.join(format!("{}.cedar", service.namespace)).display().to_string())
}

/// What the lock does not have as it is offered now: kind and name of each, and of what is in
/// neither.
async fn withheld(
    mesh: &Mesh,
    lock: &Path,
    peers: &Peers,
    mut contracts: Vec<Contract>,
) -> Result<Vec<String>, String> {
    let text =
        ConfigText::read_within(lock, LOCK_BYTES_MAX).map_err(|error| error_chain(&error))?;
    let before = CatalogLock::parse(&text).map_err(|error| error_chain(&error))?;
    let pool = reflection::built_in().map_err(|error| error_chain(&error))?;
    let services = pool.services().map(|service| service.full_name().to_owned()).collect();
    contracts.push(Contract { pool, services });
    let now = offered(mesh.edge_config.as_deref(), peers, &contracts)
        .await
        .map_err(|error| error_chain(&error))?;
    let differences = before.differences(&now.lockable(before.clone()).lock);
    let withheld = differences.into_iter().filter(|difference| difference.change != "gone");
    Ok(withheld.map(|item| format!("{} {}", item.kind.as_str(), item.name)).collect())
}

fn not_locked(
    service: &OwnService,
    withheld: &Result<Vec<String>, String>,
    mesh: &Mesh,
    lock: &Path,
) -> Option<String> {
    let prefix = format!(" {}_", service.namespace);
    let items: Vec<_> = match withheld {
        Ok(items) => {
            items.iter().filter(|item| item.contains(&prefix)).map(String::as_str).collect()
        }
        Err(error) => return Some(format!("it cannot be compared with the catalog lock: {error}")),
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
        "{} does not have {}: review them, then `{command}`",
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
