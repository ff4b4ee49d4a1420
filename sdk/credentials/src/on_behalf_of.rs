use std::sync::Arc;

use secrecy::SecretString;

use drawbridge_transport::transaction_token::VerifiedCaller;

/// On whose behalf credentials are requested.
#[derive(Clone, Copy, Debug)]
pub(super) enum OnBehalfOf<'a> {
    Caller(&'a VerifiedCaller),
    /// The service itself.
    Service,
}

impl OnBehalfOf<'_> {
    /// The transaction token of the caller.
    pub(super) fn token(self) -> Option<Arc<SecretString>> {
        match self {
            Self::Caller(caller) => Some(Arc::clone(&caller.token)),
            Self::Service => None,
        }
    }
}
