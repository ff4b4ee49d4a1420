//! Issuers of access tokens: metadata, keys and clock.

use std::path::PathBuf;

use drawbridge_config::{
    ConfigText,
    issuers::{IssuerEntry, IssuersFile, Preset},
};
use drawbridge_runtime::{bounded, error_chain, is_loopback};
use drawbridge_transport::{
    fetch::{FetchError, Fetched, Fetcher, NetworkScope},
    jwks::{self, UsableKey},
};
use http::{Method, StatusCode};
use serde_json::Value;
use url::Url;

use super::{
    check::{Check, Finding},
    http::compare_clock,
};

const AREA: &str = "issuer";
/// The largest file of keys, in bytes.
const FILE_BYTES_MAX: u64 = 256 * 1024;

/// An issuer whose access tokens auth accepts.
#[derive(Clone, Debug)]
pub(super) struct IssuerTarget {
    name: String,
    keys: Keys,
    /// The algorithms that may sign its tokens. Empty: all.
    algorithms: Vec<String>,
    scope: NetworkScope,
}

#[derive(Clone, Debug)]
enum Keys {
    Metadata,
    Url(Url),
    File(PathBuf),
    /// Its tokens are opaque.
    Introspection(Url),
}

impl IssuerTarget {
    /// An issuer whose metadata names its keys.
    pub(super) fn new(name: &str, allow_private_addresses: bool) -> Self {
        Self {
            name: name.to_owned(),
            keys: Keys::Metadata,
            algorithms: Vec::new(),
            scope: scope(allow_private_addresses),
        }
    }

    /// The issuer of an option: the development authorization server on loopback needs no
    /// permission.
    pub(super) fn of_option(issuer: &Url, name: &str) -> Self {
        Self::new(name, is_loopback(issuer))
    }

    fn of_entry(entry: &IssuerEntry, file: &std::path::Path) -> Self {
        let beside = |path: &PathBuf| file.parent().map_or(path.clone(), |it| it.join(path));
        let introspection = entry.introspection.as_ref().map(|table| (*table.url).clone());
        let keys = match (&entry.jwks_url, &entry.jwks_file, introspection) {
            (Some(url), _, _) => Keys::Url((**url).clone()),
            (_, Some(path), _) => Keys::File(beside(path)),
            (_, _, Some(url)) => Keys::Introspection(url),
            _ => Keys::Metadata,
        };
        let algorithms = entry.algorithms.iter().flat_map(|all| all.iter());
        Self {
            name: entry.issuer.to_string(),
            keys,
            algorithms: algorithms.map(|algorithm| format!("{algorithm:?}")).collect(),
            scope: scope(entry.allow_private_addresses),
        }
    }

    /// The issuers of a file. A file with mistakes is a finding of the check of files.
    pub(super) fn of_file(path: &std::path::Path) -> Vec<Self> {
        let text = ConfigText::read(path);
        let file = text.and_then(|text| text.parse::<IssuersFile>());
        let entries = file.map(|file| file.issuers).unwrap_or_default();
        let entries = entries.iter().filter(|entry| entry.preset != Some(Preset::Google));
        entries.map(|entry| Self::of_entry(entry, path)).collect()
    }

    /// Its name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Its check.
    pub(super) fn check(self) -> Check {
        Check::new(AREA, self.name.clone(), async move { self.inspect().await })
    }

    async fn inspect(&self) -> Vec<Finding> {
        let fetcher = match Fetcher::new(self.scope) {
            Ok(fetcher) => fetcher,
            Err(error) => {
                return vec![Finding::failed(
                    format!("no HTTPS client: {}", error_chain(&error)),
                    "install the certificates of public authorities (ca-certificates)",
                )];
            }
        };
        let mut findings = Vec::new();
        match &self.keys {
            Keys::Introspection(url) => findings.push(self.introspection(&fetcher, url).await),
            Keys::File(path) => match bounded::read_file(path, FILE_BYTES_MAX) {
                Ok(document) => findings.push(self.judge_keys(&document, &path.display())),
                Err(error) => findings.push(Finding::failed(
                    format!("cannot read its keys in {}: {error}", path.display()),
                    "write its key set (JWKS) there, readable by auth",
                )),
            },
            Keys::Url(url) => self.fetch_keys(&fetcher, url, &mut findings).await,
            Keys::Metadata => {
                if let Some(url) = self.discover(&fetcher, &mut findings).await {
                    self.fetch_keys(&fetcher, &url, &mut findings).await;
                }
            }
        }
        findings
    }

    /// Reads the metadata, by RFC 8414 or else by OpenID Connect Discovery, and returns the URL of
    /// the keys.
    async fn discover(&self, fetcher: &Fetcher, findings: &mut Vec<Finding>) -> Option<Url> {
        let Some(urls) = jwks::metadata_urls(&self.name) else {
            findings.push(Finding::failed(
                "its name is not a URL, so it has no metadata",
                "give its keys by jwks_url or jwks_file in the issuers file",
            ));
            return None;
        };
        let mut problem = None;
        for url in &urls {
            match get(fetcher, url).await {
                Ok(found) if found.status == StatusCode::OK => {
                    findings.extend(compare_clock(&found.headers));
                    return self.judge_metadata(url, found, findings);
                }
                Ok(found) => {
                    problem.get_or_insert(format!("{url} answered {}", found.status));
                }
                Err(error) => {
                    findings.push(self.unreachable(&error));
                    return None;
                }
            }
        }
        findings.push(Finding::failed(
            format!("it has no metadata: {}", problem.unwrap_or_default()),
            "name the issuer exactly as in the claim iss of its tokens; or give its keys by \
             jwks_url in the issuers file",
        ));
        None
    }

    fn judge_metadata(
        &self,
        url: &Url,
        found: Fetched,
        findings: &mut Vec<Finding>,
    ) -> Option<Url> {
        let metadata: Value = match found.json() {
            Ok(metadata) => metadata,
            Err(error) => {
                findings.push(Finding::failed(
                    error_chain(&error),
                    "see what answers there: a proxy or a login page may be in between",
                ));
                return None;
            }
        };
        let named = metadata["issuer"].as_str().unwrap_or_default();
        if named != self.name {
            findings.push(Finding::failed(
                format!("{url} is the metadata of {named:?}, not of {:?}", self.name),
                format!(
                    "use the issuer's own spelling, down to the trailing slash: {named:?}; auth \
                     compares it with the claim iss"
                ),
            ));
            return None;
        }
        let keys = metadata["jwks_uri"].as_str().and_then(|url| Url::parse(url).ok());
        match &keys {
            Some(_) => findings.push(Finding::ok(format!("metadata at {url}"))),
            None => findings.push(Finding::failed(
                format!("{url} has no jwks_uri"),
                "give its keys by jwks_url in the issuers file",
            )),
        }
        keys
    }

    async fn fetch_keys(&self, fetcher: &Fetcher, url: &Url, findings: &mut Vec<Finding>) {
        match get(fetcher, url).await {
            Ok(found) if found.status == StatusCode::OK => {
                if !matches!(self.keys, Keys::Metadata) {
                    findings.extend(compare_clock(&found.headers));
                }
                findings.push(self.judge_keys(found.body(), url));
            }
            Ok(found) => findings.push(Finding::failed(
                format!("its keys at {url}: the answer is {}", found.status),
                "see why the authorization server does not serve its keys",
            )),
            Err(error) => findings.push(self.unreachable(&error)),
        }
    }

    fn judge_keys(&self, document: &[u8], place: &dyn std::fmt::Display) -> Finding {
        let UsableKeys { keys, algorithms } = match usable(document) {
            Ok(usable) => usable,
            Err(error) => {
                return Finding::failed(
                    format!("{place} is no key set (RFC 7517): {error}"),
                    "name the URL of the issuer's JWKS",
                );
            }
        };
        if keys == 0 {
            return Finding::failed(
                format!("{place} has no usable key"),
                "a key needs a kid, must be for signatures, and of ES256, ES384, EdDSA, RS* or PS*",
            );
        }
        let is_allowed =
            |name: &String| self.algorithms.is_empty() || self.algorithms.contains(name);
        if !algorithms.iter().any(is_allowed) {
            return Finding::failed(
                format!(
                    "its keys sign with {}, and only {} is allowed",
                    algorithms.join(", "),
                    self.algorithms.join(", ")
                ),
                "correct `algorithms` of this issuer in the issuers file",
            );
        }
        let plural = if keys == 1 { "key" } else { "keys" };
        Finding::ok(format!("{keys} usable {plural} ({})", algorithms.join(", ")))
    }

    /// Whether an endpoint of introspection answers. Its client is not used: a wrong guess could
    /// lock it.
    async fn introspection(&self, fetcher: &Fetcher, url: &Url) -> Finding {
        match get(fetcher, url).await {
            Ok(found) if found.status != StatusCode::NOT_FOUND => {
                Finding::ok(format!("introspection at {url} answers"))
            }
            Ok(found) => Finding::failed(
                format!("introspection at {url}: the answer is {}", found.status),
                "correct introspection.url of this issuer in the issuers file",
            ),
            Err(error) => self.unreachable(&error),
        }
    }

    fn unreachable(&self, error: &FetchError) -> Finding {
        let to_do = match error {
            FetchError::Scheme { .. } | FetchError::Address { .. } => {
                "serve it by https at a public address; or, if you trust that network, set \
                 allow_private_addresses for this issuer (--allow-private-addresses)"
            }
            _ => {
                "see whether the authorization server runs, and that DNS, firewall and TLS let \
                 auth reach it; without its keys every token is refused"
            }
        };
        Finding::failed(error_chain(error), to_do)
    }
}

fn scope(allow_private_addresses: bool) -> NetworkScope {
    if allow_private_addresses { NetworkScope::Anywhere } else { NetworkScope::Public }
}

async fn get(fetcher: &Fetcher, url: &Url) -> Result<Fetched, FetchError> {
    fetcher.send(url, fetcher.request(Method::GET, url)?).await
}

struct UsableKeys {
    keys: usize,
    /// Without duplicates, sorted.
    algorithms: Vec<String>,
}

fn usable(document: &[u8]) -> Result<UsableKeys, serde_json::Error> {
    let keys = jwks::usable_keys(document)?;
    let algorithms = keys.iter().flat_map(|UsableKey { algorithms, .. }| algorithms.clone());
    let algorithms: std::collections::BTreeSet<_> = algorithms.collect();
    Ok(UsableKeys { keys: keys.len(), algorithms: algorithms.into_iter().collect() })
}
