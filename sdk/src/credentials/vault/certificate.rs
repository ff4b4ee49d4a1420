//! Certificates from Vault's PKI engine.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use vaultrs::api::pki::requests::GenerateCertificateRequest;

use super::{As, Vault};
use crate::credentials::{
    error::CredentialsError,
    source::{Granted, GrantedCertificate, SessionToken},
};

impl Vault {
    pub(in crate::credentials) async fn certificate(
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
        let who = As { token: Some(token), request_id: Some(request_id) };
        let issued = self.client.call(who, issue).await?.data.ok_or(CredentialsError::Malformed)?;
        let ends =
            UNIX_EPOCH + Duration::from_secs(issued.expiration.ok_or(CredentialsError::Malformed)?);
        let duration =
            ends.duration_since(SystemTime::now()).map_err(|_| CredentialsError::Malformed)?;
        let chain = [vec![issued.certificate], issued.ca_chain.unwrap_or_default()].concat();
        let of = GrantedCertificate {
            chain: chain.join("\n"),
            private_key: issued.private_key.into(),
            authority: issued.issuing_ca,
        };
        // It is not renewed, but another is issued.
        Ok(Granted { of, duration, renewable: true })
    }
}
