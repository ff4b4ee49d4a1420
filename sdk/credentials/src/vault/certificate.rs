//! Certificates from Vault's PKI engine.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use vaultrs::api::pki::requests::GenerateCertificateRequest;

use super::{RequestAuth, Vault};
use crate::{
    error::CredentialsError,
    grant::{Granted, GrantedCertificate, SessionToken},
};

impl Vault {
    pub(crate) async fn certificate(
        &self,
        SessionToken(token): &SessionToken,
        role: &str,
        common_name: &str,
        request_id: &str,
    ) -> Result<Granted<GrantedCertificate>, CredentialsError> {
        let issue = || {
            let mut issue = GenerateCertificateRequest::builder();
            issue.mount(&self.config.vault_pki_mount).role(role).common_name(common_name);
            issue.format("pem").private_key_format("pkcs8").remove_roots_from_chain(true);
            issue.build().map_err(|_| CredentialsError::Malformed)
        };
        let request_auth = RequestAuth { token: Some(token), request_id: Some(request_id) };
        let issued =
            self.client.call(request_auth, issue).await?.data.ok_or(CredentialsError::Malformed)?;
        let expires_at =
            UNIX_EPOCH + Duration::from_secs(issued.expiration.ok_or(CredentialsError::Malformed)?);
        let duration = expires_at
            .duration_since(SystemTime::now())
            .map_err(|_| CredentialsError::Malformed)?;
        let chain = [vec![issued.certificate], issued.ca_chain.unwrap_or_default()].concat();
        let value = GrantedCertificate {
            chain: chain.join("\n"),
            private_key: issued.private_key.into(),
            authority: issued.issuing_ca,
        };
        // It is not renewed; another is issued instead.
        Ok(Granted { value, duration, renewable: true })
    }
}
