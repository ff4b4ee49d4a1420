//! Errors, and their one mapping to gRPC statuses.

use std::{error::Error as _, io};

use drawbridge_sdk::BlockingError;
use tonic::Status;

/// The error of a call.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CodeError {
    #[error("`{field}`: {problem}")]
    Argument { field: &'static str, problem: String },
    #[error("no such file or folder in the source tree")]
    NotFound,
    /// The file, or a folder that contains it, may hold keys.
    #[error("access to files that may hold keys is denied")]
    Secret,
    /// A symbolic link's target is outside. An absolute target counts as outside.
    #[error("the path leads outside the source tree")]
    OutOfTree,
    #[error("the path is not a regular file")]
    NotAFile,
    #[error("the path is not a folder")]
    NotAFolder,
    #[error("the file is binary")]
    Binary,
    #[error("the file is larger than the limit of {bytes_max} bytes")]
    TooLarge { bytes_max: u64 },
    #[error("the file or folder cannot be read")]
    Unreadable(#[source] io::Error),
    #[error("the deadline passed before the call completed")]
    DeadlinePassed,
    #[error("the caller cancelled the call")]
    Cancelled,
    #[error("the call failed")]
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
            // A path with a file in place of a folder, or with an impossible name, does not exist.
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
