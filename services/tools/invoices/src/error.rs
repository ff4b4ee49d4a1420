//! Errors, and their one mapping to gRPC statuses.

use std::error::Error as _;

use drawbridge_sdk::{BlockingError, ConfirmationError};
use tonic::Status;

use crate::store::{ColumnsError, StoreError, search::FilterError};

/// The error of a call.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InvoiceError {
    /// The document is invalid or unsupported.
    #[error("`document`: {0}")]
    Document(String),
    #[error("`media_type`: must be application/xml, text/xml or application/pdf")]
    MediaType,
    #[error("`{field}`: {problem}")]
    Argument { field: &'static str, problem: &'static str },
    #[error("no such invoice, or not visible to this caller")]
    NotFound,
    #[error("`shared`: the caller has no tenant to share the invoice with")]
    NoTenant,
    #[error("not approved: the confirmation was not given")]
    NotConfirmed,
    #[error("not approved: above the limit, a person must approve directly and confirm")]
    PersonNeeded,
    #[error("no authenticated caller")]
    Unknown,
    #[error("the extracted invoice would be larger than {bytes_max} bytes")]
    ResultTooLarge { bytes_max: usize },
    #[error("the deadline passed before the call completed")]
    DeadlinePassed,
    #[error("the caller cancelled the call")]
    Cancelled,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the call failed")]
    Failed(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl InvoiceError {
    pub(crate) fn document(problem: impl Into<String>) -> Self {
        Self::Document(problem.into())
    }
}

impl From<BlockingError> for InvoiceError {
    fn from(error: BlockingError) -> Self {
        match error {
            BlockingError::DeadlinePassed => Self::DeadlinePassed,
            BlockingError::Cancelled => Self::Cancelled,
            BlockingError::Failed(error) => Self::Failed(error.into()),
        }
    }
}

impl From<ConfirmationError> for InvoiceError {
    fn from(error: ConfirmationError) -> Self {
        match error {
            ConfirmationError::Declined => Self::NotConfirmed,
            ConfirmationError::NoPerson => Self::PersonNeeded,
        }
    }
}

impl From<ColumnsError> for InvoiceError {
    fn from(error: ColumnsError) -> Self {
        Self::document(error.to_string())
    }
}

impl From<FilterError> for InvoiceError {
    fn from(FilterError { field, problem }: FilterError) -> Self {
        Self::Argument { field, problem }
    }
}

impl From<InvoiceError> for Status {
    fn from(error: InvoiceError) -> Self {
        let message = error.to_string();
        match error {
            InvoiceError::Document(_) | InvoiceError::MediaType | InvoiceError::Argument { .. } => {
                Self::invalid_argument(message)
            }
            InvoiceError::NotFound => Self::not_found(message),
            InvoiceError::NoTenant | InvoiceError::NotConfirmed => {
                Self::failed_precondition(message)
            }
            InvoiceError::PersonNeeded => Self::permission_denied(message),
            InvoiceError::Unknown => Self::unauthenticated(message),
            InvoiceError::ResultTooLarge { .. } => Self::resource_exhausted(message),
            InvoiceError::DeadlinePassed => Self::deadline_exceeded(message),
            InvoiceError::Cancelled => Self::cancelled(message),
            InvoiceError::Store(error) => store_status(error),
            InvoiceError::Failed(_) => {
                tracing::error!(error = error.source(), "{message}");
                Self::internal(message)
            }
        }
    }
}

/// Tells the caller whether to retry, and nothing about the database.
fn store_status(error: StoreError) -> Status {
    let message = error.to_string();
    match error {
        StoreError::Credentials(error) => error.into(),
        StoreError::OtherDocument { .. } => Status::already_exists(message),
        StoreError::Nul => Status::invalid_argument(message),
        StoreError::Timeout => Status::deadline_exceeded(message),
        StoreError::Unavailable(_) | StoreError::Schema { .. } => {
            tracing::warn!(error = error.source(), "{message}");
            Status::unavailable("the invoice store is unavailable; retry")
        }
        StoreError::Migrate(_) | StoreError::Database(_) => {
            tracing::error!(error = error.source(), "{message}");
            Status::internal("the call failed")
        }
    }
}
