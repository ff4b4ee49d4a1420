use std::time::Duration;

use tonic::Status;

use crate::ChannelError;

/// What a caller is told when it should try again: longer than a circuit stays open.
const RETRY_AFTER: Duration = Duration::from_secs(3);

/// Credentials that cannot be had. Nothing secret is in it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CredentialsError {
    /// Whoever gives them does not answer, is sealed, or is not asked for now. Trying again later makes sense.
    #[error("credentials cannot be had now: {0}")]
    Unavailable(Outage),
    /// Whoever gives them refuses this caller.
    #[error("credentials are refused with status {status}: {reason}")]
    Refused {
        /// The HTTP status of the answer.
        status: u16,
        /// What Vault says, cut short.
        reason: String,
    },
    /// The caller is revoked.
    #[error("the caller is revoked")]
    Revoked,
    /// There is no such secret.
    #[error("there is no such secret")]
    NoSuchSecret,
    /// The service is to do something in its own name, and has no login of its own.
    #[error("the service has no login of its own at Vault: name one by --vault-login")]
    NoOwnLogin,
    /// The source gives nothing of this kind.
    #[error("this source of credentials has no {0}")]
    NotHere(&'static str),
    /// The caller belongs to no tenant, or its tenant's name cannot stand in a path.
    #[error("the caller has no tenant whose secrets could be read")]
    NoTenant,
    /// The answer cannot be understood.
    #[error("the answer of their source is not what it should be")]
    Malformed,
    /// The service is stopping.
    #[error("the service is stopping")]
    Closed,
}

/// Why credentials cannot be had now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Outage {
    /// No connection, or it broke.
    #[error("their source cannot be reached")]
    Unreachable,
    /// No answer in time.
    #[error("their source does not answer in time")]
    Timeout,
    /// It is sealed, a standby without a leader, or in maintenance.
    #[error("Vault is sealed or not ready")]
    NotReady,
    /// It limits its callers.
    #[error("their source is busy")]
    Busy,
    /// It failed inside, or what it asks did: a database that is down.
    #[error("their source has failed inside")]
    Failed,
    /// The file that the service logs in with in its own name is not there, or empty.
    #[error("the file of the service's own login cannot be read")]
    LoginFile,
    /// It has failed several times, and is left alone for a moment.
    #[error("their source has failed repeatedly and is not asked for a moment")]
    CircuitOpen,
}

impl CredentialsError {
    /// Whether trying again later makes sense.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Closed)
    }

    /// Whether it may be that a session is not known any more.
    pub(super) fn is_forbidden(&self) -> bool {
        matches!(self, Self::Refused { status: 403, .. })
    }

    /// One word for metrics.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Unavailable(_) => "unavailable",
            Self::Refused { .. } | Self::NoTenant | Self::NoOwnLogin | Self::Revoked => "refused",
            Self::NoSuchSecret | Self::NotHere(_) => "missing",
            Self::Malformed => "malformed",
            Self::Closed => "closed",
        }
    }
}

impl From<CredentialsError> for Status {
    /// The caller learns whether to try again, and nothing of Vault.
    fn from(error: CredentialsError) -> Self {
        match error {
            error if error.is_retryable() => Self::unavailable(format!(
                "credentials cannot be had now; try again in {} seconds",
                RETRY_AFTER.as_secs()
            )),
            CredentialsError::Refused { .. }
            | CredentialsError::NoTenant
            | CredentialsError::Revoked => {
                Self::permission_denied("no credentials are given to this caller")
            }
            CredentialsError::NoSuchSecret => {
                Self::failed_precondition("the secret that this needs is not set")
            }
            _ => Self::internal("credentials cannot be had"),
        }
    }
}

/// Credentials that cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// Nothing is named that gives credentials.
    #[error("there is no source of credentials: name a Vault by --vault-url, or another source")]
    NoSource,
    /// There are several sources.
    #[error("there are several sources of credentials: name one")]
    SeveralSources,
    /// The prefix of secrets' names cannot be one.
    #[error(
        "secrets cannot be named after {prefix:?}: letters, digits, `.`, `_` and `-`, with `/` between"
    )]
    Prefix {
        /// Which.
        prefix: String,
    },
    /// A key vault must be asked by TLS.
    #[error("{url} is not a URL of https")]
    NotHttps {
        /// Which.
        url: url::Url,
    },
    /// The identity that Azure knows this workload by cannot be set up.
    #[cfg(feature = "credentials-azure")]
    #[error("cannot set up Azure Key Vault")]
    Azure(#[from] azure_core::Error),
    /// The address of auth is not one.
    #[error(transparent)]
    Auth(#[from] ChannelError),
    /// The service's own login at Vault lacks a file.
    #[error("the service's own login at Vault needs {argument}")]
    LoginNeeds {
        /// The argument that names it.
        argument: &'static str,
    },
    /// A file cannot be read.
    #[error("cannot read {path}")]
    File {
        /// Which.
        path: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A certificate or key is not one, or there is no TLS.
    #[error("cannot set up HTTP to the source of credentials")]
    Http(#[from] reqwest::Error),
}
