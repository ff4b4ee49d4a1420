//! Config files in TOML that operators write. Reads are bounded, and errors name the file and the
//! line.

use std::{
    fs::File,
    io::{self, Read as _},
    ops::{Range, RangeInclusive},
    path::{Path, PathBuf},
};

use serde::de::DeserializeOwned;
use toml::Spanned;

/// The largest config file, in bytes.
const BYTES_MAX: u64 = 1024 * 1024;

/// A config file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigTextError {
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
    /// Its syntax or its structure is wrong. The message shows the place.
    #[error("{}: {problem}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        problem: Box<toml::de::Error>,
    },
    /// A value is invalid.
    #[error("{}:{line}: {problem}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        problem: String,
    },
}

/// The text of a config file, with its path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigText {
    path: PathBuf,
    text: String,
}

impl ConfigText {
    /// This text, as if it were read from the file.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>, text: impl Into<String>) -> Self {
        Self { path: path.into(), text: text.into() }
    }

    /// Reads a file.
    ///
    /// # Errors
    /// When it cannot be read, or is too large.
    pub fn read(path: &Path) -> Result<Self, ConfigTextError> {
        Self::read_within(path, BYTES_MAX)
    }

    /// Reads a file of at most `bytes_max` bytes.
    ///
    /// # Errors
    /// When it cannot be read, or is too large.
    pub fn read_within(path: &Path, bytes_max: u64) -> Result<Self, ConfigTextError> {
        let failed = |source| ConfigTextError::Read { path: path.to_owned(), source };
        let mut text = String::new();
        let file = File::open(path).map_err(failed)?;
        file.take(bytes_max.saturating_add(1)).read_to_string(&mut text).map_err(failed)?;
        if text.len() as u64 > bytes_max {
            return Err(ConfigTextError::TooLarge { path: path.to_owned(), bytes_max });
        }
        Ok(Self::new(path, text))
    }

    /// Validates an optional number of this text: it must be within `bounds`. Returns `default`
    /// when it is absent.
    ///
    /// # Errors
    /// When the number is out of bounds; the error names its line.
    pub fn check_bounds(
        &self,
        value: Option<&Spanned<u64>>,
        name: &str,
        default: u64,
        bounds: RangeInclusive<u64>,
    ) -> Result<u64, ConfigTextError> {
        match value {
            None => Ok(default),
            Some(value) if bounds.contains(value.get_ref()) => Ok(*value.get_ref()),
            Some(value) => {
                let problem = format!("{name} must be from {} to {}", bounds.start(), bounds.end());
                Err(self.error_at(value.span().start, problem))
            }
        }
    }

    /// Parses the text as a type that rejects unknown fields.
    ///
    /// # Errors
    /// When it is not valid TOML, or not of this type. The error quotes the line.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, ConfigTextError> {
        toml::from_str(&self.text).map_err(|problem| ConfigTextError::Syntax {
            path: self.path.clone(),
            problem: Box::new(problem),
        })
    }

    /// Parses a file that holds secrets, which no error may quote.
    ///
    /// # Errors
    /// As [`Self::parse`], with only the number of the line.
    pub fn parse_unquoted<T: DeserializeOwned>(&self) -> Result<T, ConfigTextError> {
        toml::from_str(&self.text).map_err(|mut problem: toml::de::Error| {
            let place = problem.span().map_or(0, |span| span.start);
            problem.set_input(None);
            self.error_at(place, problem.to_string().trim_end())
        })
    }

    /// Parses a JSON file.
    ///
    /// # Errors
    /// As [`Self::parse`], with only the number of the line.
    pub fn parse_json<T: DeserializeOwned>(&self) -> Result<T, ConfigTextError> {
        serde_json::from_str(&self.text).map_err(|problem| ConfigTextError::Invalid {
            path: self.path.clone(),
            line: problem.line().max(1),
            problem: problem.to_string(),
        })
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// An error at this byte of the text.
    #[must_use]
    pub fn error_at(&self, place: usize, problem: impl Into<String>) -> ConfigTextError {
        let line = self.text.bytes().take(place).filter(|byte| *byte == b'\n').count() + 1;
        ConfigTextError::Invalid { path: self.path.clone(), line, problem: problem.into() }
    }

    /// An error within a string of the config file: `span` is the string's place in the file and
    /// `part` is a place in the string. The error quotes the line.
    #[must_use]
    pub fn error_in(
        &self,
        span: Range<usize>,
        text: &str,
        part: Range<usize>,
        problem: impl Into<String>,
    ) -> ConfigTextError {
        // Escapes can make the string differ from the file; then the error points at its start.
        let start = self.text.get(span.clone()).and_then(|raw| Some(span.start + raw.find(text)?));
        let part = match start {
            Some(start) if !text.is_empty() => start + part.start..start + part.end,
            _ => span.start..span.start,
        };
        let (before, rest) = self.text.split_at_checked(part.start).unwrap_or((&self.text, ""));
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let indent = &before[line_start..];
        let rest = rest.split(['\n', '\r']).next().unwrap_or_default();
        let width = rest.get(..part.len()).unwrap_or(rest).chars().count().max(1);
        let line = (before.matches('\n').count() + 1).to_string();
        let (gutter, column, caret) =
            (" ".repeat(line.len()), " ".repeat(indent.chars().count()), "^".repeat(width));
        let problem = problem.into();
        self.error_at(
            part.start,
            format!("{problem}\n{gutter} |\n{line} | {indent}{rest}\n{gutter} | {column}{caret}"),
        )
    }

    /// Resolves a path that the file names, relative to the file.
    #[must_use]
    pub fn resolve_path(&self, path: &Path) -> PathBuf {
        self.path.parent().unwrap_or(Path::new(".")).join(path)
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Users {
        #[expect(dead_code, reason = "it is only parsed")]
        password: String,
    }

    #[test]
    fn an_error_within_a_string_points_at_its_place() {
        let text = ConfigText::new(
            "edge.toml",
            "a = 1\nb = \'\'\'\n.x |\n  foo\n\'\'\'\nc = \"a\\u0062\"\n",
        );
        let value = ".x |\n  foo\n";
        let message = text.error_in(10..27, value, 7..10, "there is no foo").to_string();
        assert_eq!(message, "edge.toml:4: there is no foo\n  |\n4 |   foo\n  |   ^^^");
        let message = text.error_in(10..27, value, 12..12, "it ends").to_string();
        assert!(message.starts_with("edge.toml:5: it ends\n"), "{message}");
        let message = text.error_in(33..42, "ab", 1..2, "no b").to_string();
        assert_eq!(message, "edge.toml:6: no b\n  |\n6 | c = \"a\\u0062\"\n  |     ^");
    }

    #[test]
    fn an_error_in_a_file_with_secrets_does_not_quote_the_line() {
        let text = ConfigText::new("users.toml", "# users\npassword = \"hunter2\" oops\n");
        let message = text.parse_unquoted::<Users>().unwrap_err().to_string();
        assert!(message.starts_with("users.toml:2: ") && !message.contains("hunter2"), "{message}");
        let message = text.parse::<Users>().unwrap_err().to_string();
        assert!(message.contains("line 2"), "{message}");
    }

    #[test]
    fn a_file_that_is_too_large_is_rejected() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("large.toml");
        std::fs::write(&path, "#".repeat(BYTES_MAX as usize + 1)).unwrap();
        assert!(matches!(ConfigText::read(&path), Err(ConfigTextError::TooLarge { .. })));
        assert!(matches!(ConfigText::read(folder.path()), Err(ConfigTextError::Read { .. })));
    }
}
