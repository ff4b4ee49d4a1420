//! Any path of a Vault, for its administration.

use std::fmt;

use secrecy::SecretString;
use serde_json::Value;

use super::{
    VaultConfig,
    client::Client,
    request::{RequestAuth, VaultRequest},
};
use crate::error::{CredentialsError, SetupError};

/// A Vault, with a token that may administer it. Requests have the deadlines and retries of a tool
/// service, and no error contains a secret.
pub struct VaultApi {
    client: Client,
    token: SecretString,
}

impl fmt::Debug for VaultApi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VaultApi").finish_non_exhaustive()
    }
}

impl VaultApi {
    /// The Vault of `config`. It sends no request yet.
    ///
    /// # Errors
    /// When a certificate or a key cannot be read.
    pub fn new(config: &VaultConfig, token: SecretString) -> Result<Self, SetupError> {
        Ok(Self { client: Client::new(config)?, token })
    }

    /// The data at a path. Absent: nothing is there.
    ///
    /// # Errors
    /// When Vault refuses the token, or is unavailable.
    pub async fn read(&self, path: &str) -> Result<Option<Value>, CredentialsError> {
        match self.client.call(self.request_auth(), &VaultRequest::get(path)).await {
            Ok(response) => Ok(response.data),
            // Some paths answer 400 for what does not exist.
            Err(CredentialsError::NoSuchSecret | CredentialsError::Refused { status: 400, .. }) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Writes to a path.
    ///
    /// # Errors
    /// When Vault rejects the body or the token, or is unavailable.
    pub async fn write(&self, path: &str, body: &Value) -> Result<(), CredentialsError> {
        let request = VaultRequest::post(path, body.clone());
        self.client.send(self.request_auth(), &request).await.map(drop)
    }

    fn request_auth(&self) -> RequestAuth<'_> {
        RequestAuth { token: Some(&self.token), request_id: None }
    }
}
