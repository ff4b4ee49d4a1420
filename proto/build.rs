//! Compiles the protos with protox, and includes comments and custom options for reflection.

use std::{collections::BTreeSet, env, error::Error, fs, path::PathBuf};

use prost::Message as _;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_source_info(true).include_imports(true);
    let protos = protos()?;
    compiler.open_files(&protos)?;

    let out_dir = PathBuf::from(env::var("OUT_DIR")?);
    // These bytes include the custom options, which prost's descriptor types would drop.
    fs::write(out_dir.join("descriptors.binpb"), compiler.encode_file_descriptor_set())?;

    fs::write(out_dir.join("contracts.rs"), modules(&protos))?;

    // Messages that contain a token: `src/redacted.rs` implements their `Debug`.
    const SECRET: [&str; 5] = [
        "drawbridge.auth.v1.AuthorizeRequest",
        "drawbridge.auth.v1.ExchangeRequest",
        "drawbridge.auth.v1.FilterCatalogRequest",
        "drawbridge.auth.v1.RevokeRequest",
        "drawbridge.auth.v1.TransactionToken",
    ];
    let mut config = tonic_prost_build::Config::new();
    config.enable_type_names();
    let types = prost_types(&compiler)?;
    tonic_prost_build::configure()
        .bytes(".drawbridge.auth.v1.Operation.arguments_json")
        .bytes(".drawbridge.auth.v1.Operation.recorded_arguments_json")
        .skip_debug(SECRET)
        .compile_fds_with_config(types, config)?;
    Ok(())
}

/// The contracts, `drawbridge/<area>/v1/<name>.proto`, sorted.
fn protos() -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let mut protos = Vec::new();
    for area in fs::read_dir("proto/drawbridge")? {
        for file in fs::read_dir(area?.path().join("v1"))? {
            let path = file?.path();
            if path.extension().is_some_and(|extension| extension == "proto") {
                protos.push(path.strip_prefix("proto")?.to_owned());
            }
        }
    }
    protos.sort();
    Ok(protos)
}

/// A module `<area>::v1` for each area that has contracts.
fn modules(protos: &[PathBuf]) -> String {
    let area = |proto: &PathBuf| proto.iter().nth(1)?.to_str().map(str::to_owned);
    let areas: BTreeSet<_> = protos.iter().filter_map(area).collect();
    let module = |area| {
        let contracts = format!("tonic::include_proto!(\"drawbridge.{area}.v1\");");
        format!("pub mod {area} {{ pub mod v1 {{ {contracts} }} }}\n")
    };
    areas.into_iter().map(module).collect()
}

/// The descriptors in the type that the code generator takes.
fn prost_types(
    compiler: &protox::Compiler,
) -> Result<tonic_prost_build::FileDescriptorSet, prost::DecodeError> {
    tonic_prost_build::FileDescriptorSet::decode(compiler.encode_file_descriptor_set().as_slice())
}
