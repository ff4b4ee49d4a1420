use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use drawbridge_auth::policy::{
    PolicyError,
    bundle::{
        BUNDLE_BYTES_MAX, Bundle, BundleError, BundleLocation, NOTE_BYTES_MAX, Note, Release,
        RemoteConfig, TrustedKeys, is_name, push,
    },
};
use drawbridge_config::{ConfigText, policy_keys::DEFAULT_NAME};
use drawbridge_runtime::bounded;
use jiff::Timestamp;
use serde_json::json;

use super::{Verdict, key, pluralize, print_json, print_problems};

/// Arguments of `policy bundle`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Examples:
  drawbridge policy bundle --out policies.tar.gz --key alice.key --revision 42
  drawbridge policy bundle --name acme/staging --out staging.tar.gz \\
    --key ci.key --revision \"$CI_PIPELINE_ID\" --valid-days 30

The signature is written beside the bundle, with .sig appended. The same files are the same \
bundle, byte for byte.")]
pub struct BundleArgs {
    /// The folder of policies.
    #[arg(default_value = "policies")]
    folder: PathBuf,

    /// The file to write.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,

    /// The file of a private key that signs. Repeat for several.
    #[arg(long = "key", value_name = "FILE", required = true)]
    keys: Vec<PathBuf>,

    /// The number of this bundle. Auth takes no bundle with a smaller number than it had.
    #[arg(long, value_name = "NUMBER")]
    revision: u64,

    /// Which policies these are: the name in the file of keys of the auths that are to have them.
    #[arg(long, default_value = DEFAULT_NAME, value_parser = parse_name)]
    name: String,

    /// For how many days auth may go without a newer bundle before it warns. The bundle stays in
    /// force.
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=3650))]
    valid_days: Option<u32>,

    /// Let this bundle replace revisions up to this one, although its own is smaller.
    #[arg(long, value_name = "NUMBER")]
    allow_rollback: Option<u64>,

    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

/// Arguments of `policy sign`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Examples:
  drawbridge policy sign policies.tar.gz --key bob.key")]
pub struct SignArgs {
    /// The bundle, with its signature beside it.
    bundle: PathBuf,

    /// The file of a private key that signs. Repeat for several.
    #[arg(long = "key", value_name = "FILE", required = true)]
    keys: Vec<PathBuf>,

    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

/// Arguments of `policy push`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Examples:
  drawbridge policy push policies.tar.gz oci://ghcr.io/acme/policies:live \\
    --policy-credentials registry.secret
  drawbridge policy push policies.tar.gz https://files.acme.example/acme.tar.gz")]
pub struct PushArgs {
    /// The bundle, with its signature beside it.
    bundle: PathBuf,

    /// Where to: a tag of an OCI registry, or a URL at which a server accepts PUT.
    #[arg(value_name = "URL")]
    location: BundleLocation,

    /// The file of the keys that auth trusts. Absent: the signatures are not verified first.
    #[arg(long, value_name = "FILE")]
    policy_keys: Option<PathBuf>,

    #[command(flatten)]
    remote: RemoteConfig,

    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

fn parse_name(name: &str) -> Result<String, String> {
    let expected = "a name has letters, digits, `-`, `_`, `.` and `/`, at most 128";
    if is_name(name) { Ok(name.to_owned()) } else { Err(expected.to_owned()) }
}

/// The signature of a bundle.
fn note_path(bundle: &Path) -> PathBuf {
    let mut path = bundle.as_os_str().to_owned();
    path.push(".sig");
    path.into()
}

pub(super) fn make(args: &BundleArgs) -> anyhow::Result<Verdict> {
    let folder = args.folder.display();
    let (bundle, cases) = match Bundle::read(&args.folder) {
        Ok(read) => read,
        Err(BundleError::Policies(PolicyError(problems))) => {
            print_problems(&problems);
            anstream::eprintln!("no bundle was made: auth would refuse the policies in {folder}");
            return Ok(Verdict::Bad);
        }
        Err(error) => return Err(error).with_context(|| format!("cannot bundle {folder}")),
    };
    let packed = bundle.pack()?;
    let created = Timestamp::from_second(Timestamp::now().as_second())?;
    let lifetime =
        args.valid_days.map(|days| jiff::SignedDuration::from_hours(24 * i64::from(days)));
    let release = Release {
        name: args.name.clone(),
        sha256: Release::digest(&packed),
        revision: args.revision,
        created,
        not_after: lifetime.map(|lifetime| created.checked_add(lifetime)).transpose()?,
        allow_rollback: args.allow_rollback,
    };
    let mut note = Note::new(release.to_string())?;
    for path in &args.keys {
        note.sign(&key::read(path)?);
    }
    write(&args.out, &packed)?;
    write(&note_path(&args.out), note.to_string().as_bytes())?;
    if args.json {
        let mut report = report(&release, &note);
        report["bundle"] = json!(args.out);
        report["files"] = json!(bundle.len());
        report["cases"] = json!(cases);
        print_json(&report)?;
    } else {
        let (files, cases) = (pluralize(bundle.len(), "file"), pluralize(cases, "case"));
        let (out, signers) = (args.out.display(), signers(&note));
        let revision = release.revision;
        anstream::println!(
            "{out}: revision {revision}, {files}, {cases} passed, signed by {signers}"
        );
    }
    Ok(Verdict::Good)
}

pub(super) fn sign(args: &SignArgs) -> anyhow::Result<Verdict> {
    let Signed { mut note, release, .. } = Signed::read(&args.bundle)?;
    for path in &args.keys {
        note.sign(&key::read(path)?);
    }
    write(&note_path(&args.bundle), note.to_string().as_bytes())?;
    if args.json {
        print_json(&report(&release, &note))?;
    } else {
        let (bundle, revision) = (args.bundle.display(), release.revision);
        anstream::println!("{bundle}: revision {revision}, signed by {}", signers(&note));
    }
    Ok(Verdict::Good)
}

pub(super) async fn upload(args: &PushArgs) -> anyhow::Result<Verdict> {
    let Signed { packed, note, release } = Signed::read(&args.bundle)?;
    Bundle::unpack(&packed)?;
    let text = note.to_string();
    if let Some(path) = &args.policy_keys {
        let keys = TrustedKeys::parse(&ConfigText::read(path)?)?;
        keys.verify(text.as_bytes()).context("auth would refuse the bundle")?;
    }
    let pushed = push(&args.location, &args.remote, &packed, text.as_bytes()).await;
    pushed.with_context(|| format!("cannot push to {}", args.location))?;
    if args.json {
        let mut report = report(&release, &note);
        report["url"] = json!(args.location.to_string());
        print_json(&report)?;
    } else {
        anstream::println!("pushed revision {} to {}", release.revision, args.location);
    }
    Ok(Verdict::Good)
}

/// A bundle from disk, with its note.
struct Signed {
    packed: Vec<u8>,
    note: Note,
    release: Release,
}

impl Signed {
    fn read(bundle: &Path) -> anyhow::Result<Self> {
        let read = |path: &Path, bytes_max: usize| {
            let read = bounded::read_file(path, bytes_max as u64);
            read.with_context(|| format!("cannot read {}", path.display()))
        };
        let packed = read(bundle, BUNDLE_BYTES_MAX)?;
        let path = note_path(bundle);
        let parse = || {
            let note = Note::parse(&read(&path, NOTE_BYTES_MAX)?)?;
            let release = Release::parse(note.text())?;
            anyhow::Ok((note, release))
        };
        let (note, release) = parse().with_context(|| format!("in {}", path.display()))?;
        if Release::digest(&packed) != release.sha256 {
            bail!(
                "{} is about another bundle than {}; make both with `drawbridge policy bundle`",
                path.display(),
                bundle.display()
            );
        }
        Ok(Self { packed, note, release })
    }
}

fn signers(note: &Note) -> String {
    note.key_names().collect::<Vec<_>>().join(", ")
}

fn report(release: &Release, note: &Note) -> serde_json::Value {
    json!({
        "name": release.name,
        "revision": release.revision,
        "sha256": release.sha256_hex(),
        "created": release.created.to_string(),
        "not_after": release.not_after.map(|not_after| not_after.to_string()),
        "allow_rollback": release.allow_rollback,
        "signed_by": note.key_names().collect::<Vec<_>>(),
    })
}

fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}
