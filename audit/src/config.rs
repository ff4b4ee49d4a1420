//! Options of the audit log, the same for every service that writes one.

use std::path::PathBuf;

use crate::sink_config::SinkConfig;

/// Options of the audit log.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Audit")]
pub struct AuditConfig {
    /// Write an audit log: to standard output (`-`), or to files in a folder of its own below this
    /// one. Only the user of the process can read the files.
    #[arg(long, value_name = "FOLDER|-")]
    pub audit_log: Option<PathBuf>,

    /// What happens while the audit log cannot be written: `best` goes on and records the gap,
    /// `required` refuses what it cannot record, and answers only once the record is on the disk.
    #[arg(long, value_enum, default_value_t, requires = "audit_log")]
    pub audit_mode: AuditMode,

    /// How many days to retain files of the audit log. Checkpoints of deleted files remain.
    #[arg(long, value_name = "DAYS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..))]
    pub audit_days: u32,

    /// The size at which a file of the audit log is followed by the next one, in bytes. A new day
    /// (UTC) begins a new file too.
    #[arg(
        long,
        value_name = "BYTES",
        default_value_t = 64 << 20,
        value_parser = clap::value_parser!(u64).range(64 << 10..=4 << 30)
    )]
    pub audit_file_bytes_max: u64,

    /// Record arguments too, without sensitive ones.
    #[arg(long, requires = "audit_log")]
    pub audit_arguments: bool,

    /// A file with the key of argument digests, the same in the whole mesh: at least 32 bytes, such
    /// as `openssl rand -base64 32` prints. Default: a random key beside the log.
    #[arg(long, value_name = "FILE", requires = "audit_log")]
    pub audit_key_file: Option<PathBuf>,

    /// A file with the private key that signs checkpoints, as `drawbridge audit key --out` writes
    /// it. Default: a new key beside the log.
    #[arg(long, value_name = "FILE", requires = "audit_log")]
    pub audit_signing_key_file: Option<PathBuf>,

    /// The name of the mesh in checkpoints.
    #[arg(long, value_name = "NAME", default_value = "mesh", value_parser = parse_name)]
    pub audit_mesh: String,

    /// The name of this replica in the log. Default: the host's name.
    #[arg(long, value_name = "NAME", value_parser = parse_name)]
    pub audit_replica: Option<String>,

    /// Where else records are sent to.
    #[command(flatten)]
    pub sinks: SinkConfig,
}

/// What happens while the audit log cannot be written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum AuditMode {
    /// The service goes on; the gap is counted and recorded.
    #[default]
    Best,
    /// What cannot be recorded is refused.
    Required,
}

impl Default for AuditConfig {
    fn default() -> Self {
        drawbridge_runtime::parse_defaults(&[])
    }
}

/// A name in a log's id: letters, digits, `.`, `_` and `-`.
fn parse_name(name: &str) -> Result<String, String> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if !name.is_empty() && name.len() <= 128 && name.bytes().all(is_allowed) {
        return Ok(name.to_owned());
    }
    Err("a name has 1 to 128 of the characters A-Z a-z 0-9 . _ -".to_owned())
}

/// The name of this host, with only the characters of [`parse_name`].
pub(crate) fn host_name() -> String {
    #[cfg(unix)]
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    #[cfg(not(unix))]
    let name = std::env::var("COMPUTERNAME").unwrap_or_default();
    let name = name.replace(|c: char| !(c.is_ascii_alphanumeric() || "._-".contains(c)), "-");
    if name.is_empty() { "replica".to_owned() } else { name }
}
