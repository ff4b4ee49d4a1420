//! What is kept of a decision: one line of JSON for each.

use drawbridge_sdk::identity::Actor;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::policy::Answer;

pub(crate) use self::writer::{Decided, DecisionLog};
pub use self::writer::{DecisionLogConfig, DecisionLogError};

mod files;
mod writer;

/// One decision. No token and no sensitive argument is ever in it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DecisionRecord {
    /// When it was made (RFC 3339).
    pub time: String,
    /// The request's id: the edge's own, or for an exchange auth's own.
    pub request_id: String,
    /// What the caller of an exchange calls the request. Nothing goes by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caller_request_id: Option<String>,
    /// The trace's id, in hexadecimal. Empty: there is none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub trace_id: String,
    /// Who vouches for the subject.
    pub issuer: String,
    /// Who called.
    pub subject: String,
    /// Through which OAuth client.
    pub client_id: String,
    /// The tenant. Empty: none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub tenant: String,
    /// Groups that the token names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// Roles that the token names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<String>,
    /// The person's address. A policy may read it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// Whether the person showed more than one factor.
    #[serde(default)]
    pub mfa: bool,
    /// Whether a program called in its own name.
    #[serde(default)]
    pub workload: bool,
    /// Scopes that the token holds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<String>,
    /// The service that called in their name, with those that called it. Absent: they called themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<Actor>,
    /// What was to be done: a kind of `drawbridge.auth.v1.Operation`, such as `KIND_CALL_TOOL`.
    pub operation: String,
    /// The tool's, resource's or prompt's name.
    pub item: String,
    /// Its service's namespace.
    pub service: String,
    /// The RPC behind it.
    pub rpc: String,
    /// SHA-256 of the arguments without those that are sensitive, in hexadecimal. Absent: they were not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub argument_digest: Option<String>,
    /// The arguments without those that are sensitive. Kept only when the configuration says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arguments: Option<Value>,
    /// Whether sensitive arguments were left out of `arguments`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub arguments_redacted: bool,
    /// How policy decided.
    pub outcome: Answer,
    /// Scopes that the item asks for, when the token lacks one of them: then the caller was refused whatever policy
    /// says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing_scopes: Vec<String>,
    /// Policies that decided.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policy_ids: Vec<String>,
    /// Shadow policies that would have decided otherwise, with the answer that would have been.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shadow: Option<ShadowRecord>,
    /// The revision of the policies.
    pub policy_revision: String,
    /// How long the decision took, in microseconds.
    pub latency_us: u64,
}

/// What shadow policies would have changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShadowRecord {
    /// The outcome that would have been.
    pub outcome: Answer,
    /// Policies that would have decided.
    pub policy_ids: Vec<String>,
}
