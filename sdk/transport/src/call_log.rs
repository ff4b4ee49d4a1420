//! The log lines of calls: one home for the fields that say who calls.

use drawbridge_proto::auth::v1 as pb;

use crate::transaction_token::{Actor, TransactionClaims};

/// Who calls, as log lines name it. A field without a value is left out.
#[derive(Clone, Copy, Debug)]
pub struct LoggedCaller<'a> {
    /// The issuer of the subject.
    pub issuer: &'a str,
    /// The subject at that issuer.
    pub subject: &'a str,
    /// The OAuth client through which it calls.
    pub client_id: &'a str,
    /// The tenant.
    pub tenant: Option<&'a str>,
    /// The service that acts for the subject.
    pub actor: Option<&'a str>,
}

impl<'a> LoggedCaller<'a> {
    /// The caller, for whom a service may act.
    #[must_use]
    pub fn new(principal: &'a pb::Principal, actor: Option<&'a Actor>) -> Self {
        Self {
            issuer: &principal.issuer,
            subject: &principal.subject,
            client_id: &principal.client_id,
            tenant: Some(principal.tenant.as_str()).filter(|tenant| !tenant.is_empty()),
            actor: actor.map(|actor| actor.sub.as_str()),
        }
    }
}

impl<'a> From<&'a TransactionClaims> for LoggedCaller<'a> {
    fn from(claims: &'a TransactionClaims) -> Self {
        Self {
            issuer: &claims.tctx.iss,
            subject: &claims.sub,
            client_id: &claims.tctx.client_id,
            tenant: claims.tctx.tenant.as_deref(),
            actor: claims.act.as_ref().map(|actor| actor.sub.as_str()),
        }
    }
}

/// Logs an event of a call at level `info`: the fields of a [`LoggedCaller`], then further fields
/// and the message, as in `tracing::info!`.
#[macro_export]
macro_rules! log_call {
    ($caller:expr, $($rest:tt)+) => {{
        let caller: $crate::LoggedCaller<'_> = $caller;
        ::tracing::info!(
            issuer = caller.issuer,
            subject = caller.subject,
            client_id = caller.client_id,
            tenant = caller.tenant,
            actor = caller.actor,
            $($rest)+
        );
    }};
}
