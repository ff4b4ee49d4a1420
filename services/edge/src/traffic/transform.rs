//! Transforms the arguments and results of tools as the config file says.
//!
//! Arguments are checked against the schema that clients see, transformed here, and then read by
//! the service's own contract: auth decides on the message that will be sent. A failure ends the
//! call; an untransformed message is never sent.

use std::{sync::Arc, time::Instant};

use crate::metrics::{TRANSFORM_DURATION, TRANSFORM_FAILURES};
use drawbridge_proto::auth::v1 as auth;
use jsonschema::Validator;
use rmcp::model::{CallToolResult, ContentBlock, JsonObject};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tracing::{Instrument as _, field::Empty};

pub(crate) use self::{
    config::TransformationSettings,
    jq::{Program, ProgramError},
    workers::Workers,
};

mod config;
mod jq;
mod workers;

/// The direction of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the service.
    Request,
    /// From the service to the client.
    Response,
}

impl Direction {
    /// The direction as text, for logs and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Response => "response",
        }
    }
}

/// The caller as a program sees it, in `$principal`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProgramPrincipal {
    /// The issuer of the subject.
    pub issuer: String,
    /// The subject at that issuer.
    pub subject: String,
    /// The tenant, or null.
    pub tenant: Option<String>,
    /// The OAuth client of the caller.
    pub client: String,
    /// The groups in its token.
    pub groups: Vec<String>,
    /// The roles in its token.
    pub roles: Vec<String>,
    /// The scopes in its token.
    pub scopes: Vec<String>,
}

impl From<&auth::Principal> for ProgramPrincipal {
    fn from(principal: &auth::Principal) -> Self {
        let auth::Principal { issuer, subject, client_id, tenant, scopes, groups, roles, .. } =
            principal.clone();
        let tenant = Some(tenant).filter(|tenant| !tenant.is_empty());
        Self { issuer, subject, tenant, client: client_id, groups, roles, scopes }
    }
}

/// The transformation of the calls of one tool.
#[derive(Clone, Debug, Default)]
pub(crate) struct Transformation {
    /// Values of arguments that the client does not set.
    pub(crate) defaults: JsonObject,
    /// Values of arguments that clients cannot set.
    pub(crate) fixed: JsonObject,
    pub(crate) request: Option<Arc<Program>>,
    pub(crate) response: Option<Arc<Program>>,
    /// Validates the output of the response program, if it has a schema.
    pub(crate) output: Option<Arc<Validator>>,
    pub(crate) workers: Arc<Workers>,
}

impl Transformation {
    /// The arguments with the defaults and fixed values.
    pub(crate) fn with_values(&self, arguments: &JsonObject) -> JsonObject {
        let mut values = self.defaults.clone();
        for (name, value) in arguments.iter().chain(&self.fixed) {
            values.insert(name.clone(), value.clone());
        }
        values
    }

    /// Transforms the arguments for the service.
    pub(crate) async fn request(
        &self,
        tool: &str,
        arguments: &JsonObject,
        principal: &auth::Principal,
    ) -> Result<Value, ProgramError> {
        let arguments = Value::Object(self.with_values(arguments));
        match &self.request {
            None => Ok(arguments),
            Some(program) => {
                self.run(tool, Direction::Request, program, arguments, principal).await
            }
        }
    }

    /// Transforms the result for the client.
    pub(crate) async fn response(
        &self,
        tool: &str,
        result: CallToolResult,
        principal: &auth::Principal,
    ) -> Result<CallToolResult, ProgramError> {
        let Some(program) = &self.response else { return Ok(result) };
        let structured = result.structured_content.clone().ok_or(ProgramError::Unstructured);
        let changed = match structured {
            Ok(structured) => {
                self.run(tool, Direction::Response, program, structured, principal).await
            }
            Err(failure) => Err(count_failure(tool, Direction::Response, failure)),
        }?;
        if let Some(output) = &self.output {
            check_output(output, &changed)
                .map_err(|failure| count_failure(tool, Direction::Response, failure))?;
        }
        // Other content may contain what the program removes.
        let content = vec![ContentBlock::text(changed.to_string())];
        let mut transformed = result;
        (transformed.content, transformed.structured_content) = (content, Some(changed));
        Ok(transformed)
    }

    /// Transforms a sample on the calling thread. `None`: there is no transformation in this
    /// direction.
    ///
    /// # Errors
    /// When the program fails.
    pub(crate) fn run_on_thread(
        &self,
        direction: Direction,
        sample: &JsonObject,
        principal: &ProgramPrincipal,
    ) -> Result<Option<Value>, ProgramError> {
        let principal = serde_json::to_value(principal).unwrap_or_default();
        match direction {
            Direction::Request => {
                let arguments = self.with_values(sample);
                if self.request.is_none() && arguments == *sample {
                    return Ok(None);
                }
                let arguments = Value::Object(arguments);
                let Some(program) = &self.request else { return Ok(Some(arguments)) };
                let changed = program.run_on_thread(&arguments, &principal);
                changed.and_then(require_object).map(Some)
            }
            Direction::Response => {
                let Some(program) = &self.response else { return Ok(None) };
                let changed = program.run_on_thread(&Value::Object(sample.clone()), &principal);
                let changed = changed.and_then(require_object)?;
                if let Some(output) = &self.output {
                    check_output(output, &changed)?;
                }
                Ok(Some(changed))
            }
        }
    }

    async fn run(
        &self,
        tool: &str,
        direction: Direction,
        program: &Arc<Program>,
        input: Value,
        principal: &auth::Principal,
    ) -> Result<Value, ProgramError> {
        let started = Instant::now();
        let principal = serde_json::to_value(ProgramPrincipal::from(principal)).unwrap_or_default();
        let span = tracing::info_span!(
            "transform",
            otel.name = format!("transform {}", direction.as_str()),
            otel.status_code = Empty,
            error.type = Empty,
        );
        let running = self.workers.run(program, input, principal).instrument(span.clone());
        let output = running.await.and_then(require_object);
        if output.is_err() {
            span.record("error.type", "transform").record("otel.status_code", "ERROR");
        }
        let labels = [tool.to_owned().into(), direction.as_str().into()];
        TRANSFORM_DURATION.with(labels).record(started.elapsed());
        output.map_err(|failure| count_failure(tool, direction, failure))
    }
}

/// Counts a failure.
fn count_failure(tool: &str, direction: Direction, failure: ProgramError) -> ProgramError {
    TRANSFORM_FAILURES.with([tool.to_owned().into(), direction.as_str().into()]).increment(1);
    failure
}

/// MCP requires objects for arguments and structured content.
fn require_object(output: Value) -> Result<Value, ProgramError> {
    if output.is_object() { Ok(output) } else { Err(ProgramError::NotAnObject) }
}

fn check_output(output: &Validator, changed: &Value) -> Result<(), ProgramError> {
    // The path without the value, which may be private.
    output.validate(changed).map_err(|error| {
        ProgramError::Schema(format!("{}: {}", error.instance_path(), error.masked()))
    })
}
