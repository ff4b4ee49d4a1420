//! Secrets from Azure Key Vault.

use std::{env, fmt::Write as _, sync::Arc};

use azure_core::{
    credentials::TokenCredential,
    error::{Error, ErrorKind},
    http::{ClientOptions, ExponentialRetryOptions, RetryOptions, Transport},
    time,
};
use azure_identity::{
    ManagedIdentityCredential, ManagedIdentityCredentialOptions, UserAssignedId,
    WorkloadIdentityCredential, WorkloadIdentityCredentialOptions,
};
use azure_security_keyvault_secrets::{SecretClient, SecretClientOptions};
use reqwest::redirect;
use url::Url;

use super::{
    circuit::SourceCircuit,
    error::{CredentialsError, Outage, SetupError},
    lease::Secret,
    timeouts::{CONNECT_TIMEOUT, TRY_TIMEOUT},
};

/// The variable in which Kubernetes' workload identity names the token file, as Azure's own
/// libraries read it.
const FEDERATED_TOKEN_FILE: &str = "AZURE_FEDERATED_TOKEN_FILE";
const RETRIES_MAX: u32 = 1;
const RETRY_DELAY: time::Duration = time::Duration::milliseconds(50);
/// The longest name that Key Vault accepts.
const NAME_BYTES_MAX: usize = 127;

/// Which Azure Key Vault.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Azure Key Vault")]
pub struct AzureConfig {
    /// Its URL, for example `https://drawbridge.vault.azure.net`.
    #[arg(long, required = false)]
    pub azure_key_vault_url: Url,

    /// The client id of the identity, if there are several. Absent: the workload's only identity.
    #[arg(long)]
    pub azure_client_id: Option<String>,
}

/// Secrets from an Azure Key Vault, for one tool service, by its own workload identity.
pub struct AzureKeyVault {
    service: String,
    client: SecretClient,
    circuit: SourceCircuit,
}

impl std::fmt::Debug for AzureKeyVault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AzureKeyVault").field("service", &self.service).finish_non_exhaustive()
    }
}

impl AzureKeyVault {
    /// Secrets for `service`, by Kubernetes' workload identity if there is one, else by the
    /// machine's managed identity. It sends no request yet.
    ///
    /// # Errors
    /// When there is no identity, no HTTP client can be created, or the URL is not https.
    pub fn new(service: &str, config: AzureConfig) -> Result<Self, SetupError> {
        let credential = identity(config.azure_client_id)?;
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(TRY_TIMEOUT)
            // The token is for this server only.
            .redirect(redirect::Policy::none())
            .build()?;
        Self::with(service, &config.azure_key_vault_url, credential, http)
    }

    /// With the given identity and HTTP client.
    ///
    /// # Errors
    /// When the URL is not https.
    pub fn with(
        service: &str,
        url: &Url,
        credential: Arc<dyn TokenCredential>,
        http: reqwest::Client,
    ) -> Result<Self, SetupError> {
        if url.scheme() != "https" {
            return Err(SetupError::NotHttps { url: url.clone() });
        }
        let retry = ExponentialRetryOptions {
            max_retries: RETRIES_MAX,
            initial_delay: RETRY_DELAY,
            ..ExponentialRetryOptions::default()
        };
        let client_options = ClientOptions {
            retry: RetryOptions::exponential(retry),
            transport: Some(Transport::new(Arc::new(http))),
            ..ClientOptions::default()
        };
        let options = SecretClientOptions { client_options, ..SecretClientOptions::default() };
        let client = SecretClient::new(url.as_str(), credential, Some(options))?;
        Ok(Self {
            service: service.to_owned(),
            client,
            circuit: SourceCircuit::new("Azure Key Vault"),
        })
    }

    pub(super) async fn secret(
        &self,
        tenant: &str,
        name: &str,
    ) -> Result<Secret, CredentialsError> {
        let name = encode_name(&[tenant, &self.service, name]);
        if name.len() > NAME_BYTES_MAX {
            return Err(CredentialsError::NoSuchSecret);
        }
        self.circuit
            .call(async {
                let response = self
                    .client
                    .get_secret(&name, None)
                    .await
                    .map_err(|error| classify_error(&error))?;
                let secret = response.into_model().map_err(|_| CredentialsError::Malformed)?;
                Ok(Secret::from_text(secret.value.ok_or(CredentialsError::Malformed)?))
            })
            .await
    }
}

fn identity(client_id: Option<String>) -> Result<Arc<dyn TokenCredential>, SetupError> {
    if env::var_os(FEDERATED_TOKEN_FILE).is_some() {
        let options = WorkloadIdentityCredentialOptions { client_id, ..Default::default() };
        return Ok(WorkloadIdentityCredential::new(Some(options))?);
    }
    let options = ManagedIdentityCredentialOptions {
        user_assigned_id: client_id.map(UserAssignedId::ClientId),
        ..Default::default()
    };
    Ok(ManagedIdentityCredential::new(Some(options))?)
}

/// Encodes a path in Key Vault's alphabet, which ignores case: small letters and digits are
/// unchanged, any other byte is `-` with two hexadecimal digits, and `--` separates the parts. No
/// two paths have the same name.
fn encode_name(parts: &[&str]) -> String {
    let mut name = String::new();
    for (index, part) in parts.iter().enumerate() {
        if index > 0 {
            name.push_str("--");
        }
        for byte in part.bytes() {
            if byte.is_ascii_lowercase() || byte.is_ascii_digit() {
                name.push(byte.into());
            } else {
                // INVARIANT: writing to a string does not fail.
                let _ = write!(name, "-{byte:02x}");
            }
        }
    }
    name
}

/// Classifies an error. Only its status and its code are retained.
fn classify_error(error: &Error) -> CredentialsError {
    match error.kind() {
        ErrorKind::HttpResponse { status, error_code, .. } => match u16::from(*status) {
            404 => CredentialsError::NoSuchSecret,
            429 => CredentialsError::Unavailable(Outage::Busy),
            500.. => CredentialsError::Unavailable(Outage::Failed),
            status => {
                CredentialsError::Refused { status, reason: error_code.clone().unwrap_or_default() }
            }
        },
        // No connection, or no identity.
        _ => {
            tracing::warn!(%error, "Azure Key Vault cannot be reached");
            CredentialsError::Unavailable(Outage::Unreachable)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_two_secrets_have_one_name_in_key_vaults_alphabet() {
        assert_eq!(encode_name(&["acme", "tickets", "helpdesk"]), "acme--tickets--helpdesk");
        assert_eq!(encode_name(&["Acme-1", "a.b", "c_d"]), "-41cme-2d1--a-2eb--c-5fd");
        let parts = ["a", "A", "a-", "-a", "a--b", "b", "-2d", "2d", "a-2d", "é", "a.b", "a_b"];
        let mut names = HashSet::new();
        for tenant in parts {
            for name in parts {
                let name = encode_name(&[tenant, "tickets", name]);
                assert!(
                    name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'),
                    "{name}"
                );
                assert!(names.insert(name.to_lowercase()), "{name} is the name of two");
            }
        }
    }
}
