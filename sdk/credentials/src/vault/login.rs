//! How a service logs in to Vault in its own name.

use std::path::{Path, PathBuf};

use drawbridge_runtime::bounded;
use secrecy::{ExposeSecret as _, SecretString, zeroize::Zeroizing};
use serde::de::IgnoredAny;
use serde_json::json;

use super::{
    VaultConfig,
    client::Client,
    request::{AuthInfo, RequestAuth, VaultRequest, VaultResponse},
};
use crate::error::{CredentialsError, Outage, SetupError};

/// Where Kubernetes puts the token of a pod's service account.
const SERVICE_ACCOUNT_TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";
/// The longest token or id, in bytes.
const FILE_BYTES_MAX: u64 = 64 * 1024;
/// How long a token that is created from an agent's token lasts before it is renewed. It ends with
/// the agent's.
const CHILD_TTL: &str = "5m";

/// How a service logs in to Vault in its own name, for work without a caller, such as migrations.
/// Secrets are in files, which are read again at each login.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Vault")]
pub struct VaultLogin {
    /// How the service logs in to Vault in its own name, for work without a caller.
    #[arg(long, requires = "vault_url")]
    pub vault_login: Option<LoginMethod>,

    /// The file that it logs in with: the pod's service account token (kubernetes; it has a
    /// default), the secret id (approle), or the Vault token that an agent writes (token-file).
    #[arg(long, requires = "vault_login")]
    pub vault_login_file: Option<PathBuf>,

    /// The file with the role id, for approle.
    #[arg(long, requires = "vault_login")]
    pub vault_role_id_file: Option<PathBuf>,
}

/// A method to log in to Vault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LoginMethod {
    /// By the token of the pod's service account.
    Kubernetes,
    /// By a role id and a secret id.
    Approle,
    /// By the token that a Vault agent keeps up to date in a file.
    TokenFile,
}

/// A login with all its files.
#[derive(Debug)]
pub(super) enum ServiceLogin {
    Kubernetes { token: PathBuf },
    Approle { role_id: PathBuf, secret_id: PathBuf },
    TokenFile { token: PathBuf },
}

impl VaultLogin {
    pub(super) fn complete(self) -> Result<Option<ServiceLogin>, SetupError> {
        let needs =
            |file: Option<PathBuf>, argument| file.ok_or(SetupError::LoginNeeds { argument });
        let file = self.vault_login_file;
        let login = match self.vault_login {
            None => return Ok(None),
            Some(LoginMethod::Kubernetes) => ServiceLogin::Kubernetes {
                token: file.unwrap_or_else(|| SERVICE_ACCOUNT_TOKEN.into()),
            },
            Some(LoginMethod::Approle) => ServiceLogin::Approle {
                role_id: needs(self.vault_role_id_file, "--vault-role-id-file")?,
                secret_id: needs(file, "--vault-login-file")?,
            },
            Some(LoginMethod::TokenFile) => {
                ServiceLogin::TokenFile { token: needs(file, "--vault-login-file")? }
            }
        };
        Ok(Some(login))
    }
}

impl ServiceLogin {
    /// Logs in. The token belongs to this session only, so revoking it does not affect others.
    pub(super) async fn log_in(
        &self,
        client: &Client,
        config: &VaultConfig,
        service: &str,
        request_id: &str,
    ) -> Result<AuthInfo, CredentialsError> {
        let anonymous = RequestAuth { token: None, request_id: Some(request_id) };
        let response: VaultResponse<IgnoredAny> = match self {
            Self::Kubernetes { token } => {
                let token = read(token).await?;
                let path = format!("auth/{}/login", config.vault_kubernetes_mount);
                let body = json!({ "role": service, "jwt": token.expose_secret() });
                client.call(anonymous, &VaultRequest::post(path, body)).await?
            }
            Self::Approle { role_id, secret_id } => {
                let (role_id, secret_id) = (read(role_id).await?, read(secret_id).await?);
                let path = format!("auth/{}/login", config.vault_approle_mount);
                let body = json!({
                    "role_id": role_id.expose_secret(),
                    "secret_id": secret_id.expose_secret(),
                });
                client.call(anonymous, &VaultRequest::post(path, body)).await?
            }
            // The agent's token is not used for the session: the agent renews it, and others may
            // use it.
            Self::TokenFile { token } => {
                let token = read(token).await?;
                let agent = RequestAuth { token: Some(&token), request_id: Some(request_id) };
                let body =
                    json!({ "no_default_policy": true, "renewable": true, "ttl": CHILD_TTL });
                client.call(agent, &VaultRequest::post("auth/token/create", body)).await?
            }
        };
        response.auth.ok_or(CredentialsError::Malformed)
    }
}

/// The content of a file, without the line end that editors and agents append.
async fn read(path: &Path) -> Result<SecretString, CredentialsError> {
    let unavailable = CredentialsError::Unavailable(Outage::LoginFile);
    let bytes = match bounded::read_file_async(path, FILE_BYTES_MAX).await {
        Ok(bytes) => Zeroizing::new(bytes),
        // An agent that starts with the service may not have written it yet.
        Err(error) => {
            let path = path.display();
            tracing::warn!(%path, %error, "the service's own login cannot be read");
            return Err(unavailable);
        }
    };
    match std::str::from_utf8(&bytes).map(str::trim) {
        Err(_) | Ok("") => Err(unavailable),
        Ok(text) => Ok(text.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_without_a_required_file_names_the_missing_argument() {
        let login = |method| VaultLogin { vault_login: method, ..VaultLogin::default() };
        assert!(login(None).complete().unwrap().is_none());
        assert!(login(Some(LoginMethod::Kubernetes)).complete().unwrap().is_some());
        for (method, missing) in [
            (LoginMethod::Approle, "--vault-role-id-file"),
            (LoginMethod::TokenFile, "--vault-login-file"),
        ] {
            let error = login(Some(method)).complete().unwrap_err();
            assert!(
                matches!(error, SetupError::LoginNeeds { argument } if argument == missing),
                "{error}"
            );
        }
    }

    #[tokio::test]
    async fn a_login_file_is_read_without_its_line_end_and_an_empty_one_is_retryable() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        for missing in [None, Some(""), Some("\n")] {
            if let Some(text) = missing {
                std::fs::write(&path, text).unwrap();
            }
            let error = read(&path).await.unwrap_err();
            assert!(error.is_retryable(), "{missing:?}: {error}");
        }
        std::fs::write(&path, "s.abc\n").unwrap();
        assert_eq!(read(&path).await.unwrap().expose_secret(), "s.abc");
    }
}
