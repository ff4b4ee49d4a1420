//! Problems in a policy folder and their places.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use drawbridge_config::{ConfigError, Mistake};
use miette::Diagnostic;
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

/// A place in a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Place {
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// The length of the marked part of the line in characters.
    pub length: usize,
    /// The line itself.
    pub text: String,
}

impl Place {
    /// The place of `length` bytes at a byte offset of a text.
    pub(super) fn new(text: &str, offset: usize, length: usize) -> Self {
        let offset = text.floor_char_boundary(offset);
        let start = text[..offset].rfind('\n').map_or(0, |newline| newline + 1);
        let end = text[offset..].find('\n').map_or(text.len(), |newline| offset + newline);
        let marked_end = text.floor_char_boundary(offset.saturating_add(length)).clamp(offset, end);
        Self {
            line: text[..start].matches('\n').count() + 1,
            column: text[start..offset].chars().count() + 1,
            length: text[offset..marked_end].chars().count().max(1),
            text: text[start..end].to_owned(),
        }
    }
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
        let problem = |mistake: &Mistake| {
            let place = mistake.quoted_line().map(|(line, part)| Place {
                line: mistake.line,
                column: mistake.column,
                length: line[part].chars().count().max(1),
                text: line.to_owned(),
            });
            let help = mistake.help.clone();
            Self { place, help, ..Self::error(path, mistake.problem.as_str()) }
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
        self.place = Some(Place::new(text, offset, length));
        self
    }

    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Converts a diagnostic of Cedar.
    pub(super) fn from_cedar(path: &Path, text: &str, diagnostic: &dyn Diagnostic) -> Self {
        let mut problem = Self::error(path, diagnostic.to_string());
        if let Some(label) = diagnostic.labels().and_then(|mut labels| labels.next()) {
            if let Some(label) = label.label() {
                problem.message = format!("{}: {label}", problem.message);
            }
            problem = problem.at(text, label.offset(), label.len());
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
    /// The message with its place, the line and a caret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.location(), self.message)?;
        if let Some(Place { line, column, length, text }) = &self.place {
            let number = line.to_string();
            let margin = " ".repeat(number.len());
            // Tabs remain tabs, so that the caret is below what it points at.
            let indent: String = text
                .chars()
                .take(column - 1)
                .map(|character| if character == '\t' { '\t' } else { ' ' })
                .collect();
            let carets = "^".repeat(*length);
            write!(f, "\n{margin} |\n{number} | {text}\n{margin} | {indent}{carets}")?;
        }
        match &self.help {
            Some(help) => write!(f, "\n  help: {help}"),
            None => Ok(()),
        }
    }
}
