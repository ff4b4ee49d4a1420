//! Credentials from Vault, on behalf of the caller or of the service itself.

use std::{fmt, path::PathBuf, time::Duration};

use drawbridge_runtime::parse_defaults;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::{Map, Value, json};
use url::Url;

use super::{
    error::{CredentialsError, SetupError},
    grant::{Granted, GrantedUser, SessionToken},
    lease::Secret,
    on_behalf_of::OnBehalfOf,
};

mod api;
mod certificate;
mod client;
mod login;
mod request;

pub use api::VaultApi;
use client::Client;
use login::ServiceLogin;
pub use login::{LoginMethod, VaultLogin};
use request::{AuthInfo, RequestAuth, VaultRequest, VaultResponse};

/// Which Vault, and its mounts. The defaults are what `drawbridge vault bootstrap` sets up.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Vault")]
pub struct VaultConfig {
    /// The URL of Vault's API, for example `https://vault.internal:8200`.
    // Required with Vault; whether Vault is used is up to the struct that flattens this one.
    #[arg(long, required = false)]
    pub vault_url: Url,

    /// The namespace, if Vault has namespaces.
    #[arg(long)]
    pub vault_namespace: Option<String>,

    /// A PEM file of the only authorities that are trusted for Vault's certificate.
    #[arg(long)]
    pub vault_ca_file: Option<PathBuf>,

    /// A PEM file with a client certificate and its key.
    #[arg(long)]
    pub vault_client_certificate_file: Option<PathBuf>,

    /// The mount of the JWT auth method that trusts transaction tokens.
    #[arg(long, default_value = "drawbridge")]
    pub vault_auth_mount: String,

    /// The mount of the database engine.
    #[arg(long, default_value = "database")]
    pub vault_database_mount: String,

    /// The mount of the key-value store, version 2.
    #[arg(long, default_value = "secret")]
    pub vault_kv_mount: String,

    /// The mount of the PKI engine.
    #[arg(long, default_value = "pki")]
    pub vault_pki_mount: String,

    /// The mount of the Kubernetes auth method, for logins of the services themselves.
    #[arg(long, default_value = "kubernetes")]
    pub vault_kubernetes_mount: String,

    /// The mount of the AppRole auth method, for logins of the services themselves.
    #[arg(long, default_value = "approle")]
    pub vault_approle_mount: String,
}

impl VaultConfig {
    /// The Vault at this URL, as `drawbridge vault bootstrap` sets it up.
    #[must_use]
    pub fn new(url: Url) -> Self {
        Self { vault_url: url, ..parse_defaults(&["--vault-url=http://vault"]) }
    }
}

/// Credentials from a Vault, for one tool service.
pub struct Vault {
    client: Client,
    config: VaultConfig,
    /// The name of the service, which is also its role and its folder among a tenant's secrets.
    service: String,
    service_login: Option<ServiceLogin>,
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vault")
            .field("config", &self.config)
            .field("service", &self.service)
            .finish()
    }
}

impl Vault {
    /// Credentials for `service` from the Vault of `config`. It sends no request yet.
    ///
    /// # Errors
    /// When a certificate or a key cannot be read.
    pub fn new(service: &str, config: VaultConfig) -> Result<Self, SetupError> {
        let client = Client::new(&config)?;
        Ok(Self { client, config, service: service.to_owned(), service_login: None })
    }

    /// Adds a login of the service itself.
    ///
    /// # Errors
    /// When a file that the login needs is not configured.
    pub fn with_login(self, login: VaultLogin) -> Result<Self, SetupError> {
        Ok(Self { service_login: login.complete()?, ..self })
    }

    pub(super) async fn login(
        &self,
        on_behalf_of: OnBehalfOf<'_>,
        request_id: &str,
    ) -> Result<Granted<SessionToken>, CredentialsError> {
        let auth = match on_behalf_of {
            OnBehalfOf::Caller(caller) => self.log_in(&caller.token, request_id).await?,
            OnBehalfOf::Service => {
                let own = self.service_login.as_ref().ok_or(CredentialsError::NoServiceLogin)?;
                own.log_in(&self.client, &self.config, &self.service, request_id).await?
            }
        };
        Ok(Granted {
            value: SessionToken(auth.client_token),
            duration: Duration::from_secs(auth.lease_duration),
            renewable: auth.renewable,
        })
    }

    async fn log_in(
        &self,
        transaction_token: &SecretString,
        request_id: &str,
    ) -> Result<AuthInfo, CredentialsError> {
        let path = format!("auth/{}/login", self.config.vault_auth_mount);
        let body = json!({ "role": self.service, "jwt": transaction_token.expose_secret() });
        let auth = RequestAuth { token: None, request_id: Some(request_id) };
        let response: VaultResponse<IgnoredAny> =
            self.client.call(auth, &VaultRequest::post(path, body)).await?;
        response.auth.ok_or(CredentialsError::Malformed)
    }

    pub(super) async fn database(
        &self,
        SessionToken(token): &SessionToken,
        role: &str,
        request_id: &str,
    ) -> Result<Granted<GrantedUser>, CredentialsError> {
        let path = format!("{}/creds/{role}", self.config.vault_database_mount);
        let auth = RequestAuth { token: Some(token), request_id: Some(request_id) };
        let response: VaultResponse<DatabaseUser> =
            self.client.call(auth, &VaultRequest::get(path)).await?;
        let user = response.data.ok_or(CredentialsError::Malformed)?;
        Ok(Granted {
            value: GrantedUser {
                id: response.lease_id,
                username: user.username,
                password: user.password,
            },
            duration: Duration::from_secs(response.lease_duration),
            renewable: response.renewable,
        })
    }

    pub(super) async fn secret(
        &self,
        SessionToken(token): &SessionToken,
        tenant: &str,
        name: &str,
        request_id: &str,
    ) -> Result<Secret, CredentialsError> {
        let path = format!("{}/data/{tenant}/{}/{name}", self.config.vault_kv_mount, self.service);
        let auth = RequestAuth { token: Some(token), request_id: Some(request_id) };
        let response: VaultResponse<KeyValues> =
            self.client.call(auth, &VaultRequest::get(path)).await?;
        let KeyValues { data } = response.data.ok_or(CredentialsError::Malformed)?;
        Ok(Secret::from_json(data))
    }

    /// Renews the session itself.
    pub(super) async fn renew_session(
        &self,
        session: &SessionToken,
    ) -> Result<Duration, CredentialsError> {
        let renew = VaultRequest::post("auth/token/renew-self", json!({}));
        let renewed: VaultResponse<IgnoredAny> =
            self.client.call(in_session(session), &renew).await?;
        let auth = renewed.auth.ok_or(CredentialsError::Malformed)?;
        Ok(Duration::from_secs(auth.lease_duration))
    }

    pub(super) async fn renew_lease(
        &self,
        session: &SessionToken,
        id: &str,
    ) -> Result<Duration, CredentialsError> {
        let renew = VaultRequest::post("sys/leases/renew", json!({ "lease_id": id }));
        let renewed: VaultResponse<IgnoredAny> =
            self.client.call(in_session(session), &renew).await?;
        Ok(Duration::from_secs(renewed.lease_duration))
    }

    /// Whether Vault still knows a session.
    pub(super) async fn check_health(&self) -> Result<(), String> {
        self.client.check_health().await
    }

    pub(super) async fn is_known(&self, session: &SessionToken) -> Result<bool, CredentialsError> {
        let lookup = VaultRequest::get("auth/token/lookup-self");
        match self.client.send(in_session(session), &lookup).await {
            Ok(_) => Ok(true),
            Err(CredentialsError::Refused { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Revokes a session and every lease that was taken in it.
    pub(super) async fn revoke(&self, session: &SessionToken) -> Result<(), CredentialsError> {
        let revoke = VaultRequest::post("auth/token/revoke-self", json!({}));
        match self.client.send(in_session(session), &revoke).await {
            // Vault no longer knows it.
            Ok(_) | Err(CredentialsError::Refused { status: 403, .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// What a session does on its own: no request causes it.
fn in_session(SessionToken(token): &SessionToken) -> RequestAuth<'_> {
    RequestAuth { token: Some(token), request_id: None }
}

/// A user that the database engine has created.
#[derive(Deserialize)]
struct DatabaseUser {
    username: String,
    password: SecretString,
}

/// A secret of the key-value store, version 2.
#[derive(Deserialize)]
struct KeyValues {
    data: Map<String, Value>,
}
