use drawbridge_contract::{Contract, built_in};
use prost_reflect::DescriptorPool;
use protox::file::{
    ChainFileResolver, DescriptorSetFileResolver, GoogleFileResolver, IncludeFileResolver,
};

/// The contract that uses every feature, and that of the code service, each with its namespace.
pub(crate) fn contracts() -> Vec<(&'static str, Contract)> {
    let mut resolver = ChainFileResolver::new();
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../services/edge/src/catalog/testdata");
    resolver.add(IncludeFileResolver::new(folder.into()));
    resolver.add(
        DescriptorSetFileResolver::decode(drawbridge_proto::FILE_DESCRIPTOR_SET)
            .expect("contracts"),
    );
    resolver.add(GoogleFileResolver::new());
    let mut compiler = protox::Compiler::with_file_resolver(resolver);
    compiler.include_source_info(true).include_imports(true);
    compiler.open_file("everything.proto").expect("a contract");
    let everything = compiler.encode_file_descriptor_set();
    let everything = DescriptorPool::decode(everything.as_slice()).expect("descriptors");
    let contract = |pool, service: &str| Contract { pool, services: vec![service.to_owned()] };
    vec![
        ("test", contract(everything, "drawbridge.test.v1.TestService")),
        ("code", contract(built_in().expect("contracts"), "drawbridge.code.v1.CodeService")),
    ]
}
