//! What can go wrong, and the one place that says so to gRPC callers.

use std::{error::Error as _, io};

use drawbridge_sdk::BlockingError;
use tonic::Status;

/// Why a call fails.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CodeError {
    #[error("`{field}`: {problem}")]
    Argument { field: &'static str, problem: String },
    #[error("there is no such file or folder in the source tree")]
    NotFound,
    /// The configured list names it, or a folder that it lies in.
    #[error("files that may hold keys are not shown")]
    Secret,
    /// A symbolic link's target lies outside. An absolute target counts as outside.
    #[error("the path leads out of the source tree")]
    OutOfTree,
    #[error("the path names no regular file")]
    NotAFile,
    #[error("the path names no folder")]
    NotAFolder,
    #[error("binary file")]
    Binary,
    #[error("the file is larger than the limit of {bytes_max} bytes")]
    TooLarge { bytes_max: u64 },
    #[error("the file or folder cannot be read")]
    Unreadable(#[source] io::Error),
    #[error("the deadline passed before the work was done")]
    DeadlinePassed,
    #[error("the caller no longer waits")]
    Cancelled,
    #[error("the work failed")]
    Failed(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl CodeError {
    pub(crate) fn argument(field: &'static str, problem: impl Into<String>) -> Self {
        Self::Argument { field, problem: problem.into() }
    }
}

impl From<BlockingError> for CodeError {
    fn from(error: BlockingError) -> Self {
        match error {
            BlockingError::DeadlinePassed => Self::DeadlinePassed,
            BlockingError::Cancelled => Self::Cancelled,
            BlockingError::Failed(error) => Self::Failed(error.into()),
        }
    }
}

/// Errors of the confined tree.
impl From<io::Error> for CodeError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            // What has a file for a folder, or a name that no file can have, does not exist.
            io::ErrorKind::NotFound
            | io::ErrorKind::NotADirectory
            | io::ErrorKind::InvalidFilename => Self::NotFound,
            // The operating system's refusals carry its code; cap-std's own are escapes.
            io::ErrorKind::PermissionDenied if error.raw_os_error().is_none() => Self::OutOfTree,
            _ => Self::Unreadable(error),
        }
    }
}

impl From<CodeError> for Status {
    fn from(error: CodeError) -> Self {
        let message = error.to_string();
        match error {
            CodeError::Argument { .. } => Self::invalid_argument(message),
            CodeError::NotFound => Self::not_found(message),
            CodeError::OutOfTree | CodeError::Secret => Self::permission_denied(message),
            CodeError::NotAFile
            | CodeError::NotAFolder
            | CodeError::Binary
            | CodeError::TooLarge { .. } => Self::failed_precondition(message),
            CodeError::DeadlinePassed => Self::deadline_exceeded(message),
            CodeError::Cancelled => Self::cancelled(message),
            CodeError::Unreadable(ref source)
                if source.kind() == io::ErrorKind::PermissionDenied =>
            {
                Self::permission_denied(message)
            }
            CodeError::Unreadable(_) | CodeError::Failed(_) => {
                tracing::error!(error = error.source(), "{message}");
                Self::internal(message)
            }
        }
    }
}
