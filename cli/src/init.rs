//! `drawbridge init`: writes the files of a mesh of one's own.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use serde_json::json;

use crate::demo;

const CONFIG: &str = "edge.toml";
const USERS: &str = "users.toml";
const README: &str = "README.md";
const POLICIES: &str = "policies";

/// Where to write the files.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Examples:
  drawbridge init demo && cd demo && drawbridge up

Writes policies/ (with tests), edge.toml, users.toml and README.md. Overwrites nothing. `drawbridge \
up` uses these files in the folder where it runs.")]
pub struct InitArgs {
    /// The folder. It is created if it does not exist.
    #[arg(default_value = ".")]
    folder: PathBuf,

    /// Print what was written as one line of JSON.
    #[arg(long)]
    json: bool,
}

/// Writes the files.
///
/// # Errors
/// When one of them exists, or cannot be written.
pub fn run(args: &InitArgs) -> anyhow::Result<()> {
    let folder = &args.folder;
    let existing: Vec<_> = [POLICIES, CONFIG, USERS, README]
        .into_iter()
        .filter(|name| fs::symlink_metadata(folder.join(name)).is_ok())
        .collect();
    if !existing.is_empty() {
        bail!(
            "{} already has {}: choose another folder, or remove them",
            folder.display(),
            existing.join(", ")
        );
    }
    write(folder).with_context(|| format!("cannot write to {}", folder.display()))?;
    if args.json {
        let report = json!({ "folder": folder, "files": [POLICIES, CONFIG, USERS, README] });
        anstream::println!("{report}");
        return Ok(());
    }
    let enter = if folder == Path::new(".") {
        String::new()
    } else {
        format!("cd {} && ", folder.display())
    };
    anstream::println!(
        "wrote {POLICIES}/, {CONFIG}, {USERS} and {README} to {}\nNext: {enter}drawbridge up",
        folder.display()
    );
    Ok(())
}

fn write(folder: &Path) -> std::io::Result<()> {
    demo::write_policies(&folder.join(POLICIES))?;
    demo::write(&folder.join(CONFIG), include_str!("../init/edge.toml"))?;
    demo::write(&folder.join(USERS), demo::USERS)?;
    demo::write(&folder.join(README), include_str!("../init/README.md"))
}
