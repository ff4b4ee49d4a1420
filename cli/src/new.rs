//! `drawbridge new service`: writes a tool service that builds at once, from a template.

use std::{fmt, fs, path::PathBuf};

use anyhow::{Context as _, bail};
use clap::{Subcommand, ValueEnum};
use serde::Serialize;
use serde_json::json;

use self::{mesh::MeshFiles, name::ServiceName, sdk::Sdk, template::Template};
use crate::demo;

mod mesh;
mod name;
mod sdk;
mod template;

/// What to write.
#[derive(Clone, Debug, Subcommand)]
pub enum NewCommand {
    /// Write a tool service: contract, handlers, tests, Dockerfile and policy.
    Service(ServiceArgs),
}

/// Arguments of `new service`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Examples:
  drawbridge new service rooms --lang python --offer
  drawbridge new service meeting_rooms --lang rust --out ~/src/meeting-rooms

Prints the commands that build and start it. Overwrites nothing.")]
pub struct ServiceArgs {
    /// The name: the namespace of its tools, `^[a-z][a-z0-9_]{0,31}$`.
    name: ServiceName,

    /// The programming language.
    #[arg(long, value_enum)]
    lang: Language,

    /// The folder to write to. Default: the name, in the working directory.
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,

    /// The port of its gRPC server by default. The next one is its admin port.
    #[arg(long, default_value_t = 7450, value_parser = clap::value_parser!(u16).range(1..65535))]
    port: u16,

    /// A checkout of Drawbridge, whose `sdk` folder the service depends on: the SDKs are not
    /// published yet. Default: the checkout that this program was built from.
    #[arg(long, value_name = "CHECKOUT")]
    sdk: Option<PathBuf>,

    /// Offer it in the mesh whose files are in the working directory, as `drawbridge init` writes
    /// them: add it to edge.toml, and its policy to policies/.
    #[arg(long)]
    offer: bool,

    /// Print what was written as one line of JSON.
    #[arg(long)]
    json: bool,
}

/// A programming language with an SDK.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Language {
    Rust,
    Python,
    Go,
}

impl fmt::Display for Language {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Rust => "Rust",
            Self::Python => "Python",
            Self::Go => "Go",
        })
    }
}

/// What was written.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The namespace of the service.
    pub service: String,
    /// Its folder.
    pub folder: PathBuf,
    /// The files, by their paths in the folder.
    pub files: Vec<String>,
    /// The commands that build, test and start it, in its folder.
    pub build: Vec<String>,
    /// The files of the mesh that name it now.
    pub mesh_files: Vec<PathBuf>,
    /// The commands that are left to offer it to AI clients, in the folder of a mesh.
    pub offer: Vec<String>,
}

/// Runs `drawbridge new`.
///
/// # Errors
/// As [`write()`].
pub fn run(command: &NewCommand) -> anyhow::Result<()> {
    let NewCommand::Service(args) = command;
    let report = write(args)?;
    if args.json {
        anstream::println!("{}", json!(report));
        return Ok(());
    }
    let folder = report.folder.display();
    anstream::println!("wrote a tool service in {} to {folder}", args.lang);
    anstream::println!("\nBuild and start it:\n  cd {folder}");
    report.build.iter().for_each(|line| anstream::println!("  {line}"));
    if !report.mesh_files.is_empty() {
        let files = report.mesh_files.iter().map(|file| file.display().to_string());
        anstream::println!("\nadded it to {}", files.collect::<Vec<_>>().join(" and "));
    }
    anstream::println!("\nOffer it to AI clients, in the folder of your mesh:");
    report.offer.iter().for_each(|line| anstream::println!("  {line}"));
    Ok(())
}

/// Writes a new tool service.
///
/// # Errors
/// When the folder has files already, no SDK is found, or a file cannot be written. With `--offer`
/// also when the mesh has no config file or has this service already; then nothing is written.
pub fn write(args: &ServiceArgs) -> anyhow::Result<Report> {
    let sdk = Sdk::find(args.sdk.as_deref(), args.lang)?;
    let template = Template::new(args.lang, &args.name, args.port, &sdk);
    let folder = args.out.clone().unwrap_or_else(|| PathBuf::from(args.name.as_str()));
    if fs::read_dir(&folder).is_ok_and(|mut entries| entries.next().is_some()) {
        bail!("{} is not empty: choose another folder with --out", folder.display());
    }
    let mesh = args.offer.then(|| MeshFiles::with(&args.name, args.port)).transpose()?;
    let files = template.files();
    for (name, content) in &files {
        let path = folder.join(name);
        demo::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let mut offer = template.offer_commands(&folder);
    if let Some(mesh) = &mesh {
        mesh.write(&folder)?;
        offer.retain(|command| command.starts_with("drawbridge policy schema"));
    }
    Ok(Report {
        service: args.name.as_str().to_owned(),
        files: files.into_iter().map(|(name, _)| name).collect(),
        build: template.build_commands(),
        mesh_files: mesh.map_or_else(Vec::new, MeshFiles::into_paths),
        offer,
        folder,
    })
}
