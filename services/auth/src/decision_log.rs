//! Records of decisions: one line of JSON each.

use drawbridge_transport::transaction_token::Actor;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::policy::DecisionOutcome;

pub use self::replay::Replayed;
pub(crate) use self::writer::{DecisionEntry, DecisionLog};
pub use self::writer::{DecisionLogConfig, DecisionLogError};

mod files;
mod replay;
mod writer;

/// One decision. It never contains a token or a sensitive argument.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DecisionRecord {
    /// When the decision was made (RFC 3339).
    pub time: String,
    /// The request's id: from the edge, or for an exchange from auth.
    pub request_id: String,
    /// The id that the caller of an exchange sent. Informational only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caller_request_id: Option<String>,
    /// The trace id in hexadecimal. Empty: no trace.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub trace_id: String,
    /// The issuer of the subject.
    pub issuer: String,
    /// The caller.
    pub subject: String,
    /// The OAuth client of the caller.
    pub client_id: String,
    /// The tenant. Empty: no tenant.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub tenant: String,
    /// Groups in the token.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// Roles in the token.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<String>,
    /// The user's email address. A policy may read it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// Whether the user authenticated with more than one factor.
    #[serde(default)]
    pub mfa: bool,
    /// Whether the caller is a program that acts on its own behalf.
    #[serde(default)]
    pub workload: bool,
    /// Scopes of the token.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<String>,
    /// The service that called on behalf of the subject, with its own callers. Absent: the subject
    /// called directly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<Actor>,
    /// The operation: a kind of `drawbridge.auth.v1.Operation`, such as `KIND_CALL_TOOL`.
    pub operation: String,
    /// The name of the tool, resource or prompt.
    pub item: String,
    /// The namespace of its service.
    pub service: String,
    /// Its RPC.
    pub rpc: String,
    /// SHA-256 of the arguments without sensitive ones, in hexadecimal. Absent: no arguments were
    /// given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub argument_digest: Option<String>,
    /// The arguments without sensitive ones. Recorded only if configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arguments: Option<Value>,
    /// Whether sensitive arguments were omitted from `arguments`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub arguments_redacted: bool,
    /// The outcome of the policies.
    pub outcome: DecisionOutcome,
    /// Scopes that the item requires, if the token lacks one of them: the caller was then refused
    /// whatever the policies decided.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing_scopes: Vec<String>,
    /// Policies that determined the outcome.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policy_ids: Vec<String>,
    /// What shadow policies would have decided, if different.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shadow: Option<ShadowRecord>,
    /// The revision of the policies.
    pub policy_revision: String,
    /// Duration of the decision in microseconds.
    pub latency_us: u64,
}

/// The effect that shadow policies would have had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShadowRecord {
    /// The outcome with the shadow policies.
    pub outcome: DecisionOutcome,
    /// Policies that would have determined it.
    pub policy_ids: Vec<String>,
}
