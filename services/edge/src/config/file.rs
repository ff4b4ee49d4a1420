//! The edge's config file.

use std::{
    collections::btree_map::Entry,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use drawbridge_config::{
    ConfigError, ConfigText, Mistakes, Namespace,
    edge::{EdgeFile, LockMode, ServiceEntry},
};
use drawbridge_runtime::GrpcUrl;
use tokio::task::JoinError;

use super::{OtherServices, ServiceSettings, Services};
use crate::{
    catalog::{CatalogLock, LOCK_BYTES_MAX, LockEnforcer, MetaKeys, Overlay},
    traffic::cache,
    traffic::guard,
    traffic::limits::LimitRules,
    traffic::queue::QueueRules,
};

/// The config file, which an operator may edit while the edge runs.
#[derive(Clone, Debug)]
pub(crate) struct ConfigFile {
    path: PathBuf,
}

/// The texts of the config file and of the catalog lock that it names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ConfigSources {
    pub(crate) config: ConfigText,
    pub(crate) lock: Option<ConfigText>,
}

/// The parsed config file, merged with the services of the flags.
#[derive(Debug, Default)]
pub(crate) struct ParsedConfig {
    pub(crate) services: Services,
    /// What clients see of the services.
    pub(crate) overlay: Overlay,
    pub(crate) policy: RuntimePolicy,
    /// How the lock is enforced, if the file names one.
    pub(crate) lock_mode: Option<LockMode>,
    /// Enforces the lock. Set once the lock was read.
    pub(crate) lock_enforcer: Option<Arc<LockEnforcer>>,
}

/// The settings besides the services and their overlay.
#[derive(Debug, Default)]
pub(crate) struct RuntimePolicy {
    pub(crate) limits: LimitRules,
    pub(crate) concurrency: QueueRules,
    pub(crate) guards: guard::GuardRules,
    pub(crate) cache: cache::CacheSettings,
}

impl ConfigFile {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the file, and the lock that it names.
    pub(crate) async fn read(&self) -> Result<ConfigSources, ConfigError> {
        let path = self.path.clone();
        let reading = tokio::task::spawn_blocking(move || ConfigSources::read(&path)).await;
        reading.unwrap_or_else(|error| Err(interrupted(&self.path, error)))
    }
}

impl ConfigSources {
    pub(crate) fn read(path: &Path) -> Result<Self, ConfigError> {
        let config = ConfigText::read(path)?;
        let lock = lock_path(&config).map(|path| ConfigText::read_within(&path, LOCK_BYTES_MAX));
        Ok(Self { lock: lock.transpose()?, config })
    }

    /// Parses the sources, and merges the services of the flags. Runs on a blocking thread, because
    /// compiling programs is slow.
    pub(crate) async fn parse(&self, others: &OtherServices) -> Result<ParsedConfig, ConfigError> {
        let (sources, others) = (self.clone(), others.clone());
        let parsing = tokio::task::spawn_blocking(move || sources.parse_blocking(&others)).await;
        parsing.unwrap_or_else(|error| Err(interrupted(self.config.path(), error)))
    }

    fn parse_blocking(&self, others: &OtherServices) -> Result<ParsedConfig, ConfigError> {
        let mut config = parse(&self.config, others)?;
        let lock = config.lock_mode.zip(self.lock.as_ref());
        let enforcer = lock.map(|(mode, lock)| LockEnforcer::new(lock, mode)).transpose()?;
        config.lock_enforcer = enforcer.map(Arc::new);
        Ok(config)
    }
}

fn interrupted(path: &Path, error: JoinError) -> ConfigError {
    ConfigError::Read { path: path.to_owned(), source: std::io::Error::other(error) }
}

/// The path of the lock that a config file names. `None` also if the file is invalid, which `parse`
/// reports.
pub(crate) fn lock_path(config: &ConfigText) -> Option<PathBuf> {
    let file: EdgeFile = config.parse().ok()?;
    Some(config.resolve_path(&file.catalog?.lock))
}

/// Checks an edge's config file, and the catalog lock that it names. `services` are the namespaces
/// of the services that flags name.
///
/// # Errors
/// The mistakes of the file or, if it has none, of the lock.
pub fn check_config(text: &ConfigText, services: &[Namespace]) -> Result<(), ConfigError> {
    let flags = services.iter().map(|name| (name.clone(), ServiceSettings::default()));
    parse(text, &flags.collect::<Services>().into())?;
    if let Some(path) = lock_path(text) {
        CatalogLock::parse(&ConfigText::read_within(&path, LOCK_BYTES_MAX)?)?;
    }
    Ok(())
}

/// Parses this text, and merges the services of the flags.
pub(crate) fn parse(
    text: &ConfigText,
    others: &OtherServices,
) -> Result<ParsedConfig, ConfigError> {
    let mut mistakes = Mistakes::new(text);
    let file = mistakes.parse::<EdgeFile>();
    let config = file.map(|file| lower(file, others, &mut mistakes));
    mistakes.finish(config)
}

fn lower(file: EdgeFile, others: &OtherServices, mistakes: &mut Mistakes<'_>) -> ParsedConfig {
    let OtherServices { flags, are_discovered } = others;
    let limits = LimitRules::new(&file.limits, &file.limit, mistakes);
    let guards = guard::GuardRules::new(&file.guard, mistakes);
    let cache = cache::CacheSettings::from(&file.cache);
    let mut services = flags.clone();
    for service in &file.services {
        let settings = settings(service, mistakes);
        match services.entry((*service.namespace).clone()) {
            Entry::Vacant(entry) => {
                entry.insert(settings);
            }
            Entry::Occupied(entry) => {
                let also = if flags.contains_key(entry.key()) { "by a flag too" } else { "twice" };
                let problem = format!("the namespace {:?} is given {also}", entry.key().as_str());
                mistakes.push(service.namespace.span(), problem);
            }
        }
    }
    let namespaces = services.keys().cloned().collect();
    let known = (!are_discovered).then_some(&namespaces);
    let concurrency = QueueRules::new(&file.concurrency, known, mistakes);
    let mut overlay = Overlay::new(&file.tool, &file.server, &namespaces, mistakes);
    overlay.meta_keys = file.meta.allow.map(MetaKeys::from).unwrap_or_default();
    let policy = RuntimePolicy { limits, concurrency, guards, cache };
    ParsedConfig {
        services,
        overlay,
        policy,
        lock_mode: file.catalog.map(|catalog| catalog.mode),
        lock_enforcer: None,
    }
}

fn settings(service: &ServiceEntry, mistakes: &mut Mistakes<'_>) -> ServiceSettings {
    let namespace = &service.namespace;
    if service.urls.is_empty() {
        let problem = format!("the service {namespace} needs at least one URL in `urls`");
        mistakes.push_combined(namespace.span(), problem);
    }
    let descriptor_set = service.descriptor_set.as_ref();
    ServiceSettings {
        urls: service.urls.iter().map(|GrpcUrl(url)| url.clone()).collect(),
        timeout: service.timeout_ms.as_ref().map(|timeout| Duration::from_millis(timeout.get())),
        descriptor_set: descriptor_set.map(|path| mistakes.text().resolve_path(path)),
        spiffe_id: service.spiffe_id.clone(),
    }
}

#[cfg(test)]
mod tests {
    use drawbridge_transport::SpiffeId;

    use super::*;
    use crate::config::from_flags;

    fn parse(text: &str) -> Result<Services, String> {
        let flags = from_flags(&["flagged=http://127.0.0.1:1".parse().unwrap()]);
        let text = ConfigText::new("/etc/drawbridge/edge.toml", text);
        super::parse(&text, &flags.into())
            .map(|config| config.services)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn services_of_the_file_and_of_the_flags_are_merged() {
        let text = r#"
            [[services]]
            namespace = "code"
            urls = ["http://code-0:7210", "http://code-1:7210"]
            timeout_ms = 5000
            descriptor_set = "code.binpb"
            spiffe_id = "spiffe://acme.example/ns/tools/sa/code"
        "#;
        let services = parse(text).unwrap();
        let names: Vec<_> = services.keys().map(Namespace::as_str).collect();
        assert_eq!(names, ["code", "flagged"]);
        let code = &services["code"];
        assert_eq!(code.urls.len(), 2);
        assert_eq!(code.timeout, Some(Duration::from_secs(5)));
        assert_eq!(code.descriptor_set.as_deref(), Some(Path::new("/etc/drawbridge/code.binpb")));
        let id = code.spiffe_id.as_ref().map(SpiffeId::as_str);
        assert_eq!(id, Some("spiffe://acme.example/ns/tools/sa/code"));
        assert_eq!(parse("").unwrap().len(), 1);
    }

    #[test]
    fn an_invalid_config_is_reported_with_its_file_and_position() {
        let code = "[[services]]\nnamespace = \"code\"\n";
        let here = "urls = [\"http://127.0.0.1:1\"]\n";
        let invalid = [
            code.replace("code", "Code"),
            format!("{code}url = []\n"),
            format!("{code}urls = [\"localhost:7450\"]\n"),
            format!("{code}urls = []\n"),
            format!("{code}{here}timeout_ms = 0\n"),
            format!("{code}{here}spiffe_id = \"code\"\n"),
            format!("{code}{here}{code}{here}"),
            format!("{}{here}", code.replace("code", "flagged")),
        ];
        let errors: Vec<_> = invalid.iter().map(|text| parse(text).unwrap_err()).collect();
        insta::assert_snapshot!(errors.join("\n"), @r#"
        /etc/drawbridge/edge.toml:2:13: invalid namespace: expected 1 to 32 of the characters a-z 0-9 _, beginning with a letter
          |
        2 | namespace = "Code"
          |             ^^^^^^
        /etc/drawbridge/edge.toml:3:1: unknown field `url`, expected one of `namespace`, `urls`, `timeout_ms`, `descriptor_set`, `spiffe_id`
          |
        3 | url = []
          | ^^^
          = help: did you mean `urls`?
        /etc/drawbridge/edge.toml:3:8: the scheme is missing: write `http://localhost:7450` or `https://localhost:7450`
          |
        3 | urls = ["localhost:7450"]
          |        ^^^^^^^^^^^^^^^^^^
        /etc/drawbridge/edge.toml:2:13: the service code needs at least one URL in `urls`
          |
        2 | namespace = "code"
          |             ^^^^^^
        /etc/drawbridge/edge.toml:4:14: must be at least 1
          |
        4 | timeout_ms = 0
          |              ^
        /etc/drawbridge/edge.toml:4:13: invalid SPIFFE id "code" (expected e.g. spiffe://acme.example/edge)
          |
        4 | spiffe_id = "code"
          |             ^^^^^^
        /etc/drawbridge/edge.toml:5:13: the namespace "code" is given twice
          |
        5 | namespace = "code"
          |             ^^^^^^
        /etc/drawbridge/edge.toml:2:13: the namespace "flagged" is given by a flag too
          |
        2 | namespace = "flagged"
          |             ^^^^^^^^^
        "#);
    }

    #[tokio::test]
    async fn the_lock_that_a_config_file_names_is_read_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let (file, lock) = (folder.path().join("edge.toml"), folder.path().join("catalog.lock"));
        let read = async || ConfigSources::read(&file)?.parse(&OtherServices::default()).await;
        std::fs::write(&file, "").unwrap();
        assert!(read().await.unwrap().lock_enforcer.is_none());
        std::fs::write(&file, "[catalog]\nlock = \"catalog.lock\"\n").unwrap();
        assert_eq!(
            read().await.unwrap_err().to_string(),
            format!("cannot read {}", lock.display())
        );
        std::fs::write(&lock, "{}").unwrap();
        assert!(
            read()
                .await
                .unwrap_err()
                .to_string()
                .contains("catalog.lock:1:1: missing field `version`")
        );
        std::fs::write(&lock, crate::CatalogLock::default().text()).unwrap();
        assert!(read().await.unwrap().lock_enforcer.is_some());
        std::fs::write(&file, "[catalog]\nlock = \"catalog.lock\"\nmode = \"off\"\n").unwrap();
        assert!(
            read()
                .await
                .unwrap_err()
                .to_string()
                .contains("unknown variant `off`, expected `warn` or `enforce`")
        );
    }
}
