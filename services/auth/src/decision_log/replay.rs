//! Decisions on recorded operations under other policies.

use drawbridge_config::policy::PrincipalSpec;
use drawbridge_proto::auth::v1::{self as pb, operation::Kind};

use super::DecisionRecord;
use crate::{
    Identity,
    policy::{DecisionOutcome, PolicyDecision, PolicyWorkspace},
};

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
    pub fn replay(&self, record: &DecisionRecord) -> Replayed {
        let Some(kind) = Kind::from_str_name(&record.operation) else { return Replayed::Same };
        let wanted = pb::CatalogItem {
            name: record.item.clone(),
            service: record.service.clone(),
            rpc: record.rpc.clone(),
            scopes: Vec::new(),
        };
        let identity = Identity::from(&PrincipalSpec::from(record));
        let arguments = record.arguments.as_ref().filter(|_| !record.arguments_redacted);
        let bytes = arguments.map(ToString::to_string);
        let decision =
            self.policies().decide(&identity, kind, &wanted, bytes.as_deref().map(str::as_bytes));
        let had_arguments = record.argument_digest.is_some();
        match decision.outcome {
            DecisionOutcome::Conditional if had_arguments && bytes.is_none() => {
                Replayed::DependsOnArguments
            }
            outcome if outcome == record.outcome => Replayed::Same,
            _ => Replayed::Changed(decision),
        }
    }
}

impl From<&DecisionRecord> for PrincipalSpec {
    fn from(record: &DecisionRecord) -> Self {
        let record = record.clone();
        Self {
            issuer: record.issuer,
            subject: record.subject,
            client: record.client_id,
            tenant: record.tenant,
            groups: record.groups,
            roles: record.roles,
            scopes: record.scopes,
            email: record.email,
            mfa: record.mfa,
            workload: record.workload,
        }
    }
}
