//! The log lines of calls: one home for the fields that say who calls.

use drawbridge_proto::auth::v1 as pb;
use drawbridge_runtime::log_pseudonym;

use crate::transaction_token::{Actor, TransactionClaims};

/// Who calls, as log lines name it. A field without a value is left out.
#[derive(Clone, Debug)]
pub struct LoggedCaller<'a> {
    /// The pseudonym of the principal.
    pub pseudonym: Option<String>,
    /// The issuer of the subject, if principals are logged (`--log-principals`).
    pub issuer: Option<&'a str>,
    /// The subject at that issuer, if principals are logged.
    pub subject: Option<&'a str>,
    /// The OAuth client through which it calls.
    pub client_id: Option<&'a str>,
    /// The tenant.
    pub tenant: Option<&'a str>,
    /// The service that acts for the subject.
    pub actor: Option<&'a str>,
}

impl<'a> LoggedCaller<'a> {
    /// The caller, for whom a service may act.
    #[must_use]
    pub fn new(principal: &'a pb::Principal, actor: Option<&'a Actor>) -> Self {
        let pb::Principal { issuer, subject, client_id, tenant, .. } = principal;
        Self::of(issuer, subject, client_id, tenant, actor)
    }

    /// A caller that is not authenticated.
    #[must_use]
    pub fn anonymous() -> Self {
        Self {
            pseudonym: None,
            issuer: None,
            subject: None,
            client_id: None,
            tenant: None,
            actor: None,
        }
    }

    fn of(
        issuer: &'a str,
        subject: &'a str,
        client_id: &'a str,
        tenant: &'a str,
        actor: Option<&'a Actor>,
    ) -> Self {
        let (pseudonym, is_named) = log_pseudonym(issuer, subject, tenant);
        Self {
            pseudonym,
            issuer: is_named.then_some(issuer),
            subject: is_named.then_some(subject),
            client_id: Some(client_id),
            tenant: Some(tenant).filter(|tenant| !tenant.is_empty()),
            actor: actor.map(|actor| actor.sub.as_str()),
        }
    }
}

impl<'a> From<&'a TransactionClaims> for LoggedCaller<'a> {
    fn from(claims: &'a TransactionClaims) -> Self {
        let (context, tenant) = (&claims.tctx, claims.tctx.tenant.as_deref().unwrap_or_default());
        Self::of(&context.iss, &claims.sub, &context.client_id, tenant, claims.act.as_deref())
    }
}

/// Logs an event of a call at level `info`: the fields of a [`LoggedCaller`], then further fields
/// and the message, as in `tracing::info!`.
#[macro_export]
macro_rules! log_call {
    ($caller:expr, $($rest:tt)+) => {{
        let caller: $crate::LoggedCaller<'_> = $caller;
        ::tracing::info!(
            enduser.pseudo.id = caller.pseudonym,
            issuer = caller.issuer,
            subject = caller.subject,
            client_id = caller.client_id,
            tenant = caller.tenant,
            actor = caller.actor,
            $($rest)+
        );
    }};
}
