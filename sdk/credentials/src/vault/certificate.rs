//! Certificates from Vault's PKI engine.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use secrecy::SecretString;
use serde::Deserialize;
use serde_json::json;

use super::{
    Vault,
    request::{RequestAuth, VaultRequest},
};
use crate::{
    error::CredentialsError,
    grant::{Granted, GrantedCertificate, SessionToken},
};

#[derive(Deserialize)]
struct IssuedCertificate {
    certificate: String,
    issuing_ca: String,
    ca_chain: Option<Vec<String>>,
    private_key: SecretString,
    /// In seconds since 1970.
    expiration: u64,
}

impl Vault {
    pub(crate) async fn certificate(
        &self,
        SessionToken(token): &SessionToken,
        role: &str,
        common_name: &str,
        request_id: &str,
    ) -> Result<Granted<GrantedCertificate>, CredentialsError> {
        let issue = VaultRequest::post(
            format!("{}/issue/{role}", self.config.vault_pki_mount),
            json!({
                "common_name": common_name,
                "format": "pem",
                "private_key_format": "pkcs8",
                "remove_roots_from_chain": true,
            }),
        );
        let auth = RequestAuth { token: Some(token), request_id: Some(request_id) };
        let issued: IssuedCertificate =
            self.client.call(auth, &issue).await?.data.ok_or(CredentialsError::Malformed)?;
        let expires_at = UNIX_EPOCH + Duration::from_secs(issued.expiration);
        let duration = expires_at
            .duration_since(SystemTime::now())
            .map_err(|_| CredentialsError::Malformed)?;
        let chain = [vec![issued.certificate], issued.ca_chain.unwrap_or_default()].concat();
        let value = GrantedCertificate {
            chain: chain.join("\n"),
            private_key: issued.private_key,
            authority: issued.issuing_ca,
        };
        // It is not renewed; another is issued instead.
        Ok(Granted { value, duration, renewable: true })
    }
}
