use std::{
    fs,
    io::{ErrorKind, Write as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use drawbridge_auth::policy::bundle::SigningKey;
use drawbridge_runtime::private_files;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::json;

use super::{Verdict, print_json};

/// The largest file of a private key, in bytes.
const KEY_BYTES_MAX: u64 = 4096;

/// Arguments of `policy key`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Examples:
  drawbridge policy key acme.example/alice --out alice.key
  drawbridge policy key acme.example/ci --out /run/secrets/ci.key --json

The printed line is the public key: add it to the file that auth gets by --policy-keys.")]
pub struct KeyArgs {
    /// Whose key it is: a name without spaces and `+`, such as a URL without its scheme.
    name: String,

    /// The new file of the private key. Only this user may read it.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,

    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &KeyArgs) -> anyhow::Result<Verdict> {
    let (key, text) = SigningKey::generate(&args.name)?;
    let shown = args.out.display();
    if fs::symlink_metadata(&args.out).is_ok() {
        bail!("{shown} exists; name a new file, or remove it if no bundle is signed by it");
    }
    let written = private_files::create(&args.out)
        .and_then(|mut file| writeln!(file, "{}", text.expose_secret()));
    written.with_context(|| format!("cannot write {shown}"))?;
    let public = key.public().to_string();
    if args.json {
        print_json(&json!({ "name": args.name, "public": public, "file": args.out }))?;
    } else {
        anstream::println!("{public}");
    }
    Ok(Verdict::Good)
}

/// Reads a private key that [`run`] has written.
pub(super) fn read(path: &Path) -> anyhow::Result<SigningKey> {
    let parse = || {
        let text = String::from_utf8(private_files::read_secret(path, KEY_BYTES_MAX)?);
        let text: SecretString =
            text.map_err(|_| std::io::Error::new(ErrorKind::InvalidData, "not UTF-8"))?.into();
        anyhow::Ok(SigningKey::parse(&text)?)
    };
    parse().with_context(|| format!("cannot read the private key {}", path.display()))
}
