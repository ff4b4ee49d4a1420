//! A program on a sample, before any client calls it.

use std::path::Path;

use drawbridge_sdk::{ConfigText, ConfigTextError};
use serde_json::Value;

use super::{Direction, Failure, Principal, checked, object};
use crate::{
    catalog::View,
    config::{Services, parse},
};

/// A sample could not be run.
#[derive(Debug, thiserror::Error)]
pub enum TrialError {
    /// The config file cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigTextError),
    /// The file has no transformation of this tool.
    #[error("the config file says nothing of a tool {0:?}; it is named as its service names it")]
    Tool(String),
    /// There is nothing to try.
    #[error("the tool {tool:?} has nothing that changes its {}", direction.word())]
    Nothing {
        /// The tool.
        tool: String,
        /// Which way.
        direction: Direction,
    },
    /// The sample is no object.
    #[error("arguments and results are JSON objects, and the sample is none")]
    Sample,
    /// The program failed.
    #[error("the {} program of {tool:?} failed: {problem}", direction.word())]
    Failed {
        /// The tool.
        tool: String,
        /// Which way.
        direction: Direction,
        /// What went wrong.
        problem: String,
    },
}

/// The transformations of a config file, to be tried.
#[derive(Debug)]
pub struct Trial(View);

impl Trial {
    /// Reads a config file.
    ///
    /// # Errors
    /// When it cannot be used, as when the edge reads it.
    pub fn open(file: &Path) -> Result<Self, TrialError> {
        Ok(Self(parse(&ConfigText::read(file)?, &Services::new())?.view))
    }

    /// What a sample becomes on its way.
    ///
    /// # Errors
    /// When there is nothing to try, or it fails.
    pub fn run(
        &self,
        tool: &str,
        direction: Direction,
        sample: &Value,
        principal: &Principal,
    ) -> Result<Value, TrialError> {
        let view = self.0.tool(tool).ok_or_else(|| TrialError::Tool(tool.to_owned()))?;
        let nothing = || TrialError::Nothing { tool: tool.to_owned(), direction };
        let sample = sample.as_object().ok_or(TrialError::Sample)?;
        let failed = |failure: Failure| TrialError::Failed {
            tool: tool.to_owned(),
            direction,
            problem: failure.to_string(),
        };
        let transformation = &view.transformation;
        let principal = serde_json::to_value(principal).unwrap_or_default();
        match direction {
            Direction::Request => {
                let filled = transformation.filled(sample);
                if transformation.request.is_none() && filled == *sample {
                    return Err(nothing());
                }
                let filled = Value::Object(filled);
                let Some(program) = &transformation.request else { return Ok(filled) };
                program.run_alone(&filled, &principal).and_then(object).map_err(failed)
            }
            Direction::Response => {
                let program = transformation.response.as_ref().ok_or_else(nothing)?;
                let changed =
                    program.run_alone(&Value::Object(sample.clone()), &principal).and_then(object);
                let changed = changed.map_err(failed)?;
                if let Some(output) = &transformation.output {
                    checked(output, &changed).map_err(failed)?;
                }
                Ok(changed)
            }
        }
    }
}
