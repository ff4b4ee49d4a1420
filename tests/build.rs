//! Compiles the conformance service's proto, which imports the public contract.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message as _;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    println!("cargo::rerun-if-changed=../proto/proto");
    let mut compiler = protox::Compiler::new(["proto", "../proto/proto"])?;
    compiler.include_source_info(true).include_imports(true);
    compiler.open_files(["conformance.proto"])?;
    let descriptors = compiler.encode_file_descriptor_set();
    fs::write(PathBuf::from(env::var("OUT_DIR")?).join("conformance.binpb"), &descriptors)?;
    let descriptors = tonic_prost_build::FileDescriptorSet::decode(descriptors.as_slice())?;
    tonic_prost_build::configure()
        .build_client(false)
        .extern_path(".drawbridge.mcp.v1", "::drawbridge_proto::mcp::v1")
        .compile_fds(descriptors)?;
    Ok(())
}
