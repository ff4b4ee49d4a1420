//! State files of running `drawbridge up` processes, for commands of the same user on the same
//! machine.

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    path::{Path, PathBuf},
    str::FromStr,
};

use drawbridge_runtime::private_files;
use drawbridge_transport::{MtlsConfig, MtlsError, Peers};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize, Serializer};
use url::Url;
use uuid::Uuid;

use crate::issuer_name::IssuerName;

pub use self::find::{MeshArgs, MeshLookup};

mod find;

/// The environment variable that names the folder of the state files.
pub const STATE_DIR: &str = "DRAWBRIDGE_STATE_DIR";
const PREFIX: &str = "mesh-";
const SUFFIX: &str = ".json";
/// The largest state file, in bytes.
const STATE_BYTES_MAX: u64 = 1024 * 1024;
const NAME_CHARS_MAX: usize = 64;

/// The name of a mesh, unique per user. It is part of file names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MeshName(String);

/// The text is not a valid mesh name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a mesh name has 1 to {NAME_CHARS_MAX} letters, digits, `-` and `_`, and starts with a letter \
     or digit"
)]
pub struct MeshNameError;

impl FromStr for MeshName {
    type Err = MeshNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fits = |char: char| char.is_ascii_alphanumeric() || char == '-' || char == '_';
        let starts_well = text.starts_with(|first: char| first.is_ascii_alphanumeric());
        let is_name = starts_well && text.len() <= NAME_CHARS_MAX && text.chars().all(fits);
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
    /// The default name of a mesh: the port of its edge.
    fn from(port: u16) -> Self {
        Self(port.to_string())
    }
}

impl fmt::Display for MeshName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The state of a mesh that other commands read.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeshState {
    /// Its name among the meshes of this user.
    pub name: MeshName,
    /// Its process id.
    pub pid: u32,
    /// The URL of the MCP endpoint of all services.
    pub mcp_url: Url,
    /// The issuer of tokens.
    pub issuer: IssuerName,
    /// The gRPC URL of auth.
    pub auth_url: Url,
    /// The audience of tokens that auth exchanges.
    pub internal_audience: String,
    /// The gRPC URLs of tool services, by namespace.
    pub services: BTreeMap<String, Url>,
    /// The command line's credentials at the mesh's authorization server, generated for this run.
    pub workload: Option<WorkloadCredentials>,
    /// The command line's certificate and trust bundle. Absent: the mesh uses plaintext.
    pub mtls: Option<MtlsFiles>,
    /// The URLs of the admin ports, by service.
    pub admin: BTreeMap<String, Url>,
    /// What the mesh was started with, for diagnosis.
    pub setup: MeshSetup,
    /// The Unix-domain socket that serves the recent calls. Absent: none are recorded.
    pub calls_socket: Option<PathBuf>,
}

/// The files and servers that a mesh was started with.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MeshSetup {
    /// The folder of policies.
    pub policies: Option<PathBuf>,
    /// The edge's config file.
    pub edge_config: Option<PathBuf>,
    /// The file of further issuers.
    pub issuers: Option<PathBuf>,
    /// The file of users.
    pub users: Option<PathBuf>,
    /// The URL of Redis, which may contain a password.
    #[serde(serialize_with = "exposed_optional")]
    pub redis_url: Option<SecretString>,
    /// The URL of Vault.
    pub vault_url: Option<Url>,
    /// The URL of the database of invoices, without a user.
    #[serde(serialize_with = "exposed_optional")]
    pub database_url: Option<SecretString>,
}

/// The files of a client certificate.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MtlsFiles {
    /// The certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The trusted authorities.
    pub trust_bundle: PathBuf,
}

impl MtlsFiles {
    /// The files that a config names, if any.
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

/// An OAuth client that calls on its own behalf.
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
    /// Generates credentials with a random secret.
    #[must_use]
    pub fn generate(client_id: &str) -> Self {
        let secret = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
        Self { client_id: client_id.to_owned(), client_secret: secret.into() }
    }
}

fn exposed<S: Serializer>(secret: &SecretString, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(secret.expose_secret())
}

fn exposed_optional<S: Serializer>(
    secret: &Option<SecretString>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match secret {
        Some(secret) => serializer.serialize_some(secret.expose_secret()),
        None => serializer.serialize_none(),
    }
}

impl MeshState {
    /// The issuer, spelled as in `iss`.
    #[must_use]
    pub fn issuer_name(&self) -> &str {
        self.issuer.name()
    }

    /// The transport to the mesh's services, with the command line's certificate.
    ///
    /// # Errors
    /// When its certificate cannot be used.
    pub fn peers(&self) -> Result<Peers, MtlsError> {
        Peers::open(&self.mtls.as_ref().map(MtlsFiles::config).unwrap_or_default())
    }

    /// The folder of the state files: `DRAWBRIDGE_STATE_DIR`, or the user's state folder (XDG).
    #[must_use]
    pub fn folder() -> PathBuf {
        let variable = |name: &str| {
            std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
        };
        variable(STATE_DIR)
            .or_else(|| variable("XDG_STATE_HOME").map(|folder| folder.join("drawbridge")))
            .or_else(|| variable("HOME").map(|home| home.join(".local/state/drawbridge")))
            .unwrap_or_else(|| std::env::temp_dir().join("drawbridge"))
    }

    /// Reads all state files: of running meshes, and stale ones of meshes that were killed.
    ///
    /// # Errors
    /// When the folder or a file belongs to or is writable by another user, a file cannot be read,
    /// or it is not a state file. The files name the servers that receive this user's tokens.
    pub fn all(folder: &Path) -> io::Result<Vec<KnownMesh>> {
        let mut meshes = Vec::new();
        for path in files(folder)? {
            match KnownMesh::read(&path) {
                // Removed after it was listed.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                read => meshes.extend(read?),
            }
        }
        Ok(meshes)
    }

    /// The process id of the running mesh of this name, if any.
    ///
    /// # Errors
    /// As [`Self::all`].
    pub fn running_pid(folder: &Path, name: &MeshName) -> io::Result<Option<u32>> {
        let running = Self::all(folder)?.into_iter().filter(|mesh| mesh.is_running);
        Ok(running.map(|mesh| mesh.state).find(|state| state.name == *name).map(|state| state.pid))
    }

    /// Removes stale state files of meshes that were killed.
    ///
    /// # Errors
    /// When the folder belongs to or is writable by another user, or a file cannot be removed.
    pub fn remove_stale(folder: &Path) -> io::Result<()> {
        for path in files(folder)? {
            let is_stale = private_files::open(&path).is_ok_and(|file| is_unlocked(&file));
            if is_stale {
                fs::remove_file(&path)?;
            }
        }
        Ok(())
    }

    /// Writes the state file, readable by this user only. The mesh counts as running until the
    /// returned guard is dropped, which removes the file.
    ///
    /// # Errors
    /// When the folder belongs to or is writable by another user, or it or the file cannot be
    /// written.
    pub fn write(&self, folder: &Path) -> io::Result<StateFile> {
        private_files::create_folder(folder)?;
        private_files::check_folder(folder)?;
        let path = folder.join(format!("{PREFIX}{}{SUFFIX}", self.name));
        let bytes = serde_json::to_vec_pretty(self)?;
        // Locked before the file gets its name: an unlocked file counts as stale.
        let file = private_files::replace_with(&path, &bytes, |file| Ok(file.try_lock()?))?;
        Ok(StateFile { path, _lock: file })
    }
}

/// A mesh whose state file exists.
#[derive(Debug)]
pub struct KnownMesh {
    /// The content of the file.
    pub state: MeshState,
    /// Whether the process that wrote it is running.
    pub is_running: bool,
}

impl KnownMesh {
    /// None if the file is stale and cannot be parsed: another version may have written it.
    fn read(path: &Path) -> io::Result<Option<Self>> {
        let file = private_files::open(path)?;
        let is_running = !is_unlocked(&file);
        match serde_json::from_slice(&private_files::read_from(file, path, STATE_BYTES_MAX)?) {
            Ok(state) => Ok(Some(Self { state, is_running })),
            Err(_) if !is_running => Ok(None),
            Err(error) => {
                let message =
                    format!("{} is not a state file of this version: {error}", path.display());
                Err(io::Error::new(io::ErrorKind::InvalidData, message))
            }
        }
    }
}

/// A process holds the lock of its state file until it ends, however it ends.
fn is_unlocked(file: &fs::File) -> bool {
    file.try_lock_shared().is_ok()
}

fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let listed = private_files::check_folder(folder).and_then(|()| fs::read_dir(folder));
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
    /// Locked until dropped.
    _lock: fs::File,
}

impl Drop for StateFile {
    fn drop(&mut self) {
        // It may have been removed already.
        let _ = fs::remove_file(&self.path);
    }
}
