use std::{fs, path::PathBuf};

use anyhow::Context as _;

use super::kinds::{FileKind, KINDS};

/// Arguments of `config schema`.
#[derive(Clone, Debug, clap::Args)]
pub struct SchemaArgs {
    /// The kind of file.
    #[arg(value_parser = FileKind::names())]
    kind: String,

    /// The file to write. Absent: standard output.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub(super) fn run(args: &SchemaArgs) -> anyhow::Result<()> {
    let kind = FileKind::named(&args.kind).map_err(anyhow::Error::msg)?;
    let text = text(kind).with_context(|| format!("{} has no schema", kind.about))?;
    let Some(path) = &args.out else {
        anstream::print!("{text}");
        return Ok(());
    };
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// The schema of each kind of file, by the name of its file in the documentation.
pub(crate) fn schemas() -> impl Iterator<Item = (String, String)> {
    KINDS.iter().filter_map(|kind| Some((file_name(kind)?, text(kind)?)))
}

/// The kinds of files: their name, what they are, and the name of the schema's file.
pub(crate) fn kinds() -> impl Iterator<Item = (&'static str, &'static str, Option<String>)> {
    KINDS.iter().map(|kind| (kind.name, kind.about, file_name(kind)))
}

fn file_name(kind: &FileKind) -> Option<String> {
    kind.schema.map(|_| format!("{}.schema.json", kind.name))
}

fn text(kind: &FileKind) -> Option<String> {
    let mut schema = kind.schema?();
    schema.insert("title".to_owned(), format!("{}: {}", kind.name, kind.about).into());
    serde_json::to_string_pretty(&schema).ok().map(|text| text + "\n")
}
