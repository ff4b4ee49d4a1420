//! The audit records of auth: decisions, delegations, revocations and keys.

use std::time::Duration;

use drawbridge_audit::{
    AuditLog, AuditUnavailable, Event,
    event::{Admin, AdminAction, Decision, Shadow, Who},
};
use drawbridge_proto::auth::v1::{self as pb, operation::Kind};
use drawbridge_runtime::{JsonList, RequestId, trace};
use drawbridge_transport::{LoggedCaller, REASON, log_call, transaction_token::Actor};
use tonic::{Status, metadata::AsciiMetadataValue};

use crate::{Identity, metrics::DECISIONS, policy::PolicyDecision};

/// The reason of a status, in its metadata, while the audit log is required and cannot be written.
const AUDIT_UNAVAILABLE: &str = "audit_unavailable";

/// A decision to record.
pub(crate) struct DecisionEntry<'a> {
    /// The id that names the request in the record.
    pub(crate) request_id: &'a RequestId,
    /// The id that an internal caller sent.
    pub(crate) caller_request_id: Option<&'a RequestId>,
    pub(crate) identity: &'a Identity,
    /// The service that calls on behalf of the subject.
    pub(crate) actor: Option<&'a Actor>,
    pub(crate) kind: Kind,
    pub(crate) item: &'a pb::CatalogItem,
    /// The arguments, without sensitive ones.
    pub(crate) arguments: Option<&'a [u8]>,
    /// Whether sensitive arguments were removed.
    pub(crate) redacted: bool,
    pub(crate) decision: &'a PolicyDecision,
    /// Scopes that the item requires, if the token lacks one of them.
    pub(crate) missing_scopes: &'a [String],
    pub(crate) revision: &'a str,
    pub(crate) epoch: u64,
    pub(crate) took: Duration,
}

impl DecisionEntry<'_> {
    /// Counts and logs the decision.
    pub(crate) fn log(&self) {
        let Self { request_id, caller_request_id, kind, item, decision, revision, .. } = self;
        let outcome = decision.outcome.as_str();
        DECISIONS.with([kind.as_str_name().into(), outcome.into()]).increment(1);
        log_call!(
            LoggedCaller::new(&self.identity.principal, self.actor),
            %request_id,
            caller_request_id = caller_request_id.map(RequestId::as_str),
            item = item.name,
            operation = kind.as_str_name(),
            outcome,
            "missing_scopes[]" = %JsonList(self.missing_scopes),
            "policy_ids[]" = %JsonList(&decision.policy_ids),
            shadow = decision.shadow.as_ref().map(tracing::field::debug),
            policy_revision = revision,
            "decision"
        );
    }

    /// The audit record of the decision.
    pub(crate) fn event(&self, audit: &AuditLog) -> Event {
        let Self { item, arguments, decision, .. } = self;
        let recorded = arguments.filter(|_| audit.has_arguments());
        Event::Decision(Box::new(Decision {
            request_id: self.request_id.to_string(),
            caller_request_id: self.caller_request_id.map(ToString::to_string),
            trace_id: trace::current_id().unwrap_or_default(),
            who: who(self.identity, self.actor),
            operation: self.kind.as_str_name().to_owned(),
            item: item.name.clone(),
            service: item.service.clone(),
            rpc: item.rpc.clone(),
            argument_digest: arguments.map(|arguments| audit.digest(arguments)),
            arguments: recorded.and_then(|arguments| serde_json::from_slice(arguments).ok()),
            arguments_redacted: recorded.is_some() && self.redacted,
            outcome: decision.outcome.as_str().to_owned(),
            missing_scopes: self.missing_scopes.to_vec(),
            policy_ids: decision.policy_ids.clone(),
            shadow: decision.shadow.as_ref().map(|shadow| Shadow {
                outcome: shadow.outcome.as_str().to_owned(),
                policy_ids: shadow.policy_ids.clone(),
            }),
            policy_revision: self.revision.to_owned(),
            epoch: self.epoch,
            latency_us: u64::try_from(self.took.as_micros()).unwrap_or(u64::MAX),
        }))
    }
}

/// A caller, with all that a policy may read of it.
pub(crate) fn who(identity: &Identity, actor: Option<&Actor>) -> Who {
    let pb::Principal { issuer, subject, client_id, tenant, scopes, .. } = &identity.principal;
    Who {
        issuer: issuer.clone(),
        subject: subject.clone(),
        client_id: client_id.clone(),
        tenant: tenant.clone(),
        groups: identity.groups.clone(),
        roles: identity.roles.clone(),
        email: identity.email.clone(),
        mfa: identity.mfa,
        workload: identity.workload,
        scopes: scopes.clone(),
        actor: actor.and_then(|actor| serde_json::to_value(actor).ok()),
    }
}

/// Records that this key signs transaction tokens from now on.
pub(crate) fn key_signs(audit: &AuditLog, id: &str) {
    audit.record(Event::Admin(Box::new(Admin::new(AdminAction::TransactionKey, id))));
}

/// The status of a request that cannot be recorded.
pub(crate) fn unrecorded(error: &AuditUnavailable) -> Status {
    let mut status = Status::unavailable(format!("{error}; retry"));
    status.metadata_mut().insert(REASON, AsciiMetadataValue::from_static(AUDIT_UNAVAILABLE));
    status
}
