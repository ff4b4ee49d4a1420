//! The mistakes of a file, and how they are shown.

use std::{
    fmt::{self, Write as _},
    io,
    path::PathBuf,
};

use serde::Serialize;

use crate::Place;

/// A config file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// It is too large.
    #[error("{} has more than {bytes_max} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The limit, in bytes.
        bytes_max: u64,
    },
    /// It has mistakes.
    #[error("{}", render(path, mistakes))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The mistakes, in the order of the file. There is at least one.
        mistakes: Vec<Mistake>,
    },
}

impl ConfigError {
    /// The mistakes, in the order of the file. Empty if it could not be read.
    #[must_use]
    pub fn mistakes(&self) -> &[Mistake] {
        match self {
            Self::Invalid { mistakes, .. } => mistakes,
            Self::Read { .. } | Self::TooLarge { .. } => &[],
        }
    }

    /// The number of mistakes and the place of the first, without any text of the file.
    #[must_use]
    pub fn brief(&self) -> String {
        let path = match self {
            Self::Read { path, .. } | Self::TooLarge { path, .. } | Self::Invalid { path, .. } => {
                path.display()
            }
        };
        match self.mistakes() {
            [] => format!("{path} cannot be read: see the log"),
            [one] => {
                format!("{path} is invalid: see the log for the mistake in line {}", one.place.line)
            }
            [first, ..] => {
                let count = self.mistakes().len();
                let line = first.place.line;
                format!(
                    "{path} is invalid: see the log for {count} mistakes, the first in line {line}"
                )
            }
        }
    }
}

/// One mistake in a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mistake {
    /// Where it is.
    #[serde(flatten)]
    pub place: Place,
    /// What is wrong, and what would be right.
    pub problem: String,
    /// How to correct it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

/// Each mistake with its place, its line and a caret.
fn render(path: &std::path::Path, mistakes: &[Mistake]) -> String {
    let mut text = String::new();
    for mistake in mistakes {
        let separator = if text.is_empty() { "" } else { "\n" };
        let _ = write!(text, "{separator}{}:{mistake}", path.display());
    }
    text
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Place::write_problem(Some(&self.place), &self.problem, self.help.as_deref(), f)
    }
}
