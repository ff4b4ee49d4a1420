//! What can go wrong, and the one place that says so to gRPC callers.

use std::error::Error as _;

use tonic::Status;

/// Why a call fails.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InvoiceError {
    /// The document is none that is read here.
    #[error("`document`: {0}")]
    Document(String),
    #[error("`media_type`: must be application/xml, text/xml or application/pdf")]
    MediaType,
    #[error("the extracted invoice would be larger than {bytes_max} bytes")]
    ResultTooLarge { bytes_max: usize },
    #[error("the deadline passed before the work was done")]
    DeadlinePassed,
    #[error("the caller no longer waits")]
    Cancelled,
    #[error("the work failed")]
    Failed(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl InvoiceError {
    pub(crate) fn document(problem: impl Into<String>) -> Self {
        Self::Document(problem.into())
    }
}

impl From<InvoiceError> for Status {
    fn from(error: InvoiceError) -> Self {
        let message = error.to_string();
        match error {
            InvoiceError::Document(_) | InvoiceError::MediaType => Self::invalid_argument(message),
            InvoiceError::ResultTooLarge { .. } => Self::resource_exhausted(message),
            InvoiceError::DeadlinePassed => Self::deadline_exceeded(message),
            InvoiceError::Cancelled => Self::cancelled(message),
            InvoiceError::Failed(_) => {
                tracing::error!(error = error.source(), "{message}");
                Self::internal(message)
            }
        }
    }
}
