//! Pseudonyms of principals, for spans and log lines.

use std::{
    cell::RefCell,
    fmt, io,
    path::Path,
    sync::{Arc, OnceLock},
};

use aws_lc_rs::hmac;

use crate::{length_prefixed, private_files};

/// The purpose of the key, so that no MAC of another purpose is a pseudonym.
const PURPOSE: &[u8] = b"drawbridge principal";
/// How many bytes of the MAC a pseudonym has: two principals do not share one by chance.
const PSEUDONYM_BYTES: usize = 16;
/// The least and the most bytes of a key.
const KEY_BYTES_MIN: usize = 32;
const KEY_BYTES_MAX: u64 = 4096;

/// Derives pseudonyms from a key. Without the key, no one can compute whose pseudonym one is, even
/// by trying all subjects.
#[derive(Clone)]
pub struct Pseudonyms(hmac::Key);

impl fmt::Debug for Pseudonyms {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Pseudonyms")
    }
}

impl Pseudonyms {
    /// Pseudonyms by this key.
    #[must_use]
    pub fn new(key: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    /// Reads the key from a file that only this user may read.
    ///
    /// # Errors
    /// When the file cannot be read, is readable by others, or has fewer than 32 bytes.
    pub fn read(file: &Path) -> io::Result<Self> {
        let key = private_files::read_secret(file, KEY_BYTES_MAX)?;
        let key = key.trim_ascii();
        if key.len() < KEY_BYTES_MIN {
            let why = format!("{} has less than {KEY_BYTES_MIN} bytes", file.display());
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        Ok(Self::new(key))
    }

    /// The pseudonym of a principal: 32 hexadecimal digits.
    #[must_use]
    pub fn of(&self, issuer: &str, subject: &str, tenant: &str) -> String {
        let mut mac = hmac::Context::with_key(&self.0);
        for part in [PURPOSE, issuer.as_bytes(), subject.as_bytes(), tenant.as_bytes()] {
            length_prefixed(part, |bytes| mac.update(bytes));
        }
        let mac = mac.sign();
        mac.as_ref()[..PSEUDONYM_BYTES].iter().fold(String::new(), |mut text, byte| {
            use fmt::Write as _;
            // Writing to a string does not fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
    }
}

/// How a service names principals in spans and log lines.
#[derive(Debug)]
pub(super) struct PrincipalNames {
    /// Absent: spans contain no pseudonym.
    configured: Option<Pseudonyms>,
    /// By the configured key, or by one of this process alone.
    logged: Pseudonyms,
    with_principals: bool,
}

thread_local! {
    /// The names of the service that the thread belongs to, in a process with several.
    static OF_THREAD: RefCell<Option<Arc<PrincipalNames>>> = const { RefCell::new(None) };
}

/// The names of the only service of the process.
static OF_PROCESS: OnceLock<Arc<PrincipalNames>> = OnceLock::new();

impl PrincipalNames {
    pub(super) fn new(configured: Option<Pseudonyms>, with_principals: bool) -> Self {
        let logged =
            configured.clone().unwrap_or_else(|| Pseudonyms::new(&rand::random::<[u8; 32]>()));
        Self { configured, logged, with_principals }
    }

    pub(super) fn install(self: &Arc<Self>) {
        // Telemetry is installed once.
        let _ = OF_PROCESS.set(Arc::clone(self));
    }

    pub(super) fn enter_thread(self: &Arc<Self>) {
        OF_THREAD.set(Some(Arc::clone(self)));
    }

    fn current() -> Option<Arc<Self>> {
        OF_THREAD.with_borrow(Option::clone).or_else(|| OF_PROCESS.get().cloned())
    }
}

/// The pseudonym of a principal for spans (`enduser.pseudo.id`). `None`: no key is configured.
#[must_use]
pub fn span_pseudonym(issuer: &str, subject: &str, tenant: &str) -> Option<String> {
    let names = PrincipalNames::current()?;
    Some(names.configured.as_ref()?.of(issuer, subject, tenant))
}

/// The pseudonym of a principal for log lines, and whether they name the principal too. Without a
/// configured key the pseudonyms of one process are comparable with one another only.
#[must_use]
pub fn log_pseudonym(issuer: &str, subject: &str, tenant: &str) -> (Option<String>, bool) {
    match PrincipalNames::current() {
        Some(names) => (Some(names.logged.of(issuer, subject, tenant)), names.with_principals),
        None => (None, false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pseudonym_depends_on_the_key_and_on_every_part_of_the_principal() {
        let names = Pseudonyms::new(&[1; 32]);
        let alice = names.of("https://a", "alice", "");
        assert_eq!(alice, names.of("https://a", "alice", ""));
        assert_eq!(alice.len(), 32);
        let others = [
            Pseudonyms::new(&[2; 32]).of("https://a", "alice", ""),
            names.of("https://b", "alice", ""),
            names.of("https://a", "alic", "e"),
            names.of("https://a", "alice", "tenant"),
            names.of("https://aa", "lice", ""),
        ];
        for other in others {
            assert_ne!(alice, other);
        }
    }

    #[test]
    fn a_short_key_and_a_key_that_others_can_read_are_refused() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key");
        let mode = |mode| std::fs::set_permissions(&file, PermissionsExt::from_mode(mode)).unwrap();
        std::fs::write(&file, "short").unwrap();
        mode(0o600);
        assert!(Pseudonyms::read(&file).unwrap_err().to_string().contains("32 bytes"));
        std::fs::write(&file, "0123456789abcdef0123456789abcdef\n").unwrap();
        let names = Pseudonyms::read(&file).unwrap();
        let same = Pseudonyms::new(b"0123456789abcdef0123456789abcdef");
        assert_eq!(names.of("i", "s", "t"), same.of("i", "s", "t"));
        mode(0o644);
        assert!(Pseudonyms::read(&file).is_err());
    }
}
