use std::time::Duration;

use tonic::Status;

use drawbridge_transport::ChannelError;

/// The retry delay that a caller is given: longer than a circuit stays open.
const RETRY_AFTER: Duration = Duration::from_secs(3);

/// Credentials could not be issued. It contains no secrets.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CredentialsError {
    /// The source does not answer, is sealed, or its circuit is open. A later retry may succeed.
    #[error("credentials are unavailable: {0}")]
    Unavailable(Outage),
    /// The source denies this caller.
    #[error("credentials were denied with status {status}: {reason}")]
    Refused {
        /// The HTTP status of the response.
        status: u16,
        /// Vault's message, truncated.
        reason: String,
    },
    /// The caller is revoked.
    #[error("the caller is revoked")]
    Revoked,
    /// The secret does not exist.
    #[error("the secret does not exist")]
    NoSuchSecret,
    /// The service needs something in its own name, and has no login of its own.
    #[error("the service has no Vault login of its own; configure one with --vault-login")]
    NoServiceLogin,
    /// The source does not support this kind of credential.
    #[error("this source of credentials does not support {0}")]
    Unsupported(&'static str),
    /// The caller has no tenant, or the tenant's name is not valid in a path.
    #[error("the caller has no tenant with a valid name")]
    NoTenant,
    /// The response is malformed.
    #[error("the source's response is malformed")]
    Malformed,
    /// The service is stopping.
    #[error("the service is stopping")]
    Closed,
}

/// Why credentials are unavailable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Outage {
    /// No connection, or it broke.
    #[error("the source cannot be reached")]
    Unreachable,
    /// No response in time.
    #[error("the source did not respond in time")]
    Timeout,
    /// It is sealed, a standby without a leader, or in maintenance.
    #[error("Vault is sealed or not ready")]
    NotReady,
    /// It rate-limits its callers.
    #[error("the source is busy")]
    Busy,
    /// It has an internal failure, or something that it depends on does, such as a database.
    #[error("the source had an internal failure")]
    Failed,
    /// The file of the service's own login does not exist or is empty.
    #[error("the file of the service's own login cannot be read")]
    LoginFile,
    /// It failed repeatedly, and its circuit is open.
    #[error("the source failed repeatedly; its circuit is open")]
    CircuitOpen,
}

impl CredentialsError {
    /// Whether a later retry may succeed.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Closed)
    }

    /// Whether the source may have forgotten the session.
    pub(super) fn is_forbidden(&self) -> bool {
        matches!(self, Self::Refused { status: 403, .. })
    }

    /// The value of the metrics' `outcome` label.
    pub(super) fn label(&self) -> &'static str {
        match self {
            Self::Unavailable(_) => "unavailable",
            Self::Refused { .. } | Self::NoTenant | Self::NoServiceLogin | Self::Revoked => {
                "refused"
            }
            Self::NoSuchSecret | Self::Unsupported(_) => "missing",
            Self::Malformed => "malformed",
            Self::Closed => "closed",
        }
    }
}

impl From<CredentialsError> for Status {
    /// The caller learns whether to retry, and nothing about Vault.
    fn from(error: CredentialsError) -> Self {
        match error {
            error if error.is_retryable() => Self::unavailable(format!(
                "credentials are unavailable; retry in {} seconds",
                RETRY_AFTER.as_secs()
            )),
            CredentialsError::Refused { .. }
            | CredentialsError::NoTenant
            | CredentialsError::Revoked => {
                Self::permission_denied("this caller may not have credentials")
            }
            CredentialsError::NoSuchSecret => {
                Self::failed_precondition("a required secret is not set")
            }
            _ => Self::internal("credentials could not be obtained"),
        }
    }
}

/// A source of credentials cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// No source is configured.
    #[error("no source of credentials: configure Vault with --vault-url, or another source")]
    NoSource,
    /// Several sources are configured.
    #[error("several sources of credentials are configured: keep one")]
    SeveralSources,
    /// The prefix of secret names is invalid.
    #[error(
        "invalid prefix of secret names {prefix:?} \
         (expected segments of letters, digits, `.`, `_` and `-`, separated by `/`)"
    )]
    Prefix {
        /// The prefix.
        prefix: String,
    },
    /// A key vault requires TLS.
    #[error("{url} is not an https URL")]
    NotHttps {
        /// The URL.
        url: url::Url,
    },
    /// The Azure identity of this workload cannot be set up.
    #[cfg(feature = "azure")]
    #[error("cannot set up Azure Key Vault")]
    Azure(#[from] azure_core::Error),
    /// The address of auth is invalid.
    #[error(transparent)]
    Auth(#[from] ChannelError),
    /// The service's own Vault login lacks a file.
    #[error("the service's own Vault login requires {argument}")]
    LoginNeeds {
        /// The argument that names the file.
        argument: &'static str,
    },
    /// A file cannot be read.
    #[error("cannot read {path}")]
    File {
        /// The path.
        path: std::path::PathBuf,
        /// What went wrong.
        source: std::io::Error,
    },
    /// A certificate or key is invalid, or TLS cannot be set up.
    #[error("cannot set up HTTP to the source of credentials")]
    Http(#[from] reqwest::Error),
}
