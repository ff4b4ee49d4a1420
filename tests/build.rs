//! Compiles the protos of the tests' own tool services, which import the public contract.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message as _;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    println!("cargo::rerun-if-changed=../proto/proto");
    for service in ["conformance", "cached", "notes"] {
        let mut compiler = protox::Compiler::new(["proto", "../proto/proto"])?;
        compiler.include_source_info(true).include_imports(true);
        compiler.open_files([format!("{service}.proto")])?;
        let descriptors = compiler.encode_file_descriptor_set();
        fs::write(
            PathBuf::from(env::var("OUT_DIR")?).join(format!("{service}.binpb")),
            &descriptors,
        )?;
        let descriptors = tonic_prost_build::FileDescriptorSet::decode(descriptors.as_slice())?;
        tonic_prost_build::configure()
            .build_client(false)
            .extern_path(".drawbridge.mcp.v1", "::drawbridge_proto::mcp::v1")
            .compile_fds(descriptors)?;
    }
    Ok(())
}
