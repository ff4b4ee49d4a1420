//! The mistakes of a file, and how they are shown.

use std::{
    fmt::{self, Write as _},
    io,
    ops::Range,
    path::PathBuf,
};

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use serde::Serialize;

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
            [one] => format!("{path} is invalid: see the log for the mistake in line {}", one.line),
            [first, ..] => {
                let count = self.mistakes().len();
                let line = first.line;
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
    /// The line, from 1.
    pub line: usize,
    /// The column, in characters from 1.
    pub column: usize,
    /// What is wrong, and what would be right.
    pub problem: String,
    /// How to correct it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    #[serde(skip)]
    quote: Option<Quote>,
}

/// The line of a mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Quote {
    line: String,
    /// The bytes of the line that are wrong.
    part: Range<usize>,
}

impl Mistake {
    /// A mistake at these bytes of a text, whose line is quoted unless the text has secrets.
    pub(crate) fn new(
        source: &str,
        is_quoted: bool,
        span: Range<usize>,
        problem: String,
        help: Option<String>,
    ) -> Self {
        let start = source.floor_char_boundary(span.start);
        let (before, rest) = source.split_at(start);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let rest = rest.split(['\n', '\r']).next().unwrap_or_default();
        let from = start - line_start;
        let to = from + rest.floor_char_boundary(span.end.saturating_sub(start).max(1));
        let line = format!("{}{rest}", &before[line_start..]);
        Self {
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            problem,
            help,
            quote: is_quoted.then_some(Quote { line, part: from..to }),
        }
    }

    /// The line of the file, and the bytes of it that are wrong. Absent where the file has secrets.
    #[must_use]
    pub fn quoted_line(&self) -> Option<(&str, Range<usize>)> {
        self.quote.as_ref().map(|Quote { line, part }| (line.as_str(), part.clone()))
    }

    /// The quoted line with a caret, if the line may be shown.
    fn snippet(&self) -> Option<String> {
        let Quote { line, part } = self.quote.as_ref()?;
        let snippet = Snippet::source(line.as_str())
            .line_start(self.line)
            .annotation(AnnotationKind::Primary.span(part.clone()));
        Some(Renderer::plain().render(&[Group::with_level(Level::ERROR).element(snippet)]))
    }
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
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}: {}", self.line, self.column, self.problem)?;
        if let Some(snippet) = self.snippet() {
            write!(formatter, "\n{snippet}")?;
        }
        if let Some(help) = &self.help {
            let indent = " ".repeat(self.line.to_string().len());
            write!(formatter, "\n{indent} = help: {help}")?;
        }
        Ok(())
    }
}
