use std::{fs, io::Write as _, path::PathBuf};

use anyhow::{Context as _, bail};
use drawbridge_audit::{note::SigningKey, read::LogFiles};
use drawbridge_runtime::private_files;
use secrecy::ExposeSecret as _;

use super::print;

/// Arguments of `audit key`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Examples:
  drawbridge audit key logs/ > audit-keys.txt
  drawbridge audit key --out /run/secrets/audit-signing.key

Store the public keys where those who can write the logs cannot write.")]
pub struct KeyArgs {
    /// Audit logs whose public keys are printed: folders with everything below them, or single
    /// files.
    #[arg(value_name = "LOG", required_unless_present = "out")]
    logs: Vec<PathBuf>,

    /// Make a new private key in this file, for --audit-signing-key-file, and print its public
    /// key. Only this user may read the file.
    #[arg(long, value_name = "FILE", conflicts_with = "logs")]
    out: Option<PathBuf>,
}

pub(super) fn run(args: &KeyArgs) -> anyhow::Result<bool> {
    if let Some(out) = &args.out {
        let (key, text) = SigningKey::generate("drawbridge-audit")?;
        let shown = out.display();
        if fs::symlink_metadata(out).is_ok() {
            bail!("{shown} exists; name a new file, or remove it if no log is signed by it");
        }
        private_files::create(out)
            .and_then(|mut file| writeln!(file, "{}", text.expose_secret()))
            .with_context(|| format!("cannot write {shown}"))?;
        print(&key.public().to_string())?;
        return Ok(true);
    }
    let mut keys = Vec::new();
    for log in LogFiles::find(&args.logs)? {
        keys.extend(log.key()?);
    }
    keys.iter().try_for_each(|key| print(key))?;
    Ok(!keys.is_empty())
}
