//! Credentials from Vault, on behalf of the caller or of the service itself.

use std::{fmt, path::PathBuf, time::Duration};

use drawbridge_runtime::parse_defaults;
use rustify::enums::RequestMethod;
use secrecy::{ExposeSecret as _, SecretString, zeroize::Zeroizing};
use serde_json::{Value, json};
use url::Url;
use vaultrs::api::{
    AuthInfo, auth::oidc::requests::JWTLoginRequest,
    database::requests::GenerateCredentialsRequest, kv2::requests::ReadSecretRequest,
};

use super::{
    error::{CredentialsError, SetupError},
    grant::{Granted, GrantedUser, SessionToken},
    lease::Secret,
    on_behalf_of::OnBehalfOf,
};

mod api;
mod certificate;
mod client;
mod endpoint;
mod http;
mod login;

pub use api::VaultApi;
use client::{Client, RequestAuth};
use endpoint::RawEndpoint;
use login::ServiceLogin;
pub use login::{LoginMethod, VaultLogin};

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
            value: SessionToken(auth.client_token.into()),
            duration: Duration::from_secs(auth.lease_duration),
            renewable: auth.renewable,
        })
    }

    async fn log_in(
        &self,
        transaction_token: &SecretString,
        request_id: &str,
    ) -> Result<AuthInfo, CredentialsError> {
        let login = || {
            let mut login = JWTLoginRequest::builder();
            login.mount(&self.config.vault_auth_mount).role(&self.service);
            login
                .jwt(transaction_token.expose_secret())
                .build()
                .map_err(|_| CredentialsError::Malformed)
        };
        let request_auth = RequestAuth { token: None, request_id: Some(request_id) };
        self.client.call(request_auth, login).await?.auth.ok_or(CredentialsError::Malformed)
    }

    pub(super) async fn database(
        &self,
        SessionToken(token): &SessionToken,
        role: &str,
        request_id: &str,
    ) -> Result<Granted<GrantedUser>, CredentialsError> {
        let generate = || {
            let mut generate = GenerateCredentialsRequest::builder();
            generate.mount(&self.config.vault_database_mount).name(role);
            generate.build().map_err(|_| CredentialsError::Malformed)
        };
        let request_auth = RequestAuth { token: Some(token), request_id: Some(request_id) };
        let response = self.client.call(request_auth, generate).await?;
        let user = response.data.ok_or(CredentialsError::Malformed)?;
        Ok(Granted {
            value: GrantedUser {
                id: response.lease_id,
                username: user.username,
                password: user.password.into(),
            },
            duration: Duration::from_secs(response.lease_duration.into()),
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
        let path = format!("{tenant}/{}/{name}", self.service);
        let read = || {
            let mut read = ReadSecretRequest::builder();
            read.mount(&self.config.vault_kv_mount).path(&path);
            read.build().map_err(|_| CredentialsError::Malformed)
        };
        let request_auth = RequestAuth { token: Some(token), request_id: Some(request_id) };
        let data =
            self.client.call(request_auth, read).await?.data.ok_or(CredentialsError::Malformed)?;
        match data.data {
            Value::Object(fields) => Ok(Secret::from_json(fields)),
            _ => Err(CredentialsError::Malformed),
        }
    }

    /// Renews the session itself.
    pub(super) async fn renew_session(
        &self,
        session: &SessionToken,
    ) -> Result<Duration, CredentialsError> {
        let renewed = self.post(session, "auth/token/renew-self", &json!({})).await?;
        let seconds =
            renewed["auth"]["lease_duration"].as_u64().ok_or(CredentialsError::Malformed)?;
        Ok(Duration::from_secs(seconds))
    }

    pub(super) async fn renew_lease(
        &self,
        session: &SessionToken,
        id: &str,
    ) -> Result<Duration, CredentialsError> {
        let renewed = self.post(session, "sys/leases/renew", &json!({ "lease_id": id })).await?;
        let seconds = renewed["lease_duration"].as_u64().ok_or(CredentialsError::Malformed)?;
        Ok(Duration::from_secs(seconds))
    }

    /// Whether Vault still knows a session.
    pub(super) async fn is_known(
        &self,
        SessionToken(token): &SessionToken,
    ) -> Result<bool, CredentialsError> {
        let lookup =
            RawEndpoint { method: RequestMethod::GET, path: "auth/token/lookup-self", body: None };
        match self
            .client
            .send(RequestAuth { token: Some(token), request_id: None }, || Ok(lookup.clone()))
            .await
        {
            Ok(_) => Ok(true),
            Err(CredentialsError::Refused { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Revokes a session and every lease that was taken in it.
    pub(super) async fn revoke(&self, session: &SessionToken) -> Result<(), CredentialsError> {
        match self.post(session, "auth/token/revoke-self", &json!({})).await {
            // Vault no longer knows it.
            Ok(_) | Err(CredentialsError::Refused { status: 403, .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn post(
        &self,
        SessionToken(token): &SessionToken,
        path: &str,
        body: &Value,
    ) -> Result<Value, CredentialsError> {
        let call = RawEndpoint { method: RequestMethod::POST, path, body: Some(body) };
        let request_auth = RequestAuth { token: Some(token), request_id: None };
        let response = self.client.send(request_auth, || Ok(call.clone())).await?;
        let body = Zeroizing::new(response.response.into_body());
        if body.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&body).map_err(|_| CredentialsError::Malformed)
    }
}
