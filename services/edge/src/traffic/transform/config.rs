//! The settings of a transformation.

use std::sync::Arc;

use drawbridge_config::{Mistakes, Spanned};
use jsonschema::Validator;
use rmcp::model::JsonObject;
use serde_json::Value;

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
    /// Compiles the programs of these settings.
    pub(crate) fn new(
        settings: TransformationSettings<'_>,
        workers: &Arc<Workers>,
        mistakes: &mut Mistakes<'_>,
    ) -> Self {
        let TransformationSettings { defaults, fixed, request, response, output } = settings;
        Self {
            defaults: json(defaults),
            fixed: json(fixed),
            request: program(request, "request", mistakes),
            response: program(response, "response", mistakes),
            output,
            workers: Arc::clone(workers),
        }
    }
}

fn program(
    source: Option<&Spanned<String>>,
    which: &str,
    mistakes: &mut Mistakes<'_>,
) -> Option<Arc<Program>> {
    let source = source?;
    match Program::compile(source) {
        Ok(program) => Some(Arc::new(program)),
        Err(error) => {
            let problem = format!("the {which} program does not compile: {error}");
            mistakes.push_in(source, error.span, problem);
            None
        }
    }
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
