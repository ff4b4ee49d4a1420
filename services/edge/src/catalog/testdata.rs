//! A contract with every kind of field, and overlays of config files, for tests.

use std::{path::Path, sync::LazyLock, time::Duration};

use drawbridge_contract::Contract;
use drawbridge_transport::BalancedChannel;
use prost_reflect::{DescriptorPool, MessageDescriptor};
use protox::file::{
    ChainFileResolver, DescriptorSetFileResolver, GoogleFileResolver, IncludeFileResolver,
};

use super::{Overlay, ServiceCatalog, read_contract};

static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/catalog/testdata");
    DescriptorPool::decode(compile(Path::new(folder), "everything.proto").as_slice()).unwrap()
});

/// Compiles a contract in a folder, with its imports.
fn compile(folder: &Path, file: &str) -> Vec<u8> {
    let mut resolver = ChainFileResolver::new();
    resolver.add(IncludeFileResolver::new(folder.to_owned()));
    resolver.add(DescriptorSetFileResolver::decode(drawbridge_proto::FILE_DESCRIPTOR_SET).unwrap());
    resolver.add(GoogleFileResolver::new());
    let mut compiler = protox::Compiler::with_file_resolver(resolver);
    compiler.include_source_info(true).include_imports(true);
    compiler.open_file(file).unwrap();
    compiler.encode_file_descriptor_set()
}

/// The contract of one service in `namespace`, `test.{namespace}.Offers`, with these messages and
/// RPCs.
pub(crate) fn descriptor_set(namespace: &str, messages: &str, rpcs: &str) -> Vec<u8> {
    let source = format!(
        "syntax = \"proto3\"; package test.{namespace};\n\
         import \"drawbridge/mcp/v1/options.proto\";\n\
         import \"drawbridge/mcp/v1/content.proto\";\n\
         {messages}\n\
         service Offers {{\n\
         option (drawbridge.mcp.v1.service) = {{ namespace: \"{namespace}\" }};\n{rpcs} }}"
    );
    let folder = tempfile::tempdir().unwrap();
    let file = format!("{namespace}.proto");
    std::fs::write(folder.path().join(&file), source).unwrap();
    compile(folder.path(), &file)
}

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

/// The overlay of this config file, for services of these namespaces.
pub(crate) fn overlay(text: &str, services: &[&str]) -> Result<Overlay, String> {
    let services = services.iter().map(|namespace| namespace.parse().unwrap()).collect();
    crate::traffic::testdata::read(text, |file, mistakes| {
        Overlay::new(&file.tool, &file.server, &services, mistakes)
    })
}
