//! The text of a config file.

use std::{
    collections::BTreeSet,
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
};

use serde_json::Value;
use toml::de::DeTable;

use crate::ConfigError;

/// The largest config file, in bytes.
const BYTES_MAX: u64 = 1024 * 1024;

/// The text of a config file, with its path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigText {
    path: PathBuf,
    text: String,
    has_secrets: bool,
}

impl ConfigText {
    /// This text, as if it were read from the file.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>, text: impl Into<String>) -> Self {
        Self { path: path.into(), text: text.into(), has_secrets: false }
    }

    /// Reads a file.
    ///
    /// # Errors
    /// When it cannot be read, or is too large.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        Self::read_within(path, BYTES_MAX)
    }

    /// Reads a file of at most `bytes_max` bytes.
    ///
    /// # Errors
    /// When it cannot be read, or is too large.
    pub fn read_within(path: &Path, bytes_max: u64) -> Result<Self, ConfigError> {
        let failed = |source| ConfigError::Read { path: path.to_owned(), source };
        let mut text = String::new();
        let file = File::open(path).map_err(failed)?;
        file.take(bytes_max.saturating_add(1)).read_to_string(&mut text).map_err(failed)?;
        if text.len() as u64 > bytes_max {
            return Err(ConfigError::TooLarge { path: path.to_owned(), bytes_max });
        }
        Ok(Self::new(path, text))
    }

    /// Marks the text as one with secrets: no error quotes it.
    #[must_use]
    pub fn with_secrets(self) -> Self {
        Self { has_secrets: true, ..self }
    }

    /// The keys at the top level of TOML, as far as it can be read, or of JSON: of the object, or
    /// of the objects in the array.
    #[must_use]
    pub fn top_level_keys(&self) -> BTreeSet<String> {
        let keys = |value: Value| match value {
            Value::Object(object) => object.into_iter().map(|(key, _)| key).collect(),
            _ => Vec::new(),
        };
        match serde_json::from_str(&self.text) {
            Ok(Value::Array(items)) => return items.into_iter().flat_map(keys).collect(),
            Ok(value) => return keys(value).into_iter().collect(),
            Err(_) => {}
        }
        let (table, _) = DeTable::parse_recoverable(&self.text);
        table.get_ref().keys().map(|key| key.get_ref().to_string()).collect()
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub(crate) fn has_secrets(&self) -> bool {
        self.has_secrets
    }

    /// Resolves a path that the file names, relative to the file.
    #[must_use]
    pub fn resolve_path(&self, path: &Path) -> PathBuf {
        self.path.parent().unwrap_or(Path::new(".")).join(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_too_large_is_rejected() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("large.toml");
        std::fs::write(&path, "#".repeat(BYTES_MAX as usize + 1)).unwrap();
        assert!(matches!(ConfigText::read(&path), Err(ConfigError::TooLarge { .. })));
        assert!(matches!(ConfigText::read(folder.path()), Err(ConfigError::Read { .. })));
    }
}
