//! Problems in a policy folder and their places.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use drawbridge_config::{ConfigError, Mistake, Place};
use miette::{Diagnostic, LabeledSpan};
use serde::Serialize;

/// The policies are invalid: all their problems.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct PolicyError(pub Vec<Problem>);

impl PolicyError {
    /// The number of problems and the place of the first, without any text of a policy.
    #[must_use]
    pub fn brief(&self) -> String {
        let first = self
            .0
            .first()
            .map_or_else(String::new, |problem| format!(" at {}", problem.location()));
        match self.0.len() {
            1 => format!("the policy files are invalid: see the log for the problem{first}"),
            count => {
                format!(
                    "the policy files are invalid: see the log for {count} problems, \
                     the first{first}"
                )
            }
        }
    }
}

/// An error or a warning.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Whether it makes the policies invalid.
    pub severity: Severity,
    /// The file.
    pub path: PathBuf,
    /// The place in the file, if known.
    pub place: Option<Place>,
    /// What is wrong.
    pub message: String,
    /// How to fix it.
    pub help: Option<String>,
}

/// The severity of a problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The policies are invalid.
    Error,
    /// The policies are valid but probably not as intended.
    Warning,
}

impl Problem {
    pub(super) fn error(path: &Path, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            path: path.to_owned(),
            place: None,
            message: message.into(),
            help: None,
        }
    }

    /// The mistakes of a file.
    pub(super) fn of_file(path: &Path, error: &ConfigError) -> Vec<Self> {
        let problem = |mistake: &Mistake| Self {
            place: Some(mistake.place.clone()),
            help: mistake.help.clone(),
            ..Self::error(path, mistake.problem.as_str())
        };
        match error.mistakes() {
            [] => vec![Self::error(path, error.to_string())],
            mistakes => mistakes.iter().map(problem).collect(),
        }
    }

    pub(super) fn warning(path: &Path, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(path, message) }
    }

    pub(super) fn at(mut self, text: &str, offset: usize, length: usize) -> Self {
        self.place = Some(Place::new(text, offset..offset.saturating_add(length)));
        self
    }

    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Converts a diagnostic of Cedar. Its first label is what is wrong, others explain it.
    pub(super) fn from_cedar(path: &Path, text: &str, diagnostic: &dyn Diagnostic) -> Self {
        let mut problem = Self::error(path, diagnostic.to_string());
        let span = |label: &LabeledSpan| label.offset()..label.offset() + label.len();
        let mut labels = diagnostic.labels().into_iter().flatten();
        if let Some(first) = labels.next() {
            if let Some(label) = first.label() {
                problem.message = format!("{}: {label}", problem.message);
            }
            let others = labels
                .map(|other| (span(&other), other.label().unwrap_or_default().to_owned()))
                .collect();
            problem.place = Some(Place::with_labels(text, span(&first), others));
        }
        problem.help = diagnostic.help().map(|help| help.to_string());
        problem
    }

    /// The file with line and column.
    #[must_use]
    pub fn location(&self) -> String {
        match &self.place {
            Some(place) => format!("{}:{}:{}", self.path.display(), place.line, place.column),
            None => self.path.display().to_string(),
        }
    }
}

impl fmt::Display for Problem {
    /// The message with its place, the lines with carets, and the help.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let separator = if self.place.is_some() { "" } else { " " };
        write!(f, "{}:{separator}", self.path.display())?;
        Place::write_problem(self.place.as_ref(), &self.message, self.help.as_deref(), f)
    }
}
