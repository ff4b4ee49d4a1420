//! Where each running `drawbridge up` is, for commands of the same user on the same machine.

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    path::{Path, PathBuf},
    str::FromStr,
};

use drawbridge_sdk::{MtlsConfig, MtlsError, Peers, own};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize, Serializer};
use url::Url;
use uuid::Uuid;

use crate::issuer_name::IssuerName;

pub use self::find::{Found, MeshArgs};

mod find;

/// The environment variable that names the folder of the state files.
pub const STATE_DIR: &str = "DRAWBRIDGE_STATE_DIR";
const PREFIX: &str = "mesh-";
const SUFFIX: &str = ".json";
/// The largest state file, in bytes.
const STATE_BYTES_MAX: u64 = 1024 * 1024;
const NAME_CHARS_MAX: usize = 64;

/// The name of a mesh among those of one user: part of file names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MeshName(String);

/// A text that cannot name a mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the name of a mesh has 1 to {NAME_CHARS_MAX} letters, digits, `-` and `_`, and begins with a letter or digit"
)]
pub struct MeshNameError;

impl FromStr for MeshName {
    type Err = MeshNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fits = |char: char| char.is_ascii_alphanumeric() || char == '-' || char == '_';
        let begins = text.starts_with(|first: char| first.is_ascii_alphanumeric());
        let is_name = begins && text.len() <= NAME_CHARS_MAX && text.chars().all(fits);
        if is_name { Ok(Self(text.to_owned())) } else { Err(MeshNameError) }
    }
}

impl TryFrom<String> for MeshName {
    type Error = MeshNameError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<MeshName> for String {
    fn from(name: MeshName) -> Self {
        name.0
    }
}

impl From<u16> for MeshName {
    /// The name of a mesh that has been given none: the port of its edge.
    fn from(port: u16) -> Self {
        Self(port.to_string())
    }
}

impl fmt::Display for MeshName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A mesh, as other commands need to know it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeshState {
    /// Its name among the meshes of this user.
    pub name: MeshName,
    /// The process that runs it.
    pub pid: u32,
    /// The issuer of tokens.
    pub issuer: IssuerName,
    /// Where auth serves gRPC.
    pub auth_url: Url,
    /// The audience of tokens that auth exchanges.
    pub internal_audience: String,
    /// Where tool services serve gRPC, by namespace.
    pub services: BTreeMap<String, Url>,
    /// The command line's own identity, made for this run of the mesh by its own authorization
    /// server.
    pub workload: Option<WorkloadCredentials>,
    /// What the command line shows to services, and whom it believes. Absent: the mesh speaks
    /// plaintext.
    pub mtls: Option<MtlsFiles>,
}

/// The files of a caller's certificate.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MtlsFiles {
    certificate: PathBuf,
    key: PathBuf,
    trust_bundle: PathBuf,
}

impl MtlsFiles {
    /// The files that a config names, if it names any.
    #[must_use]
    pub fn of(config: &MtlsConfig) -> Option<Self> {
        Some(Self {
            certificate: config.mtls_certificate_file.clone()?,
            key: config.mtls_key_file.clone()?,
            trust_bundle: config.mtls_trust_bundle_file.clone()?,
        })
    }

    fn config(&self) -> MtlsConfig {
        MtlsConfig {
            mtls_certificate_file: Some(self.certificate.clone()),
            mtls_key_file: Some(self.key.clone()),
            mtls_trust_bundle_file: Some(self.trust_bundle.clone()),
            allow_plaintext: false,
        }
    }
}

/// An OAuth client that calls in its own name.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkloadCredentials {
    /// Its id.
    pub client_id: String,
    /// Its secret.
    #[serde(serialize_with = "exposed")]
    pub client_secret: SecretString,
}

impl WorkloadCredentials {
    /// New credentials, whose secret nobody can guess.
    #[must_use]
    pub fn generate(client_id: &str) -> Self {
        let secret = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
        Self { client_id: client_id.to_owned(), client_secret: secret.into() }
    }
}

fn exposed<S: Serializer>(secret: &SecretString, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(secret.expose_secret())
}

impl MeshState {
    /// The issuer as it writes itself in `iss`.
    #[must_use]
    pub fn issuer_name(&self) -> &str {
        self.issuer.name()
    }

    /// The mesh's services, as the command line speaks to them.
    ///
    /// # Errors
    /// When its certificate cannot be used.
    pub fn peers(&self) -> Result<Peers, MtlsError> {
        Peers::open(&self.mtls.as_ref().map(MtlsFiles::config).unwrap_or_default())
    }

    /// The folder of the state files: `DRAWBRIDGE_STATE_DIR`, or the user's state folder (XDG).
    #[must_use]
    pub fn folder() -> PathBuf {
        let from = |name: &str| {
            std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
        };
        from(STATE_DIR)
            .or_else(|| from("XDG_STATE_HOME").map(|folder| folder.join("drawbridge")))
            .or_else(|| from("HOME").map(|home| home.join(".local/state/drawbridge")))
            .unwrap_or_else(|| std::env::temp_dir().join("drawbridge"))
    }

    /// Reads all state files: of meshes that run, and of those that ended without removing theirs.
    ///
    /// # Errors
    /// When the folder or a file is another user's or could be written by one, a file cannot be
    /// read, or it holds something else. Whoever writes it says to which servers this user's tokens
    /// go.
    pub fn all(folder: &Path) -> io::Result<Vec<KnownMesh>> {
        let mut meshes = Vec::new();
        for path in files(folder)? {
            match KnownMesh::read(&path) {
                // It was removed since.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                read => meshes.extend(read?),
            }
        }
        Ok(meshes)
    }

    /// Whether a mesh of this name runs.
    ///
    /// # Errors
    /// As [`Self::all`].
    pub fn runs(folder: &Path, name: &MeshName) -> io::Result<Option<u32>> {
        let running = Self::all(folder)?.into_iter().filter(|mesh| mesh.runs);
        Ok(running.map(|mesh| mesh.state).find(|state| state.name == *name).map(|state| state.pid))
    }

    /// Removes the state files of meshes that ended without removing theirs.
    ///
    /// # Errors
    /// When the folder is another user's or could be written by one, or a file cannot be removed.
    pub fn remove_stale(folder: &Path) -> io::Result<()> {
        for path in files(folder)? {
            let is_stale = own::open(&path).is_ok_and(|file| is_unlocked(&file));
            if is_stale {
                fs::remove_file(&path)?;
            }
        }
        Ok(())
    }

    /// Writes the state for this user alone to read. The file goes when the guard is dropped; while
    /// that exists, the mesh counts as one that runs.
    ///
    /// # Errors
    /// When the folder is another user's or could be written by one, or it or the file cannot be
    /// written.
    pub fn write(&self, folder: &Path) -> io::Result<StateFile> {
        own::create_folder(folder)?;
        own::check_folder(folder)?;
        let path = folder.join(format!("{PREFIX}{}{SUFFIX}", self.name));
        let bytes = serde_json::to_vec_pretty(self)?;
        // Before anybody finds it: who finds it unlocked takes it for stale.
        let file = own::replace_with(&path, &bytes, |file| Ok(file.try_lock()?))?;
        Ok(StateFile { path, _lock: file })
    }
}

/// A mesh whose state file exists.
#[derive(Debug)]
pub struct KnownMesh {
    /// What the file says.
    pub state: MeshState,
    /// Whether the process that wrote it runs.
    pub runs: bool,
}

impl KnownMesh {
    /// Nothing when the file is of a mesh that has ended and is not understood: it may be of
    /// another version.
    fn read(path: &Path) -> io::Result<Option<Self>> {
        let file = own::open(path)?;
        let runs = !is_unlocked(&file);
        match serde_json::from_slice(&own::read_from(file, path, STATE_BYTES_MAX)?) {
            Ok(state) => Ok(Some(Self { state, runs })),
            Err(_) if !runs => Ok(None),
            Err(error) => {
                let why =
                    format!("{} is not a state file of this version: {error}", path.display());
                Err(io::Error::new(io::ErrorKind::InvalidData, why))
            }
        }
    }
}

/// A process holds the lock of its state file until it ends, however it does.
fn is_unlocked(file: &fs::File) -> bool {
    file.try_lock_shared().is_ok()
}

fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let listed = own::check_folder(folder).and_then(|()| fs::read_dir(folder));
    let entries = match listed {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry?;
        let is_state = entry.file_name().to_str().is_some_and(|name| {
            name.strip_prefix(PREFIX).and_then(|rest| rest.strip_suffix(SUFFIX)).is_some()
        });
        if is_state {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}

/// The state file of a running mesh.
#[derive(Debug)]
pub struct StateFile {
    path: PathBuf,
    /// Held until it is dropped.
    _lock: fs::File,
}

impl Drop for StateFile {
    fn drop(&mut self) {
        // A file that somebody else has removed is gone just as well.
        let _ = fs::remove_file(&self.path);
    }
}
