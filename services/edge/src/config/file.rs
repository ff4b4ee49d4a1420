//! The edge's config file.

use std::{
    collections::btree_map::Entry,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use drawbridge_sdk::{ConfigText, ConfigTextError, GrpcUrl, SpiffeId};
use serde::Deserialize;
use toml::Spanned;

use super::{ServiceSettings, Services};
use crate::{
    catalog::{LOCK_BYTES_MAX, MetaKeys, Namespace, PinMode, Pins, View},
    traffic::cache::{self, CacheTable},
    traffic::guard::{self, GuardEntry},
    traffic::limits::{LimitEntry, Rules, Settings},
    traffic::queue,
    traffic::transform::{self, ServerEntry, ToolEntry},
};

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
    #[serde(default)]
    limits: Settings,
    #[serde(default)]
    limit: Vec<LimitEntry>,
    #[serde(default)]
    concurrency: queue::Settings,
    #[serde(default)]
    cache: CacheTable,
    #[serde(default)]
    guard: Vec<GuardEntry>,
    #[serde(default)]
    tool: Vec<ToolEntry>,
    #[serde(default)]
    server: Vec<ServerEntry>,
    catalog: Option<CatalogSettings>,
    #[serde(default)]
    meta: MetaSettings,
}

/// `[meta]`: what reaches clients of the `_meta` of items and results.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct MetaSettings {
    /// Keys; one that ends with `*` stands for all that begin so. Absent: those that the documentation names.
    allow: Option<Vec<String>>,
}

/// `[catalog]`: what clients may see.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CatalogSettings {
    lock: PathBuf,
    #[serde(default)]
    mode: PinMode,
}

/// The file, and the catalog lock that it names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Texts {
    pub(crate) config: ConfigText,
    pub(crate) lock: Option<ConfigText>,
}

/// What the file and the flags together say.
#[derive(Debug, Default)]
pub(crate) struct Said {
    pub(crate) services: Services,
    /// What clients see of them.
    pub(crate) view: View,
    pub(crate) duties: Duties,
    /// How the lock is meant, where one is named.
    pub(crate) mode: Option<PinMode>,
    /// What the catalog is held against. It comes with the lock.
    pub(crate) pins: Option<Arc<Pins>>,
}

/// What the file says besides the services.
#[derive(Debug, Default)]
pub(crate) struct Duties {
    pub(crate) limits: Rules,
    pub(crate) concurrency: queue::Rules,
    pub(crate) guards: guard::Rules,
    pub(crate) cache: cache::Settings,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Service {
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

    /// What it says now.
    pub(crate) async fn read(&self) -> Result<Texts, ConfigTextError> {
        let path = self.path.clone();
        let reading = tokio::task::spawn_blocking(move || Texts::read(&path)).await;
        reading.unwrap_or_else(|error| {
            Err(ConfigTextError::Read {
                path: self.path.clone(),
                source: std::io::Error::other(error),
            })
        })
    }
}

impl Texts {
    pub(crate) fn read(path: &Path) -> Result<Self, ConfigTextError> {
        let config = ConfigText::read(path)?;
        let lock = lock_path(&config).map(|path| ConfigText::read_within(&path, LOCK_BYTES_MAX));
        Ok(Self { lock: lock.transpose()?, config })
    }

    /// What they say, together with the services of the flags. Programs are compiled, which takes its time.
    pub(crate) async fn parse(&self, flags: &Services) -> Result<Said, ConfigTextError> {
        let (texts, flags) = (self.clone(), flags.clone());
        let parsing = tokio::task::spawn_blocking(move || texts.parse_here(&flags)).await;
        parsing.unwrap_or_else(|error| Err(self.config.wrong(0, error.to_string())))
    }

    fn parse_here(&self, flags: &Services) -> Result<Said, ConfigTextError> {
        let mut said = parse(&self.config, flags)?;
        let pins = said.mode.zip(self.lock.as_ref()).map(|(mode, lock)| Pins::new(lock, mode));
        said.pins = pins.transpose()?.map(Arc::new);
        Ok(said)
    }
}

/// Where the lock is that a config file names. One that cannot be read names none; its mistakes are told elsewhere.
pub(crate) fn lock_path(config: &ConfigText) -> Option<PathBuf> {
    let content: Content = config.parse().ok()?;
    Some(config.beside(&content.catalog?.lock))
}

/// What this text says, together with the services of the flags.
pub(crate) fn parse(text: &ConfigText, flags: &Services) -> Result<Said, ConfigTextError> {
    let content: Content = text.parse()?;
    let limits = Rules::new(text, &content.limits, &content.limit)?;
    let guards = guard::Rules::new(text, &content.guard)?;
    let cache = cache::Settings::new(text, &content.cache)?;
    let mut services = flags.clone();
    for service in content.services {
        let place = service.namespace.span().start;
        let settings = settings(text, &service)?;
        match services.entry(service.namespace.into_inner()) {
            Entry::Vacant(entry) => entry.insert(settings),
            Entry::Occupied(entry) => {
                let also = if flags.contains_key(entry.key()) { "by a flag too" } else { "twice" };
                let problem = format!("the namespace {:?} is given {also}", entry.key().as_str());
                return Err(text.wrong(place, problem));
            }
        };
    }
    let concurrency = queue::Rules::new(text, &content.concurrency, &services)?;
    let mut view = transform::read(text, &content.tool, &content.server, &services)?;
    view.meta_keys = content.meta.allow.map(MetaKeys::from).unwrap_or_default();
    let duties = Duties { limits, concurrency, guards, cache };
    Ok(Said {
        services,
        view,
        duties,
        mode: content.catalog.map(|catalog| catalog.mode),
        pins: None,
    })
}

fn settings(text: &ConfigText, service: &Service) -> Result<ServiceSettings, ConfigTextError> {
    if service.urls.is_empty() {
        let problem = format!("the service {} has no url", service.namespace.get_ref());
        return Err(text.wrong(service.namespace.span().start, problem));
    }
    if let Some(timeout) = service.timeout_ms.as_ref().filter(|timeout| *timeout.get_ref() == 0) {
        return Err(text.wrong(timeout.span().start, "timeout_ms must not be 0"));
    }
    let timeout =
        service.timeout_ms.as_ref().map(|timeout| Duration::from_millis(*timeout.get_ref()));
    let descriptor_set = service.descriptor_set.as_ref().map(|path| text.beside(path));
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
        super::parse(&text, &flags).map(|said| said.services).map_err(|error| error.to_string())
    }

    #[test]
    fn the_file_and_the_flags_together_name_the_services() {
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
    fn a_mistake_is_told_with_its_file_and_place() {
        let code = "[[services]]\nnamespace = \"code\"\n";
        let here = "urls = [\"http://127.0.0.1:1\"]\n";
        let mistakes = [
            code.replace("code", "Code"),
            format!("{code}url = []\n"),
            format!("{code}urls = [\"localhost:7450\"]\n"),
            format!("{code}urls = []\n"),
            format!("{code}{here}timeout_ms = 0\n"),
            format!("{code}{here}spiffe_id = \"code\"\n"),
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
        unknown field `url`, expected one of `namespace`, `urls`, `timeout_ms`, `descriptor_set`, `spiffe_id`

        /etc/drawbridge/edge.toml: TOML parse error at line 3, column 8
          |
        3 | urls = ["localhost:7450"]
          |        ^^^^^^^^^^^^^^^^^^
        the scheme is missing: write `http://localhost:7450` or `https://localhost:7450`

        /etc/drawbridge/edge.toml:2: the service code has no url
        /etc/drawbridge/edge.toml:4: timeout_ms must not be 0
        /etc/drawbridge/edge.toml: TOML parse error at line 4, column 13
          |
        4 | spiffe_id = "code"
          |             ^^^^^^
        "code" is no SPIFFE id of a service, such as spiffe://acme.example/edge

        /etc/drawbridge/edge.toml:5: the namespace "code" is given twice
        /etc/drawbridge/edge.toml:2: the namespace "flagged" is given by a flag too
        "#);
    }

    #[tokio::test]
    async fn the_lock_that_a_file_names_is_read_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let (file, lock) = (folder.path().join("edge.toml"), folder.path().join("catalog.lock"));
        let read = async || Texts::read(&file)?.parse(&Services::new()).await;
        std::fs::write(&file, "").unwrap();
        assert!(read().await.unwrap().pins.is_none());
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
        assert!(read().await.unwrap().pins.is_some());
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
