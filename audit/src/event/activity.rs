//! Events beside calls: delegations, revocations, approvals, changes, sign-ins, administrative acts.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::decision::Who;

/// A service asked to act for a subject (RFC 8693).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Delegation {
    /// The request's id.
    pub request_id: String,
    /// The service that wants to act.
    #[serde(flatten)]
    pub who: Who,
    /// The namespace of the service that it wants to call.
    pub service: String,
    /// The issuer of the subject that it acts for.
    pub for_issuer: String,
    /// The subject that it acts for.
    pub for_subject: String,
    /// The outcome of the policies.
    pub outcome: String,
    /// Policies that determined it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policy_ids: Vec<String>,
}

/// Tokens were revoked, or a caller without permission tried to revoke them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Revocation {
    /// The request's id.
    pub request_id: String,
    /// Who revoked.
    #[serde(flatten)]
    pub who: Who,
    /// The issuer whose tokens are revoked.
    pub of_issuer: String,
    /// What is revoked: `subject`, `session`, `token`, …
    pub what: String,
    /// Its id: a subject, session or token id, never a token.
    pub value: String,
    /// The outcome of the policies.
    pub outcome: String,
    /// Policies that determined it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policy_ids: Vec<String>,
}

/// A person answered whether a call may go on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Approval {
    /// The id of the request that was to be approved.
    pub request_id: String,
    /// Who answered.
    #[serde(flatten)]
    pub who: Who,
    /// The tool.
    pub item: String,
    /// The namespace of its service.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub service: String,
    /// `accept`, `decline` or `cancel`.
    pub answer: String,
}

/// Other policies came into force, or were rejected.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PolicyChange {
    /// The folder or URL that they come from.
    pub source: String,
    /// Their revision. Empty if they were rejected before it was known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub revision: String,
    /// The revision that was in force before. Empty: none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub previous: String,
    /// The revision of their bundle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle: Option<String>,
    /// The names of the keys that signed the bundle.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub signed_by: Vec<String>,
    /// Whether they are in force.
    pub accepted: bool,
    /// Why they are not.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub problem: String,
}

/// A file of the configuration came into force, or was rejected.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConfigChange {
    /// What it configures: `config`, `issuers`, `lock`, `entities`, …
    pub what: String,
    /// The file.
    pub source: String,
    /// SHA-256 of the file in hexadecimal.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub digest: String,
    /// Whether it is in force.
    pub accepted: bool,
    /// Why it is not.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub problem: String,
}

/// A user or program signed in at the idp, or failed to; or a client was registered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SignIn {
    /// The issuer.
    pub issuer: String,
    /// Who signed in. Empty: unknown.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub subject: String,
    /// The OAuth client.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub client_id: String,
    /// The name that the client gave itself.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub client_name: String,
    /// The client's network address.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub client_address: String,
    /// `authorization_code`, `refresh_token`, `client_credentials` or `register`.
    pub grant: String,
    /// `ok` or `failed`.
    pub outcome: String,
    /// Why it failed: an error of OAuth.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub code: String,
}

/// An administrative act.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Admin {
    /// The request's id. Empty: there was no request.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub request_id: String,
    /// Who acted, where that is known: the admin port authenticates no one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<Who>,
    /// What was done, such as `log_level`.
    pub action: String,
    /// Its value.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub value: String,
}
