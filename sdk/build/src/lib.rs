//! Compiles the contract of a tool service, in its build script. It needs no `protoc`.
//!
//! ```no_run
//! // build.rs
//! fn main() -> Result<(), drawbridge_build::BuildError> {
//!     drawbridge_build::compile("proto")
//! }
//! ```
//!
//! ```ignore
//! // src/lib.rs
//! mod contract {
//!     drawbridge_sdk::include_contract!();
//! }
//! use contract::{DESCRIPTORS, notes::v1::note_service_server::NoteServiceServer};
//! ```

use std::{
    collections::BTreeSet,
    env, fs, io,
    path::{Path, PathBuf},
};

use prost::Message as _;
use protox::file::{
    ChainFileResolver, File, FileResolver, GoogleFileResolver, IncludeFileResolver,
};
use tonic_prost_build::FileDescriptorSet;

/// The protos that a contract imports, by their names.
const IMPORTS: [(&str, &str); 4] = [
    (
        "buf/validate/validate.proto",
        include_str!("../../../proto/proto/buf/validate/validate.proto"),
    ),
    (
        "drawbridge/mcp/v1/content.proto",
        include_str!("../../../proto/proto/drawbridge/mcp/v1/content.proto"),
    ),
    (
        "drawbridge/mcp/v1/interaction.proto",
        include_str!("../../../proto/proto/drawbridge/mcp/v1/interaction.proto"),
    ),
    (
        "drawbridge/mcp/v1/options.proto",
        include_str!("../../../proto/proto/drawbridge/mcp/v1/options.proto"),
    ),
];

/// The lints that generated code need not pass.
const ALLOWED: &str =
    "#[allow(missing_docs, unreachable_pub, clippy::all, clippy::clone_on_ref_ptr)]";

/// The first item of the generated file.
const DESCRIPTORS: &str = "\
/// The contract, an encoded `FileDescriptorSet` with comments and options.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!(\"OUT_DIR\"), \"/descriptors.binpb\"));
";

/// A contract could not be compiled.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// It is called outside a build script.
    #[error("cannot read the build script's variable {name}")]
    Environment {
        /// The variable.
        name: &'static str,
        /// The cause.
        source: env::VarError,
    },
    /// A file or folder cannot be read or written.
    #[error("cannot use {}", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The folder contains no proto.
    #[error("{} contains no .proto file", folder.display())]
    NoProto {
        /// The folder.
        folder: PathBuf,
    },
    /// A proto has no package.
    #[error("{proto} has no package; add e.g. `package notes.v1;`")]
    NoPackage {
        /// The proto.
        proto: String,
    },
    /// A proto is invalid. The message names the place in it.
    #[error("{0:?}")]
    Proto(protox::Error),
    /// The descriptors are invalid.
    #[error("invalid descriptors")]
    Descriptors(#[from] prost::DecodeError),
}

/// Compiles all protos in a folder, which is also where their imports are found. They may import
/// `drawbridge/mcp/v1/*.proto`, `buf/validate/validate.proto` and `google/protobuf/*.proto`
/// without having them.
///
/// `drawbridge_sdk::include_contract!()` includes what this generates: a module per package with
/// messages, client and server, and `DESCRIPTORS` for reflection, with the protos' comments.
///
/// # Errors
/// When a proto cannot be read, is invalid or has no package.
#[expect(clippy::print_stdout, reason = "Cargo reads the output of build scripts")]
pub fn compile(folder: impl AsRef<Path>) -> Result<(), BuildError> {
    let folder = folder.as_ref();
    println!("cargo::rerun-if-changed={}", folder.display());
    let out_dir = env::var("OUT_DIR")
        .map_err(|source| BuildError::Environment { name: "OUT_DIR", source })?;
    generate(folder, Path::new(&out_dir))
}

fn generate(folder: &Path, out_dir: &Path) -> Result<(), BuildError> {
    let mut protos = Vec::new();
    find(folder, folder, &mut protos)?;
    if protos.is_empty() {
        return Err(BuildError::NoProto { folder: folder.to_owned() });
    }
    protos.sort();

    let mut resolver = ChainFileResolver::new();
    resolver.add(IncludeFileResolver::new(folder.to_owned()));
    resolver.add(Imports);
    resolver.add(GoogleFileResolver::new());
    let mut compiler = protox::Compiler::with_file_resolver(resolver);
    compiler.include_source_info(true).include_imports(true);
    // Relative to the include path, so that a file of the same name elsewhere is not found.
    for proto in &protos {
        compiler.open_file(proto).map_err(BuildError::Proto)?;
    }
    // These bytes include the custom options, which prost's descriptor types would drop.
    let descriptors = compiler.encode_file_descriptor_set();
    write(&out_dir.join("descriptors.binpb"), &descriptors)?;

    let all = FileDescriptorSet::decode(descriptors.as_slice())?;
    let own = all.file.iter().filter(|file| protos.iter().any(|proto| proto == file.name()));
    let package = |file: &prost_types::FileDescriptorProto| match file.package() {
        "" => Err(BuildError::NoPackage { proto: file.name().to_owned() }),
        package => Ok(package.to_owned()),
    };
    let packages = own.map(package).collect::<Result<BTreeSet<_>, _>>()?;
    let mut config = tonic_prost_build::Config::new();
    config.enable_type_names();
    config.prost_path("::drawbridge_sdk::prost");
    config.prost_types_path("::drawbridge_sdk::prost_types");
    tonic_prost_build::configure()
        .codec_path("::drawbridge_sdk::tonic_prost::ProstCodec")
        .extern_path(".drawbridge.mcp.v1", "::drawbridge_sdk::mcp")
        .out_dir(out_dir)
        .compile_fds_with_config(all, config)
        .map_err(|source| BuildError::File { path: out_dir.to_owned(), source })?;

    for package in &packages {
        // The generated modules expect the crate `tonic`.
        edit(&out_dir.join(format!("{package}.rs")), |code| {
            code.replace(
                "use tonic::codegen::*;",
                "use ::drawbridge_sdk::tonic::{self, codegen::*};",
            )
        })?;
    }
    let paths: Vec<_> = packages.iter().map(|package| package.split('.').collect()).collect();
    write(&out_dir.join("contract.rs"), (DESCRIPTORS.to_owned() + &modules(&paths, 0)).as_bytes())
}

/// The modules of packages that are equal up to `depth`, sorted.
fn modules(packages: &[Vec<&str>], depth: usize) -> String {
    let mut code = String::new();
    for group in packages.chunk_by(|one, other| one.get(depth) == other.get(depth)) {
        match group[0].get(depth) {
            Some(name) => {
                let inner = modules(group, depth + 1);
                code += &format!("{ALLOWED}\npub mod r#{name} {{\n{inner}}}\n");
            }
            None => {
                let file = group[0].join(".");
                code += &format!("include!(concat!(env!(\"OUT_DIR\"), \"/{file}.rs\"));\n");
            }
        }
    }
    code
}

/// Adds the names of the protos below `folder`, relative to `root`, without those of [`IMPORTS`].
fn find(root: &Path, folder: &Path, protos: &mut Vec<String>) -> Result<(), BuildError> {
    let failed = |source| BuildError::File { path: folder.to_owned(), source };
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.is_dir() {
            find(root, &path, protos)?;
        } else if path.extension().is_some_and(|extension| extension == "proto") {
            let name = path.strip_prefix(root).unwrap_or(&path).to_string_lossy();
            let name = name.replace(std::path::MAIN_SEPARATOR, "/");
            if !IMPORTS.iter().any(|(import, _)| *import == name) {
                protos.push(name);
            }
        }
    }
    Ok(())
}

fn edit(path: &Path, change: impl FnOnce(String) -> String) -> Result<(), BuildError> {
    let code = fs::read_to_string(path)
        .map_err(|source| BuildError::File { path: path.to_owned(), source })?;
    write(path, change(code).as_bytes())
}

fn write(path: &Path, contents: &[u8]) -> Result<(), BuildError> {
    fs::write(path, contents).map_err(|source| BuildError::File { path: path.to_owned(), source })
}

/// Resolves [`IMPORTS`].
#[derive(Debug)]
struct Imports;

impl FileResolver for Imports {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        match IMPORTS.iter().find(|(import, _)| *import == name) {
            Some((name, source)) => File::from_source(name, source),
            None => Err(protox::Error::file_not_found(name)),
        }
    }
}

#[cfg(test)]
mod tests;
