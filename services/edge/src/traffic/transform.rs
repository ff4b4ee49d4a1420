//! What the operator changes in the arguments and results of tools, on their way.
//!
//! Clients' arguments are checked against the schema that clients see, changed here, and then read as the service's
//! own contract says: auth decides on what will be sent. A failure ends the call; what was not changed goes nowhere.

use std::{sync::Arc, time::Instant};

use drawbridge_proto::auth::v1 as auth;
use jsonschema::Validator;
use rmcp::model::{CallToolResult, ContentBlock, JsonObject};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use self::workers::Workers;

pub use self::trial::{Trial, TrialError};
pub(crate) use self::{
    config::{ServerEntry, ToolEntry, read},
    jq::{Failure, Program},
};

mod config;
mod jq;
mod trial;
mod workers;

/// Which way a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the service.
    Request,
    /// From the service to the client.
    Response,
}

impl Direction {
    /// A word for logs and metrics.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Response => "response",
        }
    }
}

/// What a program knows of the caller, as `$principal`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Principal {
    /// Who vouches for the subject.
    pub issuer: String,
    /// Who it is, at that issuer.
    pub subject: String,
    /// The tenant, or null.
    pub tenant: Option<String>,
    /// The OAuth client through which it calls.
    pub client: String,
    /// The groups that its token names.
    pub groups: Vec<String>,
    /// The roles that its token names.
    pub roles: Vec<String>,
    /// The scopes that its token holds.
    pub scopes: Vec<String>,
}

impl From<&auth::Principal> for Principal {
    fn from(principal: &auth::Principal) -> Self {
        let auth::Principal { issuer, subject, client_id, tenant, scopes, groups, roles, .. } =
            principal.clone();
        let tenant = Some(tenant).filter(|tenant| !tenant.is_empty());
        Self { issuer, subject, tenant, client: client_id, groups, roles, scopes }
    }
}

/// What is changed in the calls of one tool.
#[derive(Clone, Debug, Default)]
pub(crate) struct Transformation {
    /// Set where the client says nothing.
    pub(crate) defaults: JsonObject,
    /// Always set. No client can say them.
    pub(crate) fixed: JsonObject,
    pub(crate) request: Option<Arc<Program>>,
    pub(crate) response: Option<Arc<Program>>,
    /// Checks what a response program gives, where clients are told what that is.
    pub(crate) output: Option<Arc<Validator>>,
    pub(crate) workers: Arc<Workers>,
}

impl Transformation {
    /// Arguments with what is set without a program.
    pub(crate) fn filled(&self, arguments: &JsonObject) -> JsonObject {
        let mut filled = self.defaults.clone();
        for (name, value) in arguments.iter().chain(&self.fixed) {
            filled.insert(name.clone(), value.clone());
        }
        filled
    }

    /// The arguments that the service gets.
    pub(crate) async fn request(
        &self,
        tool: &str,
        arguments: &JsonObject,
        principal: &auth::Principal,
    ) -> Result<Value, Failure> {
        let filled = Value::Object(self.filled(arguments));
        match &self.request {
            None => Ok(filled),
            Some(program) => self.run(tool, Direction::Request, program, filled, principal).await,
        }
    }

    /// The result that the client gets, in place of one that the service gave.
    pub(crate) async fn response(
        &self,
        tool: &str,
        result: CallToolResult,
        principal: &auth::Principal,
    ) -> Result<CallToolResult, Failure> {
        let Some(program) = &self.response else { return Ok(result) };
        let structured = result.structured_content.clone().ok_or(Failure::Unstructured);
        let changed = match structured {
            Ok(structured) => {
                self.run(tool, Direction::Response, program, structured, principal).await
            }
            Err(failure) => Err(noted(tool, Direction::Response, failure)),
        }?;
        if let Some(output) = &self.output {
            checked(output, &changed)
                .map_err(|failure| noted(tool, Direction::Response, failure))?;
        }
        // Its other content may say what the program takes out.
        let content = vec![ContentBlock::text(changed.to_string())];
        let mut transformed = result;
        (transformed.content, transformed.structured_content) = (content, Some(changed));
        Ok(transformed)
    }

    async fn run(
        &self,
        tool: &str,
        direction: Direction,
        program: &Arc<Program>,
        input: Value,
        principal: &auth::Principal,
    ) -> Result<Value, Failure> {
        let started = Instant::now();
        let principal = serde_json::to_value(Principal::from(principal)).unwrap_or_default();
        let output = self.workers.run(program, input, principal).await.and_then(object);
        let labels = [("tool", tool.to_owned()), ("direction", direction.word().to_owned())];
        metrics::histogram!("edge_transform_duration_seconds", &labels).record(started.elapsed());
        output.map_err(|failure| noted(tool, direction, failure))
    }
}

/// Counts a failure.
fn noted(tool: &str, direction: Direction, failure: Failure) -> Failure {
    let labels = [("tool", tool.to_owned()), ("direction", direction.word().to_owned())];
    metrics::counter!("edge_transform_failures_total", &labels).increment(1);
    failure
}

/// What MCP takes for arguments and for structured content.
fn object(output: Value) -> Result<Value, Failure> {
    if output.is_object() { Ok(output) } else { Err(Failure::NoObject) }
}

fn checked(output: &Validator, changed: &Value) -> Result<(), Failure> {
    // Where, and not what: the value is the caller's business.
    output
        .validate(changed)
        .map_err(|error| Failure::Schema(format!("{}: {}", error.instance_path(), error.masked())))
}
