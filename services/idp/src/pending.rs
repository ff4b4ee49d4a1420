//! Authorization requests that wait for their users.

use std::sync::{Arc, atomic::AtomicU32};

use crate::{
    client::{Client, RedirectUri},
    grant::{Challenge, Scopes},
};

/// Where the response is sent. It exists only for a known client and one of its redirect URIs.
pub(crate) struct Callback {
    pub(crate) uri: RedirectUri,
    pub(crate) state: Option<String>,
}

/// A checked request.
pub(crate) struct AuthorizationRequest {
    pub(crate) client: Arc<Client>,
    pub(crate) callback: Callback,
    pub(crate) challenge: Challenge,
    pub(crate) resource: String,
    pub(crate) scopes: Scopes,
}

/// A request that is waiting for its user.
pub(crate) struct Pending {
    pub(crate) request: AuthorizationRequest,
    pub(crate) attempts: AtomicU32,
}
