//! Short-lived credentials in the caller's name: database users and secrets from Vault.
//!
//! A tool service asks for what one call needs. The first call of a principal logs in with its transaction token and
//! takes a lease; later ones share both until nobody uses them any more, the principal is revoked, or the service stops.
//! See `docs/credentials.md`.

use std::{sync::Arc, time::Duration};

use drawbridge_proto::auth::v1::auth_service_client::AuthServiceClient;
use tokio::time::timeout;
use url::Url;

use crate::{
    ChannelError,
    call::CallContext,
    connect,
    identity::{Caller, Principal},
};

pub mod bootstrap;
mod breaker;
mod config;
mod embedded;
mod error;
mod lease;
mod revocation;
mod session;
mod sessions;
mod source;
#[cfg(test)]
mod tests;
mod vault;

pub use config::CredentialsConfig;
pub use embedded::Embedded;
pub use error::{CredentialsError, Outage, SetupError};
pub use lease::{DatabaseLease, Secret};
use sessions::Sessions;
pub use source::Source;
pub use vault::{Vault, VaultConfig};

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

    /// Gives up what somebody has who is revoked at this auth, as long as it is heard.
    ///
    /// # Errors
    /// When the URL is not one that gRPC can use.
    pub fn follow_revocations(&self, auth: &Url) -> Result<(), ChannelError> {
        let auth = AuthServiceClient::new(connect(auth)?);
        self.inner.beside(revocation::follow(Arc::clone(&self.inner), auth));
        Ok(())
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
        let inner = &self.inner;
        within(context, async {
            let session = inner.session(caller, context).await?;
            match inner.lease(&session, context, role).await {
                Err(error) if error.is_forbidden() => {
                    let session = inner.replace(session, caller, context, error).await?;
                    inner.lease(&session, context, role).await
                }
                done => done,
            }
        })
        .await
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
        let tenant = caller.claims.tctx.tenant.as_deref().filter(|tenant| is_path_segment(tenant));
        let tenant = tenant.ok_or(CredentialsError::NoTenant)?;
        let inner = &self.inner;
        within(context, async {
            let session = inner.session(caller, context).await?;
            match inner.secret(&session, context, tenant, name).await {
                Err(error) if error.is_forbidden() => {
                    let session = inner.replace(session, caller, context, error).await?;
                    inner.secret(&session, context, tenant, name).await
                }
                done => done,
            }
        })
        .await
    }

    /// Gives up a lease that the database does not take any more, unless another has taken its place: the next call gets
    /// a new one.
    pub async fn give_up(&self, principal: &Principal, role: &str, lease: &DatabaseLease) {
        self.inner.give_up(principal, role, lease).await;
    }

    /// Gives up all that a principal has, and revokes it.
    pub async fn revoke(&self, principal: &Principal) {
        self.inner.revoke(principal).await;
    }

    /// Gives up and revokes all there is; nothing is given any more. It ends within seconds: what could not be revoked by
    /// then ends by itself.
    pub async fn close(&self) {
        self.inner.close().await;
    }
}

/// As long as the caller waits.
async fn within<T>(
    context: &CallContext,
    work: impl Future<Output = Result<T, CredentialsError>>,
) -> Result<T, CredentialsError> {
    let done = timeout(context.remaining().min(vault::CALL_TIMEOUT), Box::pin(work)).await;
    done.unwrap_or(Err(CredentialsError::Unavailable(Outage::Timeout)))
}

/// Whether a text can stand in a path of Vault, and in a policy, as nothing but itself.
fn is_path_segment(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    !text.is_empty() && text.bytes().all(allowed) && !text.bytes().all(|byte| byte == b'.')
}
