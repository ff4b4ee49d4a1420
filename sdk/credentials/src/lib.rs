//! Short-lived credentials on behalf of the caller: database users, certificates and secrets from
//! Vault.
//!
//! A tool service requests what one call needs. The first call of a principal logs in with its
//! transaction token and takes a lease. Later calls share both until they are idle, the principal
//! is revoked, or the service stops. See `docs/explanation/credentials.md`.

use std::{sync::Arc, time::Duration};

use drawbridge_proto::auth::v1::auth_service_client::AuthServiceClient;
use tokio::time::timeout;
use tonic::transport::Channel;

use drawbridge_runtime::{Effect, RequestId, ServiceBuilder};
use drawbridge_transport::{
    CallContext,
    transaction_token::{Principal, VerifiedCaller},
};

#[cfg(feature = "aws")]
mod aws;
#[cfg(feature = "azure")]
mod azure;
mod circuit;
mod config;
mod embedded;
mod error;
mod grant;
mod lease;
mod lease_owner;
mod metrics;
mod on_behalf_of;
mod revocation;
mod session;
mod sessions;
mod source;
#[cfg(test)]
mod tests;
mod timeouts;
mod vault;

#[cfg(feature = "aws")]
pub use aws::{AwsConfig, AwsSecretsManager};
#[cfg(feature = "azure")]
pub use azure::{AzureConfig, AzureKeyVault};
pub use config::CredentialsConfig;
pub use embedded::EmbeddedSource;
pub use error::{CredentialsError, Outage, SetupError};
pub use lease::{DatabaseLease, IssuedCertificate, Secret};
pub use metrics::METRICS;
use on_behalf_of::OnBehalfOf;
use session::Session;
use sessions::Sessions;
pub use source::CredentialSource;
pub use vault::{LoginMethod, Vault, VaultApi, VaultConfig, VaultLogin};

/// Bounds on sessions.
#[derive(Clone, Copy, Debug)]
pub struct CredentialLimits {
    /// The most principals with a session at once. The least recently used session is evicted
    /// first.
    pub sessions_max: u64,
    /// A session that is idle for this long is revoked, with its leases.
    pub idle: Duration,
}

impl Default for CredentialLimits {
    fn default() -> Self {
        Self { sessions_max: 10_000, idle: Duration::from_secs(300) }
    }
}

/// Credentials of one tool service. Clones share their sessions.
#[derive(Clone, Debug)]
pub struct Credentials {
    inner: Arc<Sessions>,
}

impl Credentials {
    /// Credentials from a source. Must be called within a runtime, which renews and revokes them.
    #[must_use]
    pub fn new(source: CredentialSource, limits: CredentialLimits) -> Self {
        metrics::register();
        Self { inner: Sessions::new(source, limits) }
    }

    /// Revokes the sessions of principals that auth revokes, while the connection to auth lasts.
    /// Must be called within a runtime.
    pub fn watch_revocations(&self, auth: Channel) {
        let auth = AuthServiceClient::new(auth);
        self.inner.spawn(revocation::watch(Arc::clone(&self.inner), auth));
    }

    /// Watches Vault, without which new callers get no credentials, for a service's readiness. Those
    /// who have some keep them.
    pub fn watch_source(&self, service: &ServiceBuilder) {
        if !matches!(*self.inner.source(), CredentialSource::Vault(_)) {
            return;
        }
        let condition = service.readiness().condition("vault", Effect::Degrading);
        let sessions = Arc::clone(&self.inner);
        let check = move || {
            let sessions = Arc::clone(&sessions);
            async move { sessions.source().check_health().await }
        };
        service.spawn(condition.monitor(check, service.stopping()));
    }

    /// A database user for this caller, in a role of the database engine. Request it for every use:
    /// that keeps the lease alive.
    ///
    /// # Errors
    /// When the caller may not have it, or the source is unavailable.
    pub async fn database(
        &self,
        caller: &VerifiedCaller,
        context: &CallContext,
        role: &str,
    ) -> Result<Arc<DatabaseLease>, CredentialsError> {
        self.lease(OnBehalfOf::Caller(caller), context, role).await
    }

    /// A database user for the service itself, for work without a caller, such as migrations. No
    /// caller of the service can have the role.
    ///
    /// # Errors
    /// When the service has no login of its own, may not have the role, or the source is
    /// unavailable.
    pub async fn service_database(
        &self,
        role: &str,
    ) -> Result<Arc<DatabaseLease>, CredentialsError> {
        let context = CallContext::new(RequestId::generate(), timeouts::CALL_TIMEOUT);
        self.lease(OnBehalfOf::Service, &context, role).await
    }

    /// A secret of the caller's tenant for this service, by its name.
    ///
    /// # Errors
    /// When the caller may not have it, it does not exist, or the source is unavailable.
    pub async fn secret(
        &self,
        caller: &VerifiedCaller,
        context: &CallContext,
        name: &str,
    ) -> Result<Arc<Secret>, CredentialsError> {
        self.secret_except(None, caller, context, name).await
    }

    /// As [`Self::secret`], when the `stale` secret is no longer accepted: reads it again, unless
    /// another call has already done so.
    ///
    /// # Errors
    /// Those of [`Self::secret`].
    pub async fn reread_secret(
        &self,
        caller: &VerifiedCaller,
        context: &CallContext,
        name: &str,
        stale: &Arc<Secret>,
    ) -> Result<Arc<Secret>, CredentialsError> {
        self.secret_except(Some(stale), caller, context, name).await
    }

    async fn secret_except(
        &self,
        stale: Option<&Arc<Secret>>,
        caller: &VerifiedCaller,
        context: &CallContext,
        name: &str,
    ) -> Result<Arc<Secret>, CredentialsError> {
        let tenant = caller.claims.tctx.tenant.as_deref().filter(|tenant| is_path_segment(tenant));
        let tenant = tenant.ok_or(CredentialsError::NoTenant)?;
        let inner = &self.inner;
        self.with_session(OnBehalfOf::Caller(caller), context, |session| async move {
            if let Some(stale) = stale {
                session.evict_secret(name, stale).await;
            }
            inner.secret(&session, context, tenant, name).await
        })
        .await
    }

    /// A certificate for this caller, from a role of the PKI engine, with its key. Request it for
    /// every use: it is replaced before two thirds of its lifetime.
    ///
    /// # Errors
    /// When the caller may not have it, or the source is unavailable.
    pub async fn certificate(
        &self,
        caller: &VerifiedCaller,
        context: &CallContext,
        role: &str,
        common_name: &str,
    ) -> Result<Arc<IssuedCertificate>, CredentialsError> {
        let inner = &self.inner;
        self.with_session(OnBehalfOf::Caller(caller), context, |session| async move {
            inner.certificate(&session, context, role, common_name).await
        })
        .await
    }

    /// Discards a lease that the database rejects, unless it was replaced already. The next call
    /// gets a new one.
    pub async fn discard_lease(&self, caller: &VerifiedCaller, role: &str, lease: &DatabaseLease) {
        self.inner.discard_lease(OnBehalfOf::Caller(caller), role, lease).await;
    }

    /// Revokes everything that a principal has, including what its actors have.
    pub async fn revoke(&self, principal: &Principal) {
        self.inner.revoke(principal).await;
    }

    /// Revokes what the service has in its own name, once it is no longer needed.
    pub async fn revoke_service_credentials(&self) {
        self.inner.revoke_service().await;
    }

    /// Revokes everything; no more credentials are issued. It ends within seconds: what could not
    /// be revoked by then expires.
    pub async fn close(&self) {
        self.inner.close().await;
    }

    async fn lease(
        &self,
        on_behalf_of: OnBehalfOf<'_>,
        context: &CallContext,
        role: &str,
    ) -> Result<Arc<DatabaseLease>, CredentialsError> {
        let inner = &self.inner;
        self.with_session(on_behalf_of, context, |session| async move {
            inner.lease(&session, context, role).await
        })
        .await
    }

    /// Runs an operation in a session until the caller's deadline. If the source no longer knows
    /// the session, the operation is retried once in a new one.
    async fn with_session<T, F: Future<Output = Result<T, CredentialsError>>>(
        &self,
        on_behalf_of: OnBehalfOf<'_>,
        context: &CallContext,
        operation: impl Fn(Arc<Session>) -> F,
    ) -> Result<T, CredentialsError> {
        let work = async {
            let session = self.inner.session(on_behalf_of, context).await?;
            match operation(Arc::clone(&session)).await {
                Err(error) if error.is_forbidden() => {
                    operation(self.inner.replace(session, on_behalf_of, context, error).await?)
                        .await
                }
                done => done,
            }
        };
        let done = timeout(context.remaining().min(timeouts::CALL_TIMEOUT), Box::pin(work)).await;
        done.unwrap_or(Err(CredentialsError::Unavailable(Outage::Timeout)))
    }
}

/// Whether a text is safe as one segment of a Vault path and in a policy.
fn is_path_segment(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    !text.is_empty() && text.bytes().all(allowed) && !text.bytes().all(|byte| byte == b'.')
}
