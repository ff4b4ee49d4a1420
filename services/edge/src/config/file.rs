//! The edge's config file.

use std::{
    collections::btree_map::Entry,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use drawbridge_runtime::{ConfigText, ConfigTextError, GrpcUrl};
use drawbridge_transport::SpiffeId;
use serde::Deserialize;
use toml::Spanned;

use super::{ServiceSettings, Services};
use crate::{
    catalog::{LOCK_BYTES_MAX, LockEnforcer, LockMode, MetaKeys, Overlay, ServerEntry, ToolEntry},
    namespace::Namespace,
    traffic::cache::{self, CacheTable},
    traffic::guard::{self, GuardEntry},
    traffic::limits::{LimitEntry, LimitRules, LimitsTable},
    traffic::queue::{ConcurrencyTable, QueueRules},
};

/// The config file, which an operator may edit while the edge runs.
#[derive(Clone, Debug)]
pub(crate) struct ConfigFile {
    path: PathBuf,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileContent {
    #[serde(default)]
    services: Vec<ServiceEntry>,
    #[serde(default)]
    limits: LimitsTable,
    #[serde(default)]
    limit: Vec<LimitEntry>,
    #[serde(default)]
    concurrency: ConcurrencyTable,
    #[serde(default)]
    cache: CacheTable,
    #[serde(default)]
    guard: Vec<GuardEntry>,
    #[serde(default)]
    tool: Vec<ToolEntry>,
    #[serde(default)]
    server: Vec<ServerEntry>,
    catalog: Option<CatalogTable>,
    #[serde(default)]
    meta: MetaTable,
}

/// `[meta]`: which keys of `_meta` of items and results are passed to clients.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct MetaTable {
    /// Keys; a trailing `*` matches all keys with this prefix. Absent: the documented default keys.
    allow: Option<Vec<String>>,
}

/// `[catalog]`: the catalog lock.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CatalogTable {
    lock: PathBuf,
    #[serde(default)]
    mode: LockMode,
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

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ServiceEntry {
    namespace: Spanned<Namespace>,
    urls: Vec<GrpcUrl>,
    timeout_ms: Option<Spanned<u64>>,
    descriptor_set: Option<PathBuf>,
    spiffe_id: Option<SpiffeId>,
}

impl ConfigFile {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the file, and the lock that it names.
    pub(crate) async fn read(&self) -> Result<ConfigSources, ConfigTextError> {
        let path = self.path.clone();
        let reading = tokio::task::spawn_blocking(move || ConfigSources::read(&path)).await;
        reading.unwrap_or_else(|error| {
            Err(ConfigTextError::Read {
                path: self.path.clone(),
                source: std::io::Error::other(error),
            })
        })
    }
}

impl ConfigSources {
    pub(crate) fn read(path: &Path) -> Result<Self, ConfigTextError> {
        let config = ConfigText::read(path)?;
        let lock = lock_path(&config).map(|path| ConfigText::read_within(&path, LOCK_BYTES_MAX));
        Ok(Self { lock: lock.transpose()?, config })
    }

    /// Parses the sources, and merges the services of the flags. Runs on a blocking thread, because
    /// compiling programs is slow.
    pub(crate) async fn parse(&self, flags: &Services) -> Result<ParsedConfig, ConfigTextError> {
        let (sources, flags) = (self.clone(), flags.clone());
        let parsing = tokio::task::spawn_blocking(move || sources.parse_blocking(&flags)).await;
        parsing.unwrap_or_else(|error| Err(self.config.error_at(0, error.to_string())))
    }

    fn parse_blocking(&self, flags: &Services) -> Result<ParsedConfig, ConfigTextError> {
        let mut config = parse(&self.config, flags)?;
        let lock = config.lock_mode.zip(self.lock.as_ref());
        let enforcer = lock.map(|(mode, lock)| LockEnforcer::new(lock, mode)).transpose()?;
        config.lock_enforcer = enforcer.map(Arc::new);
        Ok(config)
    }
}

/// The path of the lock that a config file names. `None` also if the file is invalid, which `parse`
/// reports.
pub(crate) fn lock_path(config: &ConfigText) -> Option<PathBuf> {
    let content: FileContent = config.parse().ok()?;
    Some(config.resolve_path(&content.catalog?.lock))
}

/// Parses this text, and merges the services of the flags.
pub(crate) fn parse(text: &ConfigText, flags: &Services) -> Result<ParsedConfig, ConfigTextError> {
    let content: FileContent = text.parse()?;
    let limits = LimitRules::new(text, &content.limits, &content.limit)?;
    let guards = guard::GuardRules::new(text, &content.guard)?;
    let cache = cache::CacheSettings::new(text, &content.cache)?;
    let mut services = flags.clone();
    for service in content.services {
        let place = service.namespace.span().start;
        let settings = settings(text, &service)?;
        match services.entry(service.namespace.into_inner()) {
            Entry::Vacant(entry) => entry.insert(settings),
            Entry::Occupied(entry) => {
                let also = if flags.contains_key(entry.key()) { "by a flag too" } else { "twice" };
                let problem = format!("the namespace {:?} is given {also}", entry.key().as_str());
                return Err(text.error_at(place, problem));
            }
        };
    }
    let namespaces = services.keys().cloned().collect();
    let concurrency = QueueRules::new(text, &content.concurrency, &namespaces)?;
    let mut overlay = Overlay::new(text, &content.tool, &content.server, &namespaces)?;
    overlay.meta_keys = content.meta.allow.map(MetaKeys::from).unwrap_or_default();
    let policy = RuntimePolicy { limits, concurrency, guards, cache };
    Ok(ParsedConfig {
        services,
        overlay,
        policy,
        lock_mode: content.catalog.map(|catalog| catalog.mode),
        lock_enforcer: None,
    })
}

fn settings(text: &ConfigText, service: &ServiceEntry) -> Result<ServiceSettings, ConfigTextError> {
    if service.urls.is_empty() {
        let problem =
            format!("the service {} needs at least one URL in `urls`", service.namespace.get_ref());
        return Err(text.error_at(service.namespace.span().start, problem));
    }
    if let Some(timeout) = service.timeout_ms.as_ref().filter(|timeout| *timeout.get_ref() == 0) {
        return Err(text.error_at(timeout.span().start, "timeout_ms must not be 0"));
    }
    let timeout =
        service.timeout_ms.as_ref().map(|timeout| Duration::from_millis(*timeout.get_ref()));
    let descriptor_set = service.descriptor_set.as_ref().map(|path| text.resolve_path(path));
    let spiffe_id = service.spiffe_id.clone();
    let urls = service.urls.iter().map(|GrpcUrl(url)| url.clone()).collect();
    Ok(ServiceSettings { urls, timeout, descriptor_set, spiffe_id })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::from_flags;

    fn parse(text: &str) -> Result<Services, String> {
        let flags = from_flags(&["flagged=http://127.0.0.1:1".parse().unwrap()]);
        let text = ConfigText::new("/etc/drawbridge/edge.toml", text);
        super::parse(&text, &flags).map(|config| config.services).map_err(|error| error.to_string())
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
        /etc/drawbridge/edge.toml: TOML parse error at line 2, column 13
          |
        2 | namespace = "Code"
          |             ^^^^^^
        invalid namespace: expected 1 to 32 of the characters a-z 0-9 _, beginning with a letter

        /etc/drawbridge/edge.toml: TOML parse error at line 3, column 1
          |
        3 | url = []
          | ^^^
        unknown field `url`, expected one of `namespace`, `urls`, `timeout_ms`, `descriptor_set`, `spiffe_id`

        /etc/drawbridge/edge.toml: TOML parse error at line 3, column 8
          |
        3 | urls = ["localhost:7450"]
          |        ^^^^^^^^^^^^^^^^^^
        the scheme is missing: write `http://localhost:7450` or `https://localhost:7450`

        /etc/drawbridge/edge.toml:2: the service code needs at least one URL in `urls`
        /etc/drawbridge/edge.toml:4: timeout_ms must not be 0
        /etc/drawbridge/edge.toml: TOML parse error at line 4, column 13
          |
        4 | spiffe_id = "code"
          |             ^^^^^^
        invalid SPIFFE id "code" (expected e.g. spiffe://acme.example/edge)

        /etc/drawbridge/edge.toml:5: the namespace "code" is given twice
        /etc/drawbridge/edge.toml:2: the namespace "flagged" is given by a flag too
        "#);
    }

    #[tokio::test]
    async fn the_lock_that_a_config_file_names_is_read_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let (file, lock) = (folder.path().join("edge.toml"), folder.path().join("catalog.lock"));
        let read = async || ConfigSources::read(&file)?.parse(&Services::new()).await;
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
                .contains("catalog.lock:1: missing field `version`")
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
