//! Entry points of the fuzz targets in `tests/fuzz`, behind the feature `fuzzing`, which no release
//! enables.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    clippy::missing_errors_doc,
    reason = "a fuzz target panics on a finding"
)]

use axum::Router;
use drawbridge_config::Namespace;
use drawbridge_contract::{Contract, dynamic};
use drawbridge_runtime::ServiceTasks;
use drawbridge_transport::BalancedChannel;
use prost_reflect::{DynamicMessage, prost::Message as _};
use serde_json::Value;

use super::*;
use crate::catalog::{ServiceCatalog, read_arguments, read_contract};
use crate::traffic::guard::fuzzing::FuzzGuards;

/// The router of an edge for services with these contracts, all at `url`.
pub fn edge_router(
    config: &Config,
    contracts: &[(&str, Contract)],
    url: &Url,
) -> Result<Router, StartError> {
    let catalogs: Arc<Catalogs> = Arc::default();
    for (namespace, contract) in contracts {
        let namespace: Namespace = namespace.parse().expect("a namespace");
        let service = catalog(&namespace, contract, url);
        catalogs.update(|catalog| catalog.with(namespace.clone(), service.clone()));
    }
    let keys = EdgeKeys::new(None, false)?;
    let authorizer = authorizer(config, &Peers::default())?;
    let tasks = ServiceTasks::default();
    let (cache, _) = Cache::new(keys.cache, None)?;
    let reloadable = Reloadable {
        limits: Arc::new(RateLimiter::new(None)?),
        calls: Arc::default(),
        controller: Arc::default(),
        guards: Arc::default(),
        cache: cache.into(),
    };
    let audit = AuditLog::off().expect("random bytes");
    let service = http_service(config, authorizer, catalogs, reloadable, keys.mcp, tasks, audit)?;
    Ok(Router::new().fallback_service(service))
}

fn catalog(namespace: &Namespace, contract: &Contract, url: &Url) -> ServiceCatalog {
    let channel = BalancedChannel::new(std::slice::from_ref(url)).expect("a channel");
    read_contract(namespace, contract, &channel, Duration::from_secs(1))
}

/// The tools of some contracts, and guards.
#[derive(Debug)]
pub struct FuzzTools(Vec<ServiceCatalog>, FuzzGuards);

impl FuzzTools {
    /// The tools of these contracts. It needs a runtime, but makes no call.
    #[must_use]
    pub fn new(contracts: &[(&str, Contract)]) -> Self {
        let url = "http://127.0.0.1:1".parse().expect("a URL");
        let catalogs = contracts.iter().map(|(namespace, contract)| {
            catalog(&namespace.parse().expect("a namespace"), contract, &url)
        });
        Self(catalogs.collect(), FuzzGuards::new())
    }

    /// Asserts the invariants of a guarded text.
    pub fn assert_guarded(&self, text: &str) {
        self.1.assert(text);
    }

    /// Parses arguments of the named tool, and asserts that the message is equal in every form.
    /// Returns whether the tool exists and the arguments are JSON.
    #[must_use]
    pub fn assert_arguments(&self, name: &str, arguments: &[u8]) -> bool {
        let mut tools = self.0.iter().flat_map(|service| &service.tools);
        let Some(tool) = tools.find(|tool| tool.item.name == name) else { return false };
        let Ok(arguments) = serde_json::from_slice::<Value>(arguments) else { return false };
        let Ok(message) = read_arguments(tool, &arguments) else { return true };
        let json = dynamic::to_json(&message).expect("a parsed message can be serialized");
        let reparsed = dynamic::from_json(tool.target.input(), &json);
        let reparsed = reparsed.unwrap_or_else(|error| panic!("{error}: cannot parse {json}"));
        assert_eq!(dynamic::to_json(&reparsed).expect("JSON"), json, "parsed from {arguments}");
        let wire = message.encode_to_vec();
        let received =
            DynamicMessage::decode(tool.target.input(), wire.as_slice()).expect("a message");
        assert_eq!(dynamic::to_json(&received).expect("JSON"), json, "decoded from {arguments}");
        let form = &tool.target.policy_form;
        assert_eq!(form.json(&received), form.json(&message), "policy form of {arguments}");
        true
    }
}
