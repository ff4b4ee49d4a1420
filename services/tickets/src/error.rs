//! What can go wrong, and the one place that says so to gRPC callers.

use std::{error::Error as _, time::Duration};

use drawbridge_sdk::{BlockingError, credentials::CredentialsError};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// What a caller is told when it should try again, where the helpdesk says nothing.
const RETRY_AFTER: Duration = Duration::from_secs(3);

/// Why a call fails. Nothing that the helpdesk writes in an error is in it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TicketError {
    #[error("`{field}`: {problem}")]
    Argument { field: &'static str, problem: &'static str },
    #[error("nobody calls")]
    Anonymous,
    #[error("the helpdesk's token cannot be had")]
    Credentials(#[from] CredentialsError),
    /// No URL, or a secret without a token.
    #[error("no helpdesk is set up for your company: {0}")]
    NoHelpdesk(&'static str),
    #[error("the helpdesk does not accept the token that is set for your company")]
    TokenRefused,
    #[error("the helpdesk does not let your company's token do this")]
    Refused,
    #[error("the helpdesk has no such ticket")]
    NotFound,
    #[error("the helpdesk does not take this request")]
    Rejected,
    #[error("the helpdesk is busy; try again in {} seconds", seconds(*retry_after))]
    Busy { retry_after: Option<Duration> },
    /// The request has not arrived.
    #[error("the helpdesk cannot be reached")]
    Unreachable,
    /// It may have arrived.
    #[error("the helpdesk gives no answer now")]
    Unavailable { retry_after: Option<Duration> },
    #[error(
        "it is not known whether the reply was posted; repeat the call with the same key and text"
    )]
    Unconfirmed,
    #[error("the helpdesk's answer is not what it should be")]
    Malformed,
    #[error("the helpdesk's answer is larger than {bytes_max} bytes")]
    TooLarge { bytes_max: usize },
    #[error("`idempotency_key`: has posted another text to this ticket; choose a new key")]
    KeyReused,
    #[error("the deadline passed before the work was done")]
    DeadlinePassed,
    #[error("the work failed")]
    Failed(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl From<BlockingError> for TicketError {
    fn from(error: BlockingError) -> Self {
        match error {
            // A caller who has gone hears neither.
            BlockingError::DeadlinePassed | BlockingError::Cancelled => Self::DeadlinePassed,
            BlockingError::Failed(error) => Self::Failed(error.into()),
        }
    }
}

/// How long to wait, in whole seconds.
fn seconds(retry_after: Option<Duration>) -> u64 {
    retry_after.unwrap_or(RETRY_AFTER).as_secs_f64().ceil() as u64
}

impl TicketError {
    pub(crate) fn argument(field: &'static str, problem: &'static str) -> Self {
        Self::Argument { field, problem }
    }

    /// Whether a read may be tried again at once.
    pub(crate) fn is_retryable(&self) -> bool {
        matches!(self, Self::Busy { .. } | Self::Unreachable | Self::Unavailable { .. })
    }

    /// When the helpdesk wants to be asked again, if it says so.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Busy { retry_after } | Self::Unavailable { retry_after } => *retry_after,
            _ => None,
        }
    }

    /// One word for metrics.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::TokenRefused | Self::Refused => "refused",
            Self::NotFound => "not_found",
            Self::Rejected => "rejected",
            Self::Busy { .. } => "busy",
            Self::Unreachable | Self::Unavailable { .. } | Self::Unconfirmed => "unavailable",
            Self::Malformed | Self::TooLarge { .. } => "malformed",
            Self::DeadlinePassed => "deadline",
            _ => "failed",
        }
    }

    /// Tells when to try again, too.
    fn retryable(&self, code: Code) -> Status {
        let details =
            ErrorDetails::with_retry_info(Some(self.retry_after().unwrap_or(RETRY_AFTER)));
        Status::with_error_details(code, self.to_string(), details)
    }
}

impl From<TicketError> for Status {
    fn from(error: TicketError) -> Self {
        let message = error.to_string();
        match error {
            TicketError::Credentials(error) => error.into(),
            TicketError::Argument { .. } => Self::invalid_argument(message),
            TicketError::Anonymous => Self::unauthenticated(message),
            TicketError::NoHelpdesk(_)
            | TicketError::TokenRefused
            | TicketError::Rejected
            | TicketError::TooLarge { .. } => Self::failed_precondition(message),
            TicketError::Refused => Self::permission_denied(message),
            TicketError::NotFound => Self::not_found(message),
            TicketError::Busy { .. } => error.retryable(Code::ResourceExhausted),
            TicketError::Unreachable | TicketError::Unavailable { .. } => {
                error.retryable(Code::Unavailable)
            }
            // Not UNAVAILABLE: the model is to read which key to use.
            TicketError::Unconfirmed => error.retryable(Code::Aborted),
            TicketError::KeyReused => Self::already_exists(message),
            TicketError::DeadlinePassed => Self::deadline_exceeded(message),
            TicketError::Malformed => Self::internal(message),
            TicketError::Failed(_) => {
                tracing::error!(error = error.source(), "{message}");
                Self::internal(message)
            }
        }
    }
}
