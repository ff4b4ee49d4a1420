//! Events beside calls: delegations, revocations, approvals, changes, sign-ins, administrative acts.

use drawbridge_runtime::{OperatorAct, OperatorActKind};
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
    /// Who acted, where that is known: a signal and a changed file name no one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<Who>,
    /// What was done: a kind of administrative act, such as `log_filter`.
    pub action: String,
    /// What is in effect now, such as the text of the filter.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub value: String,
    /// Why it is not in effect. Empty: it is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub problem: String,
}

/// What administrative acts there are, by the field `action` of their records. Changes of policies
/// and of other files of the configuration, and revocations, are events of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdminAction {
    /// The log filter was changed.
    LogFilter,
    /// The certificate for clients was renewed.
    Certificate,
    /// The certificate for other services, or what it trusts, was renewed.
    Mtls,
    /// Another key signs transaction tokens.
    TransactionKey,
    /// The service was asked to stop.
    Drain,
}

impl AdminAction {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::LogFilter, Self::Certificate, Self::Mtls, Self::TransactionKey, Self::Drain];

    /// The value of the field `action`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::LogFilter => "log_filter",
            Self::Certificate => "certificate",
            Self::Mtls => "mtls",
            Self::TransactionKey => "transaction_key",
            Self::Drain => "drain",
        }
    }

    /// Which services record it, what it is, and its value, for the reference page.
    #[must_use]
    pub const fn about(self) -> [&'static str; 3] {
        match self {
            Self::LogFilter => [
                "all",
                "the file of `--log-filter-file` has another filter, or one that is invalid",
                "the filter",
            ],
            Self::Certificate => [
                "edge",
                "the files of `--tls-certificate-file` have another certificate, or cannot be used",
                "the certificate's SHA-256",
            ],
            Self::Mtls => [
                "all",
                "the files of `--mtls-…` have another certificate or other authorities, or cannot \
                 be used",
                "SHA-256 of the certificate and of the file of authorities",
            ],
            Self::TransactionKey => [
                "auth",
                "a key signs transaction tokens: the first one of a process, or the next one after \
                 `--transaction-key-seconds`",
                "the key's id (RFC 7638)",
            ],
            Self::Drain => ["all", "SIGTERM or Ctrl-C: the service drains, then stops", ""],
        }
    }
}

impl From<OperatorActKind> for AdminAction {
    fn from(kind: OperatorActKind) -> Self {
        match kind {
            OperatorActKind::LogFilter => Self::LogFilter,
            OperatorActKind::Certificate => Self::Certificate,
            OperatorActKind::Mtls => Self::Mtls,
            OperatorActKind::Drain => Self::Drain,
        }
    }
}

impl Admin {
    /// What an operator did to the running service.
    pub(crate) fn of(act: &OperatorAct) -> Self {
        let problem = act.problem.clone().unwrap_or_default();
        Self { problem, ..Self::new(act.kind.into(), act.value.clone()) }
    }

    /// An act of someone unknown: a signal and a changed file name no one.
    #[must_use]
    pub fn new(action: AdminAction, value: impl Into<String>) -> Self {
        Self { action: action.name().to_owned(), value: value.into(), ..Self::default() }
    }
}
