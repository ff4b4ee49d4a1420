//! Where a running `drawbridge up` is, for commands of the same user on the same machine.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use drawbridge_sdk::{MtlsConfig, MtlsError, Peers};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize, Serializer};
use url::Url;
use uuid::Uuid;

use crate::issuer_name::IssuerName;

pub(crate) mod own;

/// The environment variable that names the folder of the state file.
pub const STATE_DIR: &str = "DRAWBRIDGE_STATE_DIR";
const FILE: &str = "mesh.json";

/// A running mesh, as other commands need to know it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeshState {
    /// The issuer of tokens.
    pub issuer: IssuerName,
    /// Where auth serves gRPC.
    pub auth_url: Url,
    /// The audience of tokens that auth exchanges.
    pub internal_audience: String,
    /// Where tool services serve gRPC, by namespace.
    pub services: BTreeMap<String, Url>,
    /// The command line's own identity, made for this run of the mesh by its own authorization server.
    pub workload: Option<WorkloadCredentials>,
    /// What the command line shows to services, and whom it believes. Absent: the mesh speaks plaintext.
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

    /// The folder of the state file: `DRAWBRIDGE_STATE_DIR`, or the user's state folder (XDG).
    #[must_use]
    pub fn folder() -> PathBuf {
        let from = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        from(STATE_DIR)
            .or_else(|| from("XDG_STATE_HOME").map(|folder| folder.join("drawbridge")))
            .or_else(|| from("HOME").map(|home| home.join(".local/state/drawbridge")))
            .unwrap_or_else(|| std::env::temp_dir().join("drawbridge"))
    }

    /// The state of the mesh that runs on this machine, if one does.
    ///
    /// # Errors
    /// When its file cannot be read, or holds something else.
    pub fn found() -> anyhow::Result<Option<Self>> {
        Self::read(&Self::folder()).context("cannot read the state of the running mesh")
    }

    /// Reads the state of the mesh that runs, if one does.
    ///
    /// # Errors
    /// When the folder or the file is another user's or could be written by one, the file cannot be read, or it holds
    /// something else. Whoever writes it says to which servers this user's tokens go.
    pub fn read(folder: &Path) -> io::Result<Option<Self>> {
        let reading = || {
            own::check_folder(folder)?;
            own::read(&folder.join(FILE))
        };
        match reading() {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(io::Error::from),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes the state for this user alone to read. The file goes when the guard is dropped.
    ///
    /// # Errors
    /// When the folder is another user's or could be written by one, or it or the file cannot be written.
    pub fn write(&self, folder: &Path) -> io::Result<StateFile> {
        own::create_folder(folder)?;
        own::check_folder(folder)?;
        let path = folder.join(FILE);
        let new = folder.join(format!("{FILE}.{}", std::process::id()));
        let file = own::create(&new)?;
        serde_json::to_writer_pretty(file, self)?;
        fs::rename(&new, &path)?;
        Ok(StateFile { path })
    }
}

/// The state file of a running mesh.
#[derive(Debug)]
pub struct StateFile {
    path: PathBuf,
}

impl Drop for StateFile {
    fn drop(&mut self) {
        // A file that somebody else has removed is gone just as well.
        let _ = fs::remove_file(&self.path);
    }
}
