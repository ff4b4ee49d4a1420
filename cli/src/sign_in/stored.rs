//! Stored sign-ins, in files that only their user may read.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use drawbridge_runtime::private_files;
use jiff::Timestamp;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use url::Url;

use super::oauth::Tokens;

/// The largest file, in bytes.
const FILE_BYTES_MAX: u64 = 256 * 1024;

/// A sign-in at the authorization server of an endpoint.
#[derive(Debug)]
pub(super) struct StoredSignIn {
    pub(super) endpoint: Url,
    pub(super) issuer: String,
    pub(super) client_id: String,
    /// The mesh that was running at the endpoint.
    pub(super) mesh_pid: Option<u32>,
    pub(super) tokens: Tokens,
}

/// The content of a file.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Content {
    endpoint: Url,
    issuer: String,
    client_id: String,
    mesh_pid: Option<u32>,
    access_token: String,
    /// RFC 3339.
    expires_at: Option<String>,
    refresh_token: Option<String>,
}

/// The file of an endpoint, and of a user who signs in without a browser.
pub(super) fn file(folder: &Path, endpoint: &Url, user: Option<&str>) -> PathBuf {
    let name = Sha256::digest(format!("{endpoint}\n{}", user.unwrap_or_default()));
    folder.join(format!("sign-in-{}.json", URL_SAFE_NO_PAD.encode(&name[..12])))
}

/// Waits for other commands that use this file. The lock ends with the returned file.
pub(super) fn lock(file: &Path) -> anyhow::Result<fs::File> {
    let locked = || -> io::Result<fs::File> {
        if let Some(folder) = file.parent() {
            private_files::create_folder(folder)?;
            private_files::check_folder(folder)?;
        }
        let lock = private_files::create(&file.with_extension("lock"))?;
        lock.lock()?;
        Ok(lock)
    };
    locked().context("cannot lock the stored sign-in")
}

/// The stored sign-in. `None` without one, or with one of another version.
pub(super) fn read(file: &Path) -> anyhow::Result<Option<StoredSignIn>> {
    let bytes = match private_files::read_secret(file, FILE_BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).context("cannot read the stored sign-in"),
    };
    let Ok(content) = serde_json::from_slice::<Content>(&bytes) else { return Ok(None) };
    Ok(Some(StoredSignIn {
        endpoint: content.endpoint,
        issuer: content.issuer,
        client_id: content.client_id,
        mesh_pid: content.mesh_pid,
        tokens: Tokens {
            access_token: content.access_token.into(),
            expires_at: content.expires_at.and_then(|at| at.parse().ok()),
            refresh_token: content.refresh_token.map(SecretString::from),
        },
    }))
}

/// Stores a sign-in.
pub(super) fn write(file: &Path, stored: &StoredSignIn) -> anyhow::Result<()> {
    let expose = |secret: &SecretString| secret.expose_secret().to_owned();
    let content = Content {
        endpoint: stored.endpoint.clone(),
        issuer: stored.issuer.clone(),
        client_id: stored.client_id.clone(),
        mesh_pid: stored.mesh_pid,
        access_token: expose(&stored.tokens.access_token),
        expires_at: stored.tokens.expires_at.as_ref().map(Timestamp::to_string),
        refresh_token: stored.tokens.refresh_token.as_ref().map(expose),
    };
    let bytes = serde_json::to_vec_pretty(&content)?;
    private_files::replace(file, &bytes).context("cannot store the sign-in")?;
    Ok(())
}
