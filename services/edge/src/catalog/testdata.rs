//! A contract with every kind of field, and overlays of config files, for tests.

use std::{sync::LazyLock, time::Duration};

use drawbridge_contract::Contract;
use drawbridge_runtime::{ConfigText, ConfigTextError};
use drawbridge_transport::BalancedChannel;
use prost_reflect::{DescriptorPool, MessageDescriptor};
use protox::file::{
    ChainFileResolver, DescriptorSetFileResolver, GoogleFileResolver, IncludeFileResolver,
};
use serde::Deserialize;

use super::{Overlay, ServerEntry, ServiceCatalog, ToolEntry, read_contract};

static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    let mut resolver = ChainFileResolver::new();
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/catalog/testdata");
    resolver.add(IncludeFileResolver::new(folder.into()));
    resolver.add(DescriptorSetFileResolver::decode(drawbridge_proto::FILE_DESCRIPTOR_SET).unwrap());
    resolver.add(GoogleFileResolver::new());
    let mut compiler = protox::Compiler::with_file_resolver(resolver);
    compiler.include_source_info(true).include_imports(true);
    compiler.open_file("everything.proto").unwrap();
    DescriptorPool::decode(compiler.encode_file_descriptor_set().as_slice()).unwrap()
});

/// The message `drawbridge.test.v1.{name}`.
pub(crate) fn message(name: &str) -> MessageDescriptor {
    POOL.get_message_by_name(&format!("drawbridge.test.v1.{name}")).unwrap()
}

/// The items of the test service. Needs a runtime, and makes no calls.
pub(crate) fn catalog() -> ServiceCatalog {
    let services = vec!["drawbridge.test.v1.TestService".to_owned()];
    let contract = Contract { pool: POOL.clone(), services };
    let channel = BalancedChannel::new(&["http://127.0.0.1:1".parse().unwrap()]).unwrap();
    read_contract(&"test".parse().unwrap(), &contract, &channel, Duration::from_secs(1))
}

#[derive(Deserialize)]
struct OverlayTables {
    #[serde(default)]
    tool: Vec<ToolEntry>,
    #[serde(default)]
    server: Vec<ServerEntry>,
}

/// The overlay of this config file, for services of these namespaces.
pub(crate) fn overlay(text: &str, services: &[&str]) -> Result<Overlay, ConfigTextError> {
    let text = ConfigText::new("edge.toml", text);
    let OverlayTables { tool, server } = text.parse()?;
    let services = services.iter().map(|namespace| namespace.parse().unwrap()).collect();
    Overlay::new(&text, &tool, &server, &services)
}
