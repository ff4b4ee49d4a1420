//! The edge's config file.

use std::{
    collections::btree_map::Entry,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;
use tokio::io::AsyncReadExt as _;
use toml::Spanned;
use url::Url;

use super::{ServiceSettings, Services};
use crate::catalog::Namespace;

/// The largest config file, in bytes.
const BYTES_MAX: u64 = 1024 * 1024;

/// The config file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigFileError {
    /// It cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// It is too large.
    #[error("{} has more than {BYTES_MAX} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// It is not what a config file is. The message shows the place.
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

/// The file that an operator edits while the edge runs.
#[derive(Clone, Debug)]
pub(crate) struct ConfigFile {
    path: PathBuf,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    #[serde(default)]
    services: Vec<Service>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Service {
    namespace: Spanned<Namespace>,
    urls: Vec<Url>,
    timeout_ms: Option<Spanned<u64>>,
    descriptor_set: Option<PathBuf>,
}

impl ConfigFile {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The file's text.
    pub(crate) async fn read(&self) -> Result<String, ConfigFileError> {
        let failed = |source| ConfigFileError::Read { path: self.path.clone(), source };
        let mut text = String::new();
        let file = tokio::fs::File::open(&self.path).await.map_err(failed)?;
        file.take(BYTES_MAX + 1).read_to_string(&mut text).await.map_err(failed)?;
        if text.len() as u64 > BYTES_MAX {
            return Err(ConfigFileError::TooLarge { path: self.path.clone() });
        }
        Ok(text)
    }

    /// The services of this text together with those of the flags.
    pub(crate) fn parse(&self, text: &str, flags: &Services) -> Result<Services, ConfigFileError> {
        let content: Content = toml::from_str(text).map_err(|problem| ConfigFileError::Syntax {
            path: self.path.clone(),
            problem: Box::new(problem),
        })?;
        let mut services = flags.clone();
        for service in content.services {
            let place = service.namespace.span().start;
            let settings = self.settings(text, &service)?;
            match services.entry(service.namespace.into_inner()) {
                Entry::Vacant(entry) => entry.insert(settings),
                Entry::Occupied(entry) => {
                    let also = if flags.contains_key(entry.key()) { "by a flag too" } else { "twice" };
                    let problem = format!("the namespace {:?} is given {also}", entry.key().as_str());
                    return Err(self.meaning(text, place, problem));
                }
            };
        }
        Ok(services)
    }

    fn settings(&self, text: &str, service: &Service) -> Result<ServiceSettings, ConfigFileError> {
        if service.urls.is_empty() {
            let problem = format!("the service {} has no url", service.namespace.get_ref());
            return Err(self.meaning(text, service.namespace.span().start, problem));
        }
        if let Some(timeout) = service.timeout_ms.as_ref().filter(|timeout| *timeout.get_ref() == 0) {
            return Err(self.meaning(text, timeout.span().start, "timeout_ms must not be 0".to_owned()));
        }
        let timeout = service.timeout_ms.as_ref().map(|timeout| Duration::from_millis(*timeout.get_ref()));
        // Relative to the config file, wherever the edge was started.
        let folder = self.path.parent().unwrap_or(Path::new("."));
        let descriptor_set = service.descriptor_set.as_ref().map(|path| folder.join(path));
        Ok(ServiceSettings { urls: service.urls.clone(), timeout, descriptor_set })
    }

    fn meaning(&self, text: &str, place: usize, problem: String) -> ConfigFileError {
        let line = text.bytes().take(place).filter(|byte| *byte == b'\n').count() + 1;
        ConfigFileError::Meaning { path: self.path.clone(), line, problem }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::services::from_flags;

    fn parse(text: &str) -> Result<Services, String> {
        let flags = from_flags(&["flagged=http://127.0.0.1:1".parse().unwrap()]);
        let file = ConfigFile::new("/etc/drawbridge/edge.toml".into());
        file.parse(text, &flags).map_err(|error| error.to_string())
    }

    #[test]
    fn the_file_and_the_flags_together_name_the_services() {
        let text = r#"
            [[services]]
            namespace = "code"
            urls = ["http://code-0:7210", "http://code-1:7210"]
            timeout_ms = 5000
            descriptor_set = "code.binpb"
        "#;
        let services = parse(text).unwrap();
        let names: Vec<_> = services.keys().map(Namespace::as_str).collect();
        assert_eq!(names, ["code", "flagged"]);
        let code = &services["code"];
        assert_eq!(code.urls.len(), 2);
        assert_eq!(code.timeout, Some(Duration::from_secs(5)));
        assert_eq!(code.descriptor_set.as_deref(), Some(Path::new("/etc/drawbridge/code.binpb")));
        assert_eq!(parse("").unwrap().len(), 1);
    }

    #[test]
    fn a_mistake_is_told_with_its_file_and_place() {
        let code = "[[services]]\nnamespace = \"code\"\n";
        let here = "urls = [\"http://127.0.0.1:1\"]\n";
        let mistakes = [
            code.replace("code", "Code"),
            format!("{code}url = []\n"),
            format!("{code}urls = [\"no\"]\n"),
            format!("{code}urls = []\n"),
            format!("{code}{here}timeout_ms = 0\n"),
            format!("{code}{here}{code}{here}"),
            format!("{}{here}", code.replace("code", "flagged")),
        ];
        let told: Vec<_> = mistakes.iter().map(|text| parse(text).unwrap_err()).collect();
        insta::assert_snapshot!(told.join("\n"), @r#"
        /etc/drawbridge/edge.toml: TOML parse error at line 2, column 13
          |
        2 | namespace = "Code"
          |             ^^^^^^
        a namespace has 1 to 32 of the characters a-z 0-9 _ and begins with a letter

        /etc/drawbridge/edge.toml: TOML parse error at line 3, column 1
          |
        3 | url = []
          | ^^^
        unknown field `url`, expected one of `namespace`, `urls`, `timeout_ms`, `descriptor_set`

        /etc/drawbridge/edge.toml: TOML parse error at line 3, column 9
          |
        3 | urls = ["no"]
          |         ^^^^
        relative URL without a base: "no"

        /etc/drawbridge/edge.toml:2: the service code has no url
        /etc/drawbridge/edge.toml:4: timeout_ms must not be 0
        /etc/drawbridge/edge.toml:5: the namespace "code" is given twice
        /etc/drawbridge/edge.toml:2: the namespace "flagged" is given by a flag too
        "#);
    }
}
