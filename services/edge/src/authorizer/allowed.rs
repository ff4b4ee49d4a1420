//! What auth allows.

use std::{sync::Arc, time::SystemTime};

use drawbridge_proto::auth::v1 as pb;
use drawbridge_runtime::RequestId;
use secrecy::SecretString;

use crate::refusal::Refusal;

/// A decision that allows an operation.
#[derive(Clone, Debug)]
pub(crate) struct Allowed {
    pub(crate) principal: Arc<pb::Principal>,
    /// The epoch of the decision. A cache entry is valid in this epoch only.
    pub(crate) epoch: u64,
    /// When the access token expires.
    pub(crate) expires_at: Option<SystemTime>,
    pub(super) token: Option<Arc<SecretString>>,
    pub(crate) decision: Arc<pb::Decision>,
    /// The request in which auth made the decision, by whose id it recorded it.
    pub(crate) decided_in: RequestId,
    /// Whether an earlier request asked for the decision.
    pub(crate) is_cached: bool,
}

/// The admitted caller, and how long its admission is valid.
#[derive(Clone, Debug)]
pub(crate) struct Grant {
    pub(crate) principal: Arc<pb::Principal>,
    /// The epoch of the decision, or `NO_EPOCH` if it is unknown.
    pub(crate) epoch: u64,
    /// When the access token expires.
    pub(crate) expires_at: Option<SystemTime>,
}

impl Allowed {
    pub(crate) fn grant(&self) -> Grant {
        let Self { principal, epoch, expires_at, .. } = self.clone();
        Grant { principal, epoch, expires_at }
    }

    /// The transaction token, for an operation that reaches a tool service.
    pub(crate) fn token(&self) -> Result<Arc<SecretString>, Refusal> {
        self.token.clone().ok_or(Refusal::AuthUnavailable)
    }
}

impl Allowed {
    pub(super) fn new(allowed: pb::Allowed, decided_in: RequestId) -> Self {
        Self {
            decided_in,
            is_cached: false,
            principal: Arc::new(allowed.principal.unwrap_or_default()),
            epoch: allowed.epoch,
            expires_at: allowed.expires_at.and_then(|time| time.try_into().ok()),
            token: allowed.transaction_token.map(|token| Arc::new(token.token.into())),
            decision: Arc::new(allowed.decision.unwrap_or_default()),
        }
    }
}
