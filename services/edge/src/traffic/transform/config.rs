//! The settings of a transformation.

use std::sync::Arc;

use drawbridge_runtime::{ConfigText, ConfigTextError};
use jsonschema::Validator;
use rmcp::model::JsonObject;
use serde_json::Value;
use toml::Spanned;

use super::{Program, Transformation, workers::Workers};

/// The settings of the transformation of one tool.
#[derive(Debug)]
pub(crate) struct TransformationSettings<'a> {
    /// Arguments that are set unless the client sets them.
    pub(crate) defaults: &'a toml::Table,
    /// Arguments that are always set.
    pub(crate) fixed: &'a toml::Table,
    pub(crate) request: Option<&'a Spanned<String>>,
    pub(crate) response: Option<&'a Spanned<String>>,
    /// Validates the output of the response program.
    pub(crate) output: Option<Arc<Validator>>,
}

impl Transformation {
    /// Compiles the programs of these settings, which are part of this text.
    ///
    /// # Errors
    /// When a program does not compile.
    pub(crate) fn new(
        text: &ConfigText,
        settings: TransformationSettings<'_>,
        workers: &Arc<Workers>,
    ) -> Result<Self, ConfigTextError> {
        let TransformationSettings { defaults, fixed, request, response, output } = settings;
        Ok(Self {
            defaults: json(defaults),
            fixed: json(fixed),
            request: program(text, request, "request")?,
            response: program(text, response, "response")?,
            output,
            workers: Arc::clone(workers),
        })
    }
}

fn program(
    text: &ConfigText,
    source: Option<&Spanned<String>>,
    which: &str,
) -> Result<Option<Arc<Program>>, ConfigTextError> {
    let Some(source) = source else { return Ok(None) };
    let compiled = Program::compile(source.get_ref()).map_err(|error| {
        let problem = format!("the {which} program does not compile: {error}");
        text.error_in(source.span(), source.get_ref(), error.span, problem)
    })?;
    Ok(Some(Arc::new(compiled)))
}

/// TOML as JSON. A date or time becomes text.
fn json(table: &toml::Table) -> JsonObject {
    fn value(toml: &toml::Value) -> Value {
        match toml {
            toml::Value::String(text) => Value::from(text.as_str()),
            toml::Value::Integer(number) => Value::from(*number),
            toml::Value::Float(number) => Value::from(*number),
            toml::Value::Boolean(value) => Value::from(*value),
            toml::Value::Datetime(time) => Value::from(time.to_string()),
            toml::Value::Array(values) => values.iter().map(value).collect(),
            toml::Value::Table(table) => Value::Object(json(table)),
        }
    }
    table.iter().map(|(name, field)| (name.clone(), value(field))).collect()
}
