//! Errors, and their one mapping to gRPC statuses.

use std::{error::Error as _, time::Duration};

use drawbridge_sdk::{BlockingError, credentials::CredentialsError};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// The retry delay for callers where the helpdesk sends no `Retry-After`.
const RETRY_AFTER: Duration = Duration::from_secs(3);

/// The error of a call. It contains no text of the helpdesk's errors.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TicketError {
    #[error("`{field}`: {problem}")]
    Argument { field: &'static str, problem: &'static str },
    #[error("no authenticated caller")]
    Anonymous,
    #[error("cannot get the helpdesk's token")]
    Credentials(#[from] CredentialsError),
    /// The URL is missing or invalid, or the secret has no token.
    #[error("no helpdesk is configured for your company: {0}")]
    NoHelpdesk(&'static str),
    #[error("the helpdesk does not accept the token of your company")]
    TokenRefused,
    #[error("the helpdesk denies this to the token of your company")]
    Refused,
    #[error("the helpdesk has no such ticket")]
    NotFound,
    #[error("the helpdesk rejects this request")]
    Rejected,
    #[error("the helpdesk is busy; retry in {} seconds", retry_seconds(*retry_after))]
    Busy { retry_after: Option<Duration> },
    /// The helpdesk has not received the request.
    #[error("the helpdesk cannot be reached")]
    Unreachable,
    /// The helpdesk may have received the request.
    #[error("the helpdesk does not respond; retry")]
    Unavailable { retry_after: Option<Duration> },
    #[error(
        "the reply may or may not have been posted; repeat the call with the same key and text"
    )]
    Unconfirmed,
    #[error("the helpdesk's response is malformed")]
    Malformed,
    #[error("the helpdesk's response is larger than {bytes_max} bytes")]
    TooLarge { bytes_max: usize },
    #[error("`idempotency_key`: was used for another text on this ticket; choose a new key")]
    KeyReused,
    #[error("the deadline passed before the call completed")]
    DeadlinePassed,
    #[error("the call failed")]
    Failed(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl From<BlockingError> for TicketError {
    fn from(error: BlockingError) -> Self {
        match error {
            // A caller that has cancelled receives neither.
            BlockingError::DeadlinePassed | BlockingError::Cancelled => Self::DeadlinePassed,
            BlockingError::Failed(error) => Self::Failed(error.into()),
        }
    }
}

/// The retry delay, in whole seconds, rounded up.
fn retry_seconds(retry_after: Option<Duration>) -> u64 {
    retry_after.unwrap_or(RETRY_AFTER).as_secs_f64().ceil() as u64
}

impl TicketError {
    pub(crate) fn argument(field: &'static str, problem: &'static str) -> Self {
        Self::Argument { field, problem }
    }

    /// Whether a read may be retried.
    pub(crate) fn is_retryable(&self) -> bool {
        matches!(self, Self::Busy { .. } | Self::Unreachable | Self::Unavailable { .. })
    }

    /// The helpdesk's `Retry-After`, if any.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Busy { retry_after } | Self::Unavailable { retry_after } => *retry_after,
            _ => None,
        }
    }

    /// The `outcome` label of metrics.
    pub(crate) fn metric_label(&self) -> &'static str {
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

    /// A status with the retry delay in its details.
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
            // Not UNAVAILABLE: the model must read which key to use.
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
