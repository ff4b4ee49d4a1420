//! Outcomes of requests at the edge.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{is_false, is_zero};

/// An authenticated caller, as the edge knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Caller {
    /// The issuer of the subject.
    pub issuer: String,
    /// The caller.
    pub subject: String,
    /// The OAuth client of the caller.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub client_id: String,
    /// The tenant. Empty: no tenant.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub tenant: String,
    /// Whether the caller is a program that acts on its own behalf.
    #[serde(default, skip_serializing_if = "is_false")]
    pub workload: bool,
}

/// What became of one request of a client.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Call {
    /// The request's id.
    pub request_id: String,
    /// The id that the client sent. Informational only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caller_request_id: Option<String>,
    /// The trace id in hexadecimal. Empty: no trace.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub trace_id: String,
    /// The client's network address.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub client_address: String,
    /// The caller. Absent: it was not authenticated.
    #[serde(default, flatten, skip_serializing_if = "Option::is_none")]
    pub who: Option<Caller>,
    /// The MCP method, or `other`.
    pub method: String,
    /// The MCP protocol version.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub revision: String,
    /// The operation that was decided on, such as `KIND_CALL_TOOL`. Empty: none was.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub operation: String,
    /// The name of the tool, resource or prompt.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub item: String,
    /// The namespace of its service.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub service: String,
    /// Its RPC.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub rpc: String,
    /// The keyed digest of the arguments without sensitive ones, `hmac-sha256:<key id>:<hex>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub argument_digest: Option<String>,
    /// The decision of auth. Absent: the request was refused before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<DecisionRef>,
    /// What became of it.
    pub outcome: CallOutcome,
    /// Why, where the outcome is not `ok`: a reason of the edge, a JSON-RPC or a gRPC code.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub code: String,
    /// How long it took, in microseconds.
    pub duration_us: u64,
    /// The size of the request's body, in bytes.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub bytes_in: u64,
    /// The size of the response's body, in bytes.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub bytes_out: u64,
    /// How the result cache was used: `hit`, `miss` or `bypass`. Empty: not at all.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub cache: String,
    /// How many places each guard changed.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub guards: BTreeMap<String, u64>,
    /// What the client was asked during the call.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub questions: Vec<Question>,
    /// How many refusals of unauthenticated callers were not recorded one by one since the last
    /// such record.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub suppressed: u64,
}

/// A reference to a decision of auth.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DecisionRef {
    /// The request id of the decision's record in auth's log.
    pub request_id: String,
    /// The epoch of the decision.
    pub epoch: u64,
    /// Policies that determined it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policy_ids: Vec<String>,
    /// The revision of the policies.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub policy_revision: String,
    /// Whether a decision on an earlier request was used again.
    #[serde(default, skip_serializing_if = "is_false")]
    pub cached: bool,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CallOutcome {
    /// It was answered.
    #[default]
    Ok,
    /// The tool answered with an error (`isError`).
    ToolError,
    /// Auth denied it.
    Denied,
    /// The edge refused it: an invalid token or request, a limit, a guard, a full queue.
    Refused,
    /// The client went away or cancelled it.
    Cancelled,
    /// It failed in the edge or behind it.
    Failed,
}

/// A question to the client during a call.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Question {
    /// `form`, `url`, `sampling` or `roots`.
    pub kind: String,
    /// `accept`, `decline`, `cancel`, `answered` or `none`.
    pub answer: String,
}
