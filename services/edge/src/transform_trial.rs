//! Runs a transformation on a sample, without a client.

use std::path::Path;

use drawbridge_config::{ConfigError, ConfigText};
use serde_json::Value;

use crate::{
    catalog::Overlay,
    config::{OtherServices, parse},
    traffic::transform::{Direction, ProgramPrincipal},
};

/// Why a transformation cannot be tried.
#[derive(Debug, thiserror::Error)]
pub enum TrialError {
    /// The config file is invalid.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The config file has no entry for this tool.
    #[error(
        "no entry for the tool {0:?} in the config file \
         (expected the name that its service gives it)"
    )]
    Tool(String),
    /// The tool has no transformation in this direction.
    #[error("the tool {tool:?} has no {} transformation", direction.as_str())]
    NoTransformation {
        /// The tool.
        tool: String,
        /// The direction.
        direction: Direction,
    },
    /// The sample is not an object.
    #[error("the sample is not a JSON object, as arguments and results must be")]
    Sample,
    /// The program failed.
    #[error("the {} program of {tool:?} failed: {problem}", direction.as_str())]
    Failed {
        /// The tool.
        tool: String,
        /// The direction.
        direction: Direction,
        /// The problem.
        problem: String,
    },
}

/// The transformations of a config file.
#[derive(Debug)]
pub struct Trial(Overlay);

impl Trial {
    /// Reads a config file.
    ///
    /// # Errors
    /// When the file is invalid, as for the edge.
    pub fn open(file: &Path) -> Result<Self, TrialError> {
        Ok(Self(parse(&ConfigText::read(file)?, &OtherServices::default())?.overlay))
    }

    /// Transforms a sample.
    ///
    /// # Errors
    /// When the tool has no such transformation, or it fails.
    pub fn run(
        &self,
        tool: &str,
        direction: Direction,
        sample: &Value,
        principal: &ProgramPrincipal,
    ) -> Result<Value, TrialError> {
        let overlay = self.0.tool(tool).ok_or_else(|| TrialError::Tool(tool.to_owned()))?;
        let sample = sample.as_object().ok_or(TrialError::Sample)?;
        let transformed = overlay.transformation.run_on_thread(direction, sample, principal);
        let transformed = transformed.map_err(|error| TrialError::Failed {
            tool: tool.to_owned(),
            direction,
            problem: error.to_string(),
        })?;
        transformed.ok_or_else(|| TrialError::NoTransformation { tool: tool.to_owned(), direction })
    }
}
