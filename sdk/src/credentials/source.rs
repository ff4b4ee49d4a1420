//! Where credentials come from, and what is told of each thing that is asked there.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use metrics::{counter, histogram};
use secrecy::SecretString;
use tracing::{Instrument as _, field::Empty};

#[cfg(feature = "credentials-aws")]
use super::aws::AwsSecretsManager;
#[cfg(feature = "credentials-azure")]
use super::azure::AzureKeyVault;
use super::{
    embedded::Embedded,
    error::{CredentialsError, Outage},
    lease::Secret,
    vault::Vault,
};
use crate::identity::Caller;

/// The longest connecting may take, and the longest a call with all its retries.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest one try may take: a second one still fits.
pub(super) const TRY_TIMEOUT: Duration = Duration::from_millis(2400);

/// Where credentials come from. Only a Vault knows the caller: the clouds' stores give secrets to the service itself,
/// which asks for those of the caller's tenant.
#[derive(Debug)]
pub enum Source {
    /// A Vault.
    Vault(Box<Vault>),
    /// AWS Secrets Manager, which has secrets alone.
    #[cfg(feature = "credentials-aws")]
    AwsSecretsManager(Box<AwsSecretsManager>),
    /// An Azure Key Vault, which has secrets alone.
    #[cfg(feature = "credentials-azure")]
    AzureKeyVault(Box<AzureKeyVault>),
    /// This process itself.
    Embedded(Embedded),
}

/// In whose name something is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) enum OnBehalfOf<'a> {
    Caller(&'a Caller),
    /// The service itself.
    Service,
}

impl OnBehalfOf<'_> {
    /// The transaction token of the caller.
    pub(super) fn token(self) -> Option<Arc<SecretString>> {
        match self {
            Self::Caller(caller) => Some(Arc::clone(&caller.token)),
            Self::Service => None,
        }
    }
}

/// Opens what one principal may have, until it is revoked.
#[derive(Debug)]
pub(super) struct SessionToken(pub(super) SecretString);

/// A database user as it is given.
#[derive(Debug)]
pub(super) struct GrantedUser {
    pub(super) id: String,
    pub(super) username: String,
    pub(super) password: SecretString,
}

/// A certificate as it is issued.
#[derive(Debug)]
pub(super) struct GrantedCertificate {
    pub(super) chain: String,
    pub(super) private_key: SecretString,
    pub(super) authority: String,
}

/// Something for a while.
#[derive(Debug)]
pub(super) struct Granted<T> {
    pub(super) of: T,
    pub(super) duration: Duration,
    pub(super) renewable: bool,
}

impl Source {
    pub(super) async fn login(
        &self,
        name: OnBehalfOf<'_>,
        request_id: &str,
    ) -> Result<Granted<SessionToken>, CredentialsError> {
        told("login", async {
            match self {
                Self::Vault(vault) => vault.login(name, request_id).await,
                // Nobody is logged in to: this is what the caller has here.
                _ => Ok(Embedded::login()),
            }
        })
        .await
    }

    pub(super) async fn database(
        &self,
        session: &SessionToken,
        role: &str,
        request_id: &str,
    ) -> Result<Granted<GrantedUser>, CredentialsError> {
        told("lease", async {
            match self {
                Self::Vault(vault) => vault.database(session, role, request_id).await,
                Self::Embedded(_) => Ok(Embedded::database(role)),
                #[cfg(any(feature = "credentials-aws", feature = "credentials-azure"))]
                _ => Err(CredentialsError::NotHere("database users")),
            }
        })
        .await
    }

    pub(super) async fn secret(
        &self,
        session: &SessionToken,
        tenant: &str,
        name: &str,
        request_id: &str,
    ) -> Result<Secret, CredentialsError> {
        told("secret", async {
            match self {
                Self::Vault(vault) => vault.secret(session, tenant, name, request_id).await,
                #[cfg(feature = "credentials-aws")]
                Self::AwsSecretsManager(aws) => Box::pin(aws.secret(tenant, name)).await,
                #[cfg(feature = "credentials-azure")]
                Self::AzureKeyVault(azure) => Box::pin(azure.secret(tenant, name)).await,
                Self::Embedded(embedded) => embedded.secret(tenant, name),
            }
        })
        .await
    }

    pub(super) async fn certificate(
        &self,
        session: &SessionToken,
        role: &str,
        common_name: &str,
        request_id: &str,
    ) -> Result<Granted<GrantedCertificate>, CredentialsError> {
        told("certificate", async {
            match self {
                Self::Vault(vault) => {
                    vault.certificate(session, role, common_name, request_id).await
                }
                _ => Err(CredentialsError::NotHere("certificates")),
            }
        })
        .await
    }

    pub(super) async fn renew_session(
        &self,
        session: &SessionToken,
    ) -> Result<Duration, CredentialsError> {
        told("renew", async {
            match self {
                Self::Vault(vault) => vault.renew_session(session).await,
                _ => Ok(Embedded::renewed()),
            }
        })
        .await
    }

    pub(super) async fn renew_lease(
        &self,
        session: &SessionToken,
        id: &str,
    ) -> Result<Duration, CredentialsError> {
        told("renew", async {
            match self {
                Self::Vault(vault) => vault.renew_lease(session, id).await,
                _ => Ok(Embedded::renewed()),
            }
        })
        .await
    }

    /// Whether a session that was just refused is still one.
    pub(super) async fn knows(&self, session: &SessionToken) -> Result<bool, CredentialsError> {
        match self {
            Self::Vault(vault) => vault.knows(session).await,
            _ => Ok(true),
        }
    }

    /// Revokes a session with every lease in it.
    pub(super) async fn revoke(&self, session: &SessionToken) -> Result<(), CredentialsError> {
        told("revoke", async {
            match self {
                Self::Vault(vault) => vault.revoke(session).await,
                _ => Ok(()),
            }
        })
        .await
    }
}

/// Does something within a span, and counts and times it.
async fn told<T>(
    operation: &'static str,
    work: impl Future<Output = Result<T, CredentialsError>>,
) -> Result<T, CredentialsError> {
    let span = tracing::info_span!(
        "credentials",
        otel.name = format!("credentials {operation}"),
        otel.kind = "client",
        otel.status_code = Empty,
        error.type = Empty,
    );
    let began = Instant::now();
    let done = work.instrument(span.clone()).await;
    let outcome = done.as_ref().err().map_or("ok", CredentialsError::word);
    if let Err(error) = &done {
        span.record("otel.status_code", "ERROR").record("error.type", outcome);
        span.in_scope(|| match error {
            // Said once, when it began.
            CredentialsError::Unavailable(Outage::CircuitOpen) => {
                tracing::debug!(operation, %error, "credentials");
            }
            _ => tracing::warn!(operation, %error, "credentials"),
        });
    }
    counter!("credentials_operations_total", "operation" => operation, "outcome" => outcome)
        .increment(1);
    histogram!("credentials_operation_duration_seconds", "operation" => operation)
        .record(began.elapsed().as_secs_f64());
    done
}
