//! Decisions on recorded operations under other policies.

use drawbridge_audit::event::Decision;
use drawbridge_config::policy::PrincipalSpec;
use drawbridge_proto::auth::v1::{self as pb, operation::Kind};

use super::{DecisionOutcome, PolicyDecision, PolicyWorkspace};
use crate::Identity;

/// The outcome of a recorded decision under these policies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Replayed {
    /// The recorded outcome.
    Same,
    /// Another outcome.
    Changed(PolicyDecision),
    /// It depends on the arguments, which were not recorded.
    DependsOnArguments,
}

impl PolicyWorkspace {
    /// Decides a recorded operation again.
    #[must_use]
    pub fn replay(&self, record: &Decision) -> Replayed {
        let Some(kind) = Kind::from_str_name(&record.operation) else { return Replayed::Same };
        let wanted = pb::CatalogItem {
            name: record.item.clone(),
            service: record.service.clone(),
            rpc: record.rpc.clone(),
            scopes: Vec::new(),
        };
        let identity = Identity::from(&recorded_principal(record));
        let arguments = record.arguments.as_ref().filter(|_| !record.arguments_redacted);
        let bytes = arguments.map(ToString::to_string);
        let decision =
            self.policies().decide(&identity, kind, &wanted, bytes.as_deref().map(str::as_bytes));
        let had_arguments = record.argument_digest.is_some();
        match decision.outcome {
            DecisionOutcome::Conditional if had_arguments && bytes.is_none() => {
                Replayed::DependsOnArguments
            }
            outcome if outcome.as_str() == record.outcome => Replayed::Same,
            _ => Replayed::Changed(decision),
        }
    }
}

/// The caller of a recorded decision.
#[must_use]
pub fn recorded_principal(record: &Decision) -> PrincipalSpec {
    let who = record.who.clone();
    PrincipalSpec {
        issuer: who.issuer,
        subject: who.subject,
        client: who.client_id,
        tenant: who.tenant,
        groups: who.groups,
        roles: who.roles,
        scopes: who.scopes,
        email: who.email,
        mfa: who.mfa,
        workload: who.workload,
    }
}
