//! Config files that operators write, in TOML: read within bounds, and told by file and line what is wrong with them.

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
        /// The most that it may have.
        bytes_max: u64,
    },
    /// It is not what such a file is. The message shows the place.
    #[error("{}: {problem}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        problem: Box<toml::de::Error>,
    },
    /// It says what cannot be.
    #[error("{}:{line}: {problem}", path.display())]
    Meaning {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        problem: String,
    },
}

/// What a config file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigText {
    path: PathBuf,
    text: String,
}

impl ConfigText {
    /// This text, as if it were the file's.
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

    /// Reads a file of at most so many bytes.
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

    /// A number of this text, or what holds without it, within its bounds.
    ///
    /// # Errors
    /// When it is outside of them, with its place.
    pub fn within(
        &self,
        given: Option<&Spanned<u64>>,
        name: &str,
        absent: u64,
        bounds: RangeInclusive<u64>,
    ) -> Result<u64, ConfigTextError> {
        match given {
            None => Ok(absent),
            Some(given) if bounds.contains(given.get_ref()) => Ok(*given.get_ref()),
            Some(given) => {
                let problem = format!("{name} must be from {} to {}", bounds.start(), bounds.end());
                Err(self.wrong(given.span().start, problem))
            }
        }
    }

    /// What it says, as a type that refuses unknown fields.
    ///
    /// # Errors
    /// When it is no TOML, or not of this type. The error quotes the line.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, ConfigTextError> {
        toml::from_str(&self.text).map_err(|problem| ConfigTextError::Syntax {
            path: self.path.clone(),
            problem: Box::new(problem),
        })
    }

    /// The same for a file that holds secrets, which no error may quote.
    ///
    /// # Errors
    /// As [`Self::parse`], with the line's number alone.
    pub fn parse_unquoted<T: DeserializeOwned>(&self) -> Result<T, ConfigTextError> {
        toml::from_str(&self.text).map_err(|mut problem: toml::de::Error| {
            let place = problem.span().map_or(0, |span| span.start);
            problem.set_input(None);
            self.wrong(place, problem.to_string().trim_end())
        })
    }

    /// The same for a file that is JSON.
    ///
    /// # Errors
    /// As [`Self::parse`], with the line's number alone.
    pub fn parse_json<T: DeserializeOwned>(&self) -> Result<T, ConfigTextError> {
        serde_json::from_str(&self.text).map_err(|problem| ConfigTextError::Meaning {
            path: self.path.clone(),
            line: problem.line().max(1),
            problem: problem.to_string(),
        })
    }

    /// What it says.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// What is wrong with what it says at this byte.
    #[must_use]
    pub fn wrong(&self, place: usize, problem: impl Into<String>) -> ConfigTextError {
        let line = self.text.bytes().take(place).filter(|byte| *byte == b'\n').count() + 1;
        ConfigTextError::Meaning { path: self.path.clone(), line, problem: problem.into() }
    }

    /// What is wrong with a part of a text that it holds, of which `span` is the place in it and `part` that within the
    /// text. The error quotes the line.
    #[must_use]
    pub fn pointed(
        &self,
        span: Range<usize>,
        text: &str,
        part: Range<usize>,
        problem: impl Into<String>,
    ) -> ConfigTextError {
        // Where escapes make the text another than what stands in the file, its beginning is pointed at.
        let begins = self.text.get(span.clone()).and_then(|raw| Some(span.start + raw.find(text)?));
        let part = match begins {
            Some(begins) if !text.is_empty() => begins + part.start..begins + part.end,
            _ => span.start..span.start,
        };
        let (before, rest) = self.text.split_at_checked(part.start).unwrap_or((&self.text, ""));
        let line_begins = before.rfind('\n').map_or(0, |at| at + 1);
        let indent = &before[line_begins..];
        let rest = rest.split(['\n', '\r']).next().unwrap_or_default();
        let width = rest.get(..part.len()).unwrap_or(rest).chars().count().max(1);
        let line = (before.matches('\n').count() + 1).to_string();
        let (gutter, column, caret) =
            (" ".repeat(line.len()), " ".repeat(indent.chars().count()), "^".repeat(width));
        let problem = problem.into();
        self.wrong(
            part.start,
            format!("{problem}\n{gutter} |\n{line} | {indent}{rest}\n{gutter} | {column}{caret}"),
        )
    }

    /// A path that it names: relative to itself, wherever the process was started.
    #[must_use]
    pub fn beside(&self, path: &Path) -> PathBuf {
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
        #[expect(dead_code, reason = "it is only read")]
        password: String,
    }

    #[test]
    fn a_mistake_within_a_text_is_pointed_at() {
        let text = ConfigText::new(
            "edge.toml",
            "a = 1\nb = \'\'\'\n.x |\n  foo\n\'\'\'\nc = \"a\\u0062\"\n",
        );
        let value = ".x |\n  foo\n";
        let told = text.pointed(10..27, value, 7..10, "there is no foo").to_string();
        assert_eq!(told, "edge.toml:4: there is no foo\n  |\n4 |   foo\n  |   ^^^");
        let told = text.pointed(10..27, value, 12..12, "it ends").to_string();
        assert!(told.starts_with("edge.toml:5: it ends\n"), "{told}");
        let told = text.pointed(33..42, "ab", 1..2, "no b").to_string();
        assert_eq!(told, "edge.toml:6: no b\n  |\n6 | c = \"a\\u0062\"\n  |     ^");
    }

    #[test]
    fn a_line_that_may_hold_a_secret_is_not_quoted() {
        let text = ConfigText::new("users.toml", "# users\npassword = \"hunter2\" oops\n");
        let told = text.parse_unquoted::<Users>().unwrap_err().to_string();
        assert!(told.starts_with("users.toml:2: ") && !told.contains("hunter2"), "{told}");
        let told = text.parse::<Users>().unwrap_err().to_string();
        assert!(told.contains("line 2"), "{told}");
    }

    #[test]
    fn a_file_that_is_too_large_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("large.toml");
        std::fs::write(&path, "#".repeat(BYTES_MAX as usize + 1)).unwrap();
        assert!(matches!(ConfigText::read(&path), Err(ConfigTextError::TooLarge { .. })));
        assert!(matches!(ConfigText::read(folder.path()), Err(ConfigTextError::Read { .. })));
    }
}
