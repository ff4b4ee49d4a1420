//! Decisions of auth.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::is_false;

/// A principal with all that a policy may read of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Who {
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
    #[serde(default, skip_serializing_if = "is_false")]
    pub mfa: bool,
    /// Whether the caller is a program that acts on its own behalf.
    #[serde(default, skip_serializing_if = "is_false")]
    pub workload: bool,
    /// Scopes of the token.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<String>,
    /// The service that called on behalf of the subject, with its own callers, as the claim `act`
    /// (RFC 8693 section 4.1). Absent: the subject called directly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<Value>,
}

/// A decision of auth. It never contains a token or a sensitive argument.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Decision {
    /// The request's id: from the edge, or for an exchange from auth.
    pub request_id: String,
    /// The id that the caller of an exchange sent. Informational only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caller_request_id: Option<String>,
    /// The trace id in hexadecimal. Empty: no trace.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub trace_id: String,
    /// The caller.
    #[serde(flatten)]
    pub who: Who,
    /// The operation: a kind of `drawbridge.auth.v1.Operation`, such as `KIND_CALL_TOOL`.
    pub operation: String,
    /// The name of the tool, resource or prompt.
    pub item: String,
    /// The namespace of its service.
    pub service: String,
    /// Its RPC.
    pub rpc: String,
    /// The keyed digest of the arguments without sensitive ones, `hmac-sha256:<key id>:<hex>`.
    /// Absent: no arguments were given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub argument_digest: Option<String>,
    /// The arguments without sensitive ones. Recorded only if configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arguments: Option<Value>,
    /// Whether arguments were omitted from `arguments`: sensitive ones, or all because they are
    /// too large.
    #[serde(default, skip_serializing_if = "is_false")]
    pub arguments_redacted: bool,
    /// The outcome of the policies: `allow`, `conditional`, `not_permitted`, `forbidden`, …
    pub outcome: String,
    /// Scopes that the item requires, if the token lacks one of them: the caller was then refused
    /// whatever the policies decided.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing_scopes: Vec<String>,
    /// Policies that determined the outcome.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policy_ids: Vec<String>,
    /// What shadow policies would have decided, if different.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shadow: Option<Shadow>,
    /// The revision of the policies.
    pub policy_revision: String,
    /// The epoch of the decision.
    #[serde(default)]
    pub epoch: u64,
    /// Duration of the decision in microseconds.
    pub latency_us: u64,
}

/// The effect that shadow policies would have had.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Shadow {
    /// The outcome with the shadow policies.
    pub outcome: String,
    /// Policies that would have determined it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policy_ids: Vec<String>,
}
