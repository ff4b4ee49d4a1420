//! A call and its outcome.

use std::time::{Duration, Instant};

use http::StatusCode;
use serde_json::json;

use super::callers::Caller;
use crate::{Client, Reply};

/// What became of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It has a result.
    Allowed,
    /// Policy denied it: the tool does not exist for the caller, or not with these arguments.
    Denied,
    /// Its token was not accepted.
    Unauthenticated,
    /// It has another error.
    Failed {
        /// The HTTP status; absent if there was no response.
        status: Option<u16>,
        /// Whether the error says that a retry makes sense.
        is_retryable: bool,
        /// What the client was sent, or how the connection ended.
        text: String,
    },
}

/// A call and its outcome.
#[derive(Clone, Debug)]
pub struct Call {
    /// What it called.
    pub tool: &'static str,
    /// Whether policy permits it.
    pub is_permitted: bool,
    /// When it began.
    pub began: Instant,
    /// How long it took.
    pub took: Duration,
    /// The id that the edge gave it. Absent if there was no response.
    pub request_id: Option<String>,
    /// What became of it.
    pub outcome: Outcome,
}

impl Call {
    /// Makes a call, without any retry.
    pub async fn make(client: &Client, caller: &Caller) -> Self {
        let began = Instant::now();
        let reply = client.try_call_tool(caller.tool, (caller.arguments)()).await;
        Self {
            tool: caller.tool,
            is_permitted: caller.is_permitted,
            began,
            took: began.elapsed(),
            request_id: reply.as_ref().ok().map(|reply| reply.request_id().to_owned()),
            outcome: outcome(reply),
        }
    }

    /// Whether it was answered with 503.
    pub fn is_unavailable(&self) -> bool {
        matches!(self.outcome, Outcome::Failed { status: Some(503), .. })
    }

    /// Whether it should have had another outcome.
    pub fn is_unexpected(&self) -> bool {
        let expected = if self.is_permitted { Outcome::Allowed } else { Outcome::Denied };
        self.outcome != expected
    }

    /// Whether it failed with an error that invites to retry.
    pub fn is_retryable(&self) -> bool {
        matches!(self.outcome, Outcome::Failed { is_retryable: true, .. })
    }
}

/// What became of a call with this response.
pub(super) fn outcome(reply: reqwest::Result<Reply>) -> Outcome {
    let reply = match reply {
        Ok(reply) => reply,
        Err(error) => {
            let text = drawbridge_runtime::error_chain(&error);
            return Outcome::Failed { status: None, is_retryable: false, text };
        }
    };
    let data = &reply.json["error"]["data"];
    match reply.status {
        StatusCode::OK
            if reply.json["result"]["content"].is_array()
                && reply.json["result"]["isError"] != json!(true) =>
        {
            return Outcome::Allowed;
        }
        StatusCode::OK if reply.is_hidden() => return Outcome::Denied,
        StatusCode::FORBIDDEN if data["reason"] == "policy_denied" => return Outcome::Denied,
        StatusCode::UNAUTHORIZED => return Outcome::Unauthenticated,
        _ => {}
    }
    let is_retryable = reply.headers.contains_key("retry-after") || data["retryable"] == true;
    Outcome::Failed { status: Some(reply.status.as_u16()), is_retryable, text: reply.text }
}
