//! Short-lived credentials in the caller's name: database users, certificates and secrets from Vault.
//!
//! A tool service asks for what one call needs. The first call of a principal logs in with its transaction token and
//! takes a lease; later ones share both until nobody uses them any more, the principal is revoked, or the service stops.
//! See `docs/credentials.md`.

use std::{sync::Arc, time::Duration};

use drawbridge_proto::auth::v1::auth_service_client::AuthServiceClient;
use tokio::time::timeout;
use tonic::transport::Channel;

use crate::{
    RequestId,
    call::CallContext,
    identity::{Caller, Principal},
};

#[cfg(feature = "credentials-aws")]
mod aws;
#[cfg(feature = "credentials-azure")]
mod azure;
pub mod bootstrap;
mod breaker;
mod config;
mod embedded;
mod error;
mod lease;
mod owner;
mod revocation;
mod session;
mod sessions;
mod source;
#[cfg(test)]
mod tests;
mod vault;

#[cfg(feature = "credentials-aws")]
pub use aws::{AwsConfig, AwsSecretsManager};
#[cfg(feature = "credentials-azure")]
pub use azure::{AzureConfig, AzureKeyVault};
pub use config::CredentialsConfig;
pub use embedded::Embedded;
pub use error::{CredentialsError, Outage, SetupError};
pub use lease::{Certificate, DatabaseLease, Secret};
use session::Session;
use sessions::Sessions;
use source::OnBehalfOf;
pub use source::Source;
pub use vault::{LoginMethod, Vault, VaultConfig, VaultLogin};

/// How much is kept, and how long.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The most principals that have a session at once; whose was used longest ago loses it first.
    pub sessions_max: u64,
    /// A session that is not used for so long is revoked, with its leases.
    pub idle: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { sessions_max: 10_000, idle: Duration::from_secs(300) }
    }
}

/// Credentials of one tool service. Clones share what they have.
#[derive(Clone, Debug)]
pub struct Credentials {
    inner: Arc<Sessions>,
}

impl Credentials {
    /// Credentials from a source. Must be called within a runtime, which renews and revokes them.
    #[must_use]
    pub fn new(source: Source, limits: Limits) -> Self {
        Self { inner: Sessions::new(source, limits) }
    }

    /// Gives up what somebody has who is revoked at this auth, as long as it is heard. Must be called within a runtime.
    pub fn follow_revocations(&self, auth: Channel) {
        let auth = AuthServiceClient::new(auth);
        self.inner.beside(revocation::follow(Arc::clone(&self.inner), auth));
    }

    /// A database user for this caller, in a role of the database engine. It is to be asked for at every use: that
    /// keeps it alive.
    ///
    /// # Errors
    /// When the caller may not have it, or nobody can give it now.
    pub async fn database(
        &self,
        caller: &Caller,
        context: &CallContext,
        role: &str,
    ) -> Result<Arc<DatabaseLease>, CredentialsError> {
        self.lease(OnBehalfOf::Caller(caller), context, role).await
    }

    /// A database user for the service itself, for what it does for no caller: migrations, for example. The role is one
    /// that no caller of the service can have.
    ///
    /// # Errors
    /// When the service has no login of its own, may not have it, or nobody can give it now.
    pub async fn own_database(&self, role: &str) -> Result<Arc<DatabaseLease>, CredentialsError> {
        let context = CallContext::new(RequestId::generate(), source::CALL_TIMEOUT);
        self.lease(OnBehalfOf::Service, &context, role).await
    }

    /// A secret of the caller's tenant for this service, by its name.
    ///
    /// # Errors
    /// When the caller may not have it, there is none, or nobody can give it now.
    pub async fn secret(
        &self,
        caller: &Caller,
        context: &CallContext,
        name: &str,
    ) -> Result<Arc<Secret>, CredentialsError> {
        self.secret_other_than(None, caller, context, name).await
    }

    /// As [`Self::secret`], when what it gave is not accepted any more where it is shown: read again, unless another call
    /// has done that already.
    ///
    /// # Errors
    /// Those of [`Self::secret`].
    pub async fn secret_afresh(
        &self,
        caller: &Caller,
        context: &CallContext,
        name: &str,
        stale: &Arc<Secret>,
    ) -> Result<Arc<Secret>, CredentialsError> {
        self.secret_other_than(Some(stale), caller, context, name).await
    }

    async fn secret_other_than(
        &self,
        stale: Option<&Arc<Secret>>,
        caller: &Caller,
        context: &CallContext,
        name: &str,
    ) -> Result<Arc<Secret>, CredentialsError> {
        let tenant = caller.claims.tctx.tenant.as_deref().filter(|tenant| is_path_segment(tenant));
        let tenant = tenant.ok_or(CredentialsError::NoTenant)?;
        let inner = &self.inner;
        self.with_session(OnBehalfOf::Caller(caller), context, |session| async move {
            if let Some(stale) = stale {
                session.forget(name, stale).await;
            }
            inner.secret(&session, context, tenant, name).await
        })
        .await
    }

    /// A certificate for this caller, from a role of the PKI engine, with its key. It is to be asked for at every use:
    /// before two thirds of its life it is another one.
    ///
    /// # Errors
    /// When the caller may not have it, or nobody can give it now.
    pub async fn certificate(
        &self,
        caller: &Caller,
        context: &CallContext,
        role: &str,
        common_name: &str,
    ) -> Result<Arc<Certificate>, CredentialsError> {
        let inner = &self.inner;
        self.with_session(OnBehalfOf::Caller(caller), context, |session| async move {
            inner.certificate(&session, context, role, common_name).await
        })
        .await
    }

    /// Gives up a lease that the database does not take any more, unless another has taken its place: the next call gets
    /// a new one.
    pub async fn give_up(&self, caller: &Caller, role: &str, lease: &DatabaseLease) {
        self.inner.give_up_lease(OnBehalfOf::Caller(caller), role, lease).await;
    }

    /// Gives up all that a principal has, whoever acts for it, and revokes it.
    pub async fn revoke(&self, principal: &Principal) {
        self.inner.revoke(principal).await;
    }

    /// Gives up what the service has in its own name, once that is done, and revokes it.
    pub async fn revoke_own(&self) {
        self.inner.revoke_own().await;
    }

    /// Gives up and revokes all there is; nothing is given any more. It ends within seconds: what could not be revoked by
    /// then ends by itself.
    pub async fn close(&self) {
        self.inner.close().await;
    }

    async fn lease(
        &self,
        name: OnBehalfOf<'_>,
        context: &CallContext,
        role: &str,
    ) -> Result<Arc<DatabaseLease>, CredentialsError> {
        let inner = &self.inner;
        self.with_session(name, context, |session| async move {
            inner.lease(&session, context, role).await
        })
        .await
    }

    /// Asks for something in a session, as long as the caller waits, and once more in another session if the source has
    /// forgotten that one.
    async fn with_session<T, F: Future<Output = Result<T, CredentialsError>>>(
        &self,
        name: OnBehalfOf<'_>,
        context: &CallContext,
        ask: impl Fn(Arc<Session>) -> F,
    ) -> Result<T, CredentialsError> {
        let work = async {
            let session = self.inner.session(name, context).await?;
            match ask(Arc::clone(&session)).await {
                Err(error) if error.is_forbidden() => {
                    ask(self.inner.replace(session, name, context, error).await?).await
                }
                done => done,
            }
        };
        let done = timeout(context.remaining().min(source::CALL_TIMEOUT), Box::pin(work)).await;
        done.unwrap_or(Err(CredentialsError::Unavailable(Outage::Timeout)))
    }
}

/// Whether a text can stand in a path of Vault, and in a policy, as nothing but itself.
fn is_path_segment(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    !text.is_empty() && text.bytes().all(allowed) && !text.bytes().all(|byte| byte == b'.')
}
