//! How a service logs in at Vault in its own name.

use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret as _, SecretString, zeroize::Zeroizing};
use tokio::{fs::File, io::AsyncReadExt as _};
use vaultrs::api::{
    AuthInfo,
    auth::{
        approle::requests::LoginWithApproleRequest,
        kubernetes::requests::LoginWithKubernetesRequest,
    },
    token::requests::CreateTokenRequest,
};

use super::{As, Client, VaultConfig};
use crate::credentials::error::{CredentialsError, Outage, SetupError};

/// Where Kubernetes puts the token of a pod's service account.
const SERVICE_ACCOUNT_TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";
/// The longest a token or an id may be.
const FILE_BYTES_MAX: u64 = 64 * 1024;
/// For how long a token lasts that is made from an agent's, before it is renewed. It ends with the agent's.
const CHILD_TTL: &str = "5m";

/// How a service logs in at Vault in its own name, for what it does for no caller: migrations, for example. What is secret
/// stands in files, and those are read anew at each login.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Vault")]
pub struct VaultLogin {
    /// How the service logs in in its own name, for what it does for no caller.
    #[arg(long, requires = "vault_url")]
    pub vault_login: Option<LoginMethod>,

    /// The file that it logs in with: the pod's service account token (kubernetes; it has a default), the secret id
    /// (approle), or the Vault token that an agent writes (token-file).
    #[arg(long, requires = "vault_login")]
    pub vault_login_file: Option<PathBuf>,

    /// The file with the role id, for approle.
    #[arg(long, requires = "vault_login")]
    pub vault_role_id_file: Option<PathBuf>,
}

/// A way to log in at Vault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LoginMethod {
    /// By the token of the pod's service account.
    Kubernetes,
    /// By a role id and a secret id.
    Approle,
    /// By the token that a Vault agent keeps in a file.
    TokenFile,
}

/// A login with all that it needs.
#[derive(Debug)]
pub(super) enum OwnLogin {
    Kubernetes { token: PathBuf },
    Approle { role_id: PathBuf, secret_id: PathBuf },
    TokenFile { token: PathBuf },
}

impl VaultLogin {
    pub(super) fn complete(self) -> Result<Option<OwnLogin>, SetupError> {
        let needs =
            |file: Option<PathBuf>, argument| file.ok_or(SetupError::LoginNeeds { argument });
        let file = self.vault_login_file;
        let login = match self.vault_login {
            None => return Ok(None),
            Some(LoginMethod::Kubernetes) => {
                OwnLogin::Kubernetes { token: file.unwrap_or_else(|| SERVICE_ACCOUNT_TOKEN.into()) }
            }
            Some(LoginMethod::Approle) => OwnLogin::Approle {
                role_id: needs(self.vault_role_id_file, "--vault-role-id-file")?,
                secret_id: needs(file, "--vault-login-file")?,
            },
            Some(LoginMethod::TokenFile) => {
                OwnLogin::TokenFile { token: needs(file, "--vault-login-file")? }
            }
        };
        Ok(Some(login))
    }
}

impl OwnLogin {
    /// Logs in. The token is this session's alone, so revoking it takes nothing from anybody else.
    pub(super) async fn log_in(
        &self,
        client: &Client,
        config: &VaultConfig,
        service: &str,
        request_id: &str,
    ) -> Result<AuthInfo, CredentialsError> {
        let anybody = As { token: None, request_id: Some(request_id) };
        let auth = match self {
            Self::Kubernetes { token } => {
                let token = read(token).await?;
                let login = || {
                    let mut login = LoginWithKubernetesRequest::builder();
                    login
                        .mount(&config.vault_kubernetes_mount)
                        .role(service)
                        .jwt(token.expose_secret());
                    login.build().map_err(|_| CredentialsError::Malformed)
                };
                client.call(anybody, login).await?.auth
            }
            Self::Approle { role_id, secret_id } => {
                let (role_id, secret_id) = (read(role_id).await?, read(secret_id).await?);
                let login = || {
                    let mut login = LoginWithApproleRequest::builder();
                    login.mount(&config.vault_approle_mount);
                    login.role_id(role_id.expose_secret()).secret_id(secret_id.expose_secret());
                    login.build().map_err(|_| CredentialsError::Malformed)
                };
                client.call(anybody, login).await?.auth
            }
            // The agent's token stays the agent's: it renews it, and others may use it.
            Self::TokenFile { token } => {
                let token = read(token).await?;
                let agent = As { token: Some(&token), request_id: Some(request_id) };
                let create = || {
                    let mut create = CreateTokenRequest::builder();
                    create.no_default_policy(true).renewable(true).ttl(CHILD_TTL);
                    create.build().map_err(|_| CredentialsError::Malformed)
                };
                client.call(agent, create).await?.auth
            }
        };
        auth.ok_or(CredentialsError::Malformed)
    }
}

/// What stands in a file, without the line end that editors and agents put there.
async fn read(path: &Path) -> Result<SecretString, CredentialsError> {
    let mut text = Zeroizing::new(String::new());
    let reading =
        async { File::open(path).await?.take(FILE_BYTES_MAX).read_to_string(&mut text).await };
    // An agent that starts beside the service may not have written it yet.
    reading.await.map_err(|error| {
        tracing::warn!(path = %path.display(), %error, "the service's own login cannot be read");
        CredentialsError::Unavailable(Outage::LoginFile)
    })?;
    match text.trim() {
        "" => Err(CredentialsError::Unavailable(Outage::LoginFile)),
        text => Ok(text.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_says_which_argument_it_lacks() {
        let login = |method| VaultLogin { vault_login: method, ..VaultLogin::default() };
        assert!(login(None).complete().unwrap().is_none());
        assert!(login(Some(LoginMethod::Kubernetes)).complete().unwrap().is_some());
        for (method, lacks) in [
            (LoginMethod::Approle, "--vault-role-id-file"),
            (LoginMethod::TokenFile, "--vault-login-file"),
        ] {
            let error = login(Some(method)).complete().unwrap_err();
            assert!(
                matches!(error, SetupError::LoginNeeds { argument } if argument == lacks),
                "{error}"
            );
        }
    }

    #[tokio::test]
    async fn a_file_is_read_without_its_line_end_and_one_that_is_empty_is_not_there_yet() {
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
