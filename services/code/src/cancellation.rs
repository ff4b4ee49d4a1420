use std::time::Instant;

use tokio_util::sync::CancellationToken;

use crate::error::CodeError;

/// Whether somebody still waits for the work.
#[derive(Clone, Debug)]
pub(crate) struct Cancellation {
    /// Cancelled when the caller has gone.
    pub(crate) gone: CancellationToken,
    /// When the caller stops waiting.
    pub(crate) deadline: Instant,
}

impl Cancellation {
    /// Fails when nobody waits any more. Cheap enough to ask for every file.
    pub(crate) fn check(&self) -> Result<(), CodeError> {
        if self.gone.is_cancelled() {
            return Err(CodeError::Cancelled);
        }
        if Instant::now() >= self.deadline {
            return Err(CodeError::DeadlinePassed);
        }
        Ok(())
    }
}
