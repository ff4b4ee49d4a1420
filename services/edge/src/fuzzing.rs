//! Entry points of the fuzz targets in `tests/fuzz`. The feature `fuzzing` has them, and no release.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    clippy::missing_errors_doc,
    reason = "a fuzz target that finds something says so"
)]

use drawbridge_sdk::{BalancedChannel, connect, dynamic, reflection::Contract};
use prost_reflect::{DynamicMessage, prost::Message as _};
use serde_json::Value;

use super::*;
use crate::catalog::{ServiceCatalog, read_arguments, read_contract};
use crate::traffic::guard::fuzzing::Guarding;

/// The front door before services of these contracts, all of which are at `url`.
pub fn front_door(
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
    let secret = made_up_secret();
    let resource = Arc::new(ProtectedResource::new(
        &config.public_url,
        &config.authorization_servers,
        &config.scopes,
    ));
    let whole = Endpoint { resource: Arc::clone(&resource), namespace: None };
    let front = Front::new(config, whole)?;
    let authorizer = Authorizer::new(connect(&config.auth_url)?);
    tokio::spawn(authorizer.clone().listen(CancellationToken::new()));
    let (cache, _) = Cache::new(&secret, None)?;
    let handler = Handler {
        catalogs: Arc::clone(&catalogs),
        calls: Arc::default(),
        cache: cache.into(),
        guards: Arc::default(),
        seal: Seal::new(&secret)?.into(),
        watches: mcp::watches(&config.streams),
    };
    let server = server(config, handler, &secret, CancellationToken::new())?;
    let metadata = resource.routes(&catalogs);
    let limits = Arc::new(Limits::new(None)?);
    let bodies = Arc::new(BodyBudget::new(config.bodies.clone()));
    let answers = Arc::new(AnswerBudget::new(config.answers_bytes_max));
    let requests = Arc::default();
    let gate = Gate { authorizer, server, catalogs, limits, requests, resource, bodies, answers };
    Ok(Router::new().fallback_service(service(front, gate, metadata)))
}

fn catalog(namespace: &Namespace, contract: &Contract, url: &Url) -> ServiceCatalog {
    let channel = BalancedChannel::new(std::slice::from_ref(url)).expect("a channel");
    read_contract(namespace, contract, &channel, Duration::from_secs(1))
}

/// The tools of some contracts, and guards.
#[derive(Debug)]
pub struct Tools(Vec<ServiceCatalog>, Guarding);

impl Tools {
    /// The tools of these contracts. It needs a runtime, and calls nobody.
    #[must_use]
    pub fn of(contracts: &[(&str, Contract)]) -> Self {
        let url = "http://127.0.0.1:1".parse().expect("a URL");
        let catalogs = contracts.iter().map(|(namespace, contract)| {
            catalog(&namespace.parse().expect("a namespace"), contract, &url)
        });
        Self(catalogs.collect(), Guarding::new())
    }

    /// Asserts that a text is guarded as it should be.
    pub fn guard(&self, text: &str) {
        self.1.assert(text);
    }

    /// Reads arguments of the tool of this name, and asserts that the message says the same in every form. Says
    /// whether there is such a tool and the arguments are JSON.
    #[must_use]
    pub fn read(&self, name: &str, arguments: &[u8]) -> bool {
        let mut tools = self.0.iter().flat_map(|service| &service.tools);
        let Some(tool) = tools.find(|tool| tool.item.name == name) else { return false };
        let Ok(arguments) = serde_json::from_slice::<Value>(arguments) else { return false };
        let Ok(message) = read_arguments(tool, &arguments) else { return true };
        let json = dynamic::to_json(&message).expect("what was read can be written");
        let again = dynamic::from_json(tool.target.input(), &json);
        let again = again
            .unwrap_or_else(|error| panic!("{error}: what was written cannot be read: {json}"));
        assert_eq!(dynamic::to_json(&again).expect("JSON"), json, "read from {arguments}");
        let wire = message.encode_to_vec();
        let received =
            DynamicMessage::decode(tool.target.input(), wire.as_slice()).expect("a message");
        assert_eq!(dynamic::to_json(&received).expect("JSON"), json, "received from {arguments}");
        let form = &tool.target.policy_form;
        assert_eq!(form.json(&received), form.json(&message), "decided on {arguments}");
        true
    }
}
