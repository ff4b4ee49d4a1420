//! The sources of credentials, and the instrumentation of their operations.

use std::time::{Duration, Instant};

use tracing::{Instrument as _, field::Empty};

#[cfg(feature = "aws")]
use super::aws::AwsSecretsManager;
#[cfg(feature = "azure")]
use super::azure::AzureKeyVault;
use super::{
    embedded::EmbeddedSource,
    error::{CredentialsError, Outage},
    grant::{Granted, GrantedCertificate, GrantedUser, SessionToken},
    lease::Secret,
    on_behalf_of::OnBehalfOf,
    vault::Vault,
};
use crate::metrics::{OPERATION_DURATION, OPERATIONS};

/// A source of credentials. Only Vault authenticates the caller: the stores of the clouds give
/// secrets to the service itself, which requests those of the caller's tenant.
#[derive(Debug)]
pub enum CredentialSource {
    /// A Vault.
    Vault(Box<Vault>),
    /// AWS Secrets Manager, which has only secrets.
    #[cfg(feature = "aws")]
    AwsSecretsManager(Box<AwsSecretsManager>),
    /// An Azure Key Vault, which has only secrets.
    #[cfg(feature = "azure")]
    AzureKeyVault(Box<AzureKeyVault>),
    /// This process itself.
    Embedded(EmbeddedSource),
}

impl CredentialSource {
    pub(super) async fn login(
        &self,
        on_behalf_of: OnBehalfOf<'_>,
        request_id: &str,
    ) -> Result<Granted<SessionToken>, CredentialsError> {
        instrumented("login", async {
            match self {
                Self::Vault(vault) => vault.login(on_behalf_of, request_id).await,
                // These sources have no login; the session is local.
                _ => Ok(EmbeddedSource::login()),
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
        instrumented("lease", async {
            match self {
                Self::Vault(vault) => vault.database(session, role, request_id).await,
                Self::Embedded(_) => Ok(EmbeddedSource::database(role)),
                #[cfg(any(feature = "aws", feature = "azure"))]
                _ => Err(CredentialsError::Unsupported("database users")),
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
        instrumented("secret", async {
            match self {
                Self::Vault(vault) => vault.secret(session, tenant, name, request_id).await,
                #[cfg(feature = "aws")]
                Self::AwsSecretsManager(aws) => Box::pin(aws.secret(tenant, name)).await,
                #[cfg(feature = "azure")]
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
        instrumented("certificate", async {
            match self {
                Self::Vault(vault) => {
                    vault.certificate(session, role, common_name, request_id).await
                }
                _ => Err(CredentialsError::Unsupported("certificates")),
            }
        })
        .await
    }

    pub(super) async fn renew_session(
        &self,
        session: &SessionToken,
    ) -> Result<Duration, CredentialsError> {
        instrumented("renew", async {
            match self {
                Self::Vault(vault) => vault.renew_session(session).await,
                _ => Ok(EmbeddedSource::renewed()),
            }
        })
        .await
    }

    pub(super) async fn renew_lease(
        &self,
        session: &SessionToken,
        id: &str,
    ) -> Result<Duration, CredentialsError> {
        instrumented("renew", async {
            match self {
                Self::Vault(vault) => vault.renew_lease(session, id).await,
                _ => Ok(EmbeddedSource::renewed()),
            }
        })
        .await
    }

    /// Whether Vault can be used. Of another source that is not known without a call.
    pub(super) async fn check_health(&self) -> Result<(), String> {
        match self {
            Self::Vault(vault) => vault.check_health().await,
            _ => Ok(()),
        }
    }

    /// Whether the source still knows a session in which a request was denied.
    pub(super) async fn is_known(&self, session: &SessionToken) -> Result<bool, CredentialsError> {
        match self {
            Self::Vault(vault) => vault.is_known(session).await,
            _ => Ok(true),
        }
    }

    /// Revokes a session with all its leases.
    pub(super) async fn revoke(&self, session: &SessionToken) -> Result<(), CredentialsError> {
        instrumented("revoke", async {
            match self {
                Self::Vault(vault) => vault.revoke(session).await,
                _ => Ok(()),
            }
        })
        .await
    }
}

/// Runs an operation within a span, and counts and times it.
async fn instrumented<T>(
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
    let outcome = done.as_ref().err().map_or("ok", CredentialsError::label);
    if let Err(error) = &done {
        span.record("otel.status_code", "ERROR").record("error.type", outcome);
        span.in_scope(|| match error {
            // The breaker has logged it once.
            CredentialsError::Unavailable(Outage::CircuitOpen) => {
                tracing::debug!(operation, %error, "credentials");
            }
            _ => tracing::warn!(operation, %error, "credentials"),
        });
    }
    OPERATIONS.with([operation.into(), outcome.into()]).increment(1);
    OPERATION_DURATION.with([operation.into()]).record(began.elapsed());
    done
}
