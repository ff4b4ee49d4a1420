//! Compiles the protos with protox, keeping comments and custom options for reflection.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message as _;

const PROTOS: [&str; 4] = [
    "drawbridge/auth/v1/auth.proto",
    "drawbridge/code/v1/code.proto",
    "drawbridge/mcp/v1/content.proto",
    "drawbridge/mcp/v1/options.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_source_info(true).include_imports(true);
    compiler.open_files(PROTOS)?;

    let out_dir = PathBuf::from(env::var("OUT_DIR")?);
    // These bytes keep the custom options, which prost's own descriptor types would drop.
    fs::write(out_dir.join("descriptors.binpb"), compiler.encode_file_descriptor_set())?;

    // Messages that hold a token: `src/redacted.rs` says how they print.
    const SECRET: [&str; 4] = [
        "drawbridge.auth.v1.AuthorizeRequest",
        "drawbridge.auth.v1.ExchangeRequest",
        "drawbridge.auth.v1.FilterCatalogRequest",
        "drawbridge.auth.v1.TransactionToken",
    ];
    let mut config = tonic_prost_build::Config::new();
    config.enable_type_names();
    let types = prost_types(&compiler)?;
    tonic_prost_build::configure()
        .bytes(".drawbridge.auth.v1.Operation.arguments_json")
        .skip_debug(SECRET)
        .compile_fds_with_config(types, config)?;
    Ok(())
}

/// The descriptors as the code generator takes them.
fn prost_types(
    compiler: &protox::Compiler,
) -> Result<tonic_prost_build::FileDescriptorSet, prost::DecodeError> {
    tonic_prost_build::FileDescriptorSet::decode(compiler.encode_file_descriptor_set().as_slice())
}
