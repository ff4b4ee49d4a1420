//! The issuers file. docs/reference/issuers-file.md documents its format.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use drawbridge_runtime::{ConfigText, ConfigTextError};
use drawbridge_transport::{
    fetch::{Fetcher, NetworkScope},
    jwks::{Jwks, JwksLimits, KeySource},
};
use jsonwebtoken::Algorithm;
use secrecy::SecretString;
use serde::Deserialize;
use tokio::sync::watch;
use toml::Spanned;
use url::Url;

use super::{
    introspection::{Endpoint, Introspection, IntrospectionLimits},
    issuer::{Failures, Issuer, IssuerRules},
    mapping::MappingTable,
    preset::Preset,
    tenants::Tenants,
    token::ALGORITHMS,
};

const LEEWAY_SECONDS: u64 = 30;
const LEEWAY_SECONDS_MAX: u64 = 300;
/// The field that allows fetching keys over http.
const PRIVATE_ADDRESSES: &str = "allow_private_addresses";
const TOKEN_INFO: &str = "https://oauth2.googleapis.com/tokeninfo";

/// The issuers are invalid.
#[derive(Debug, thiserror::Error)]
pub enum IssuersFileError {
    /// The file is invalid.
    #[error(transparent)]
    File(#[from] ConfigTextError),
    /// The issuer of the flags is invalid.
    #[error("--issuer {issuer}: {problem}")]
    Flag {
        /// The issuer.
        issuer: String,
        /// What is wrong.
        problem: String,
    },
    /// No issuer is configured.
    #[error("no issuer is configured: name one with --issuer, or several in a file with --issuers")]
    None,
}

impl IssuersFileError {
    /// An error in the issuer of the flags. Names of file fields are replaced by those of flags.
    fn flag(issuer: String, problem: &str) -> Self {
        let problem = problem.replace(PRIVATE_ADDRESSES, "--allow-private-addresses");
        Self::Flag { issuer, problem }
    }
}

/// The issuer given by flags.
#[derive(Clone, Debug)]
pub(crate) struct IssuerFlags {
    pub(crate) issuer: String,
    pub(crate) allow_private_addresses: bool,
    /// The tenants that it may name. Empty: not configured.
    pub(crate) tenants: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct IssuersFile {
    #[serde(default)]
    issuers: Vec<IssuerTable>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct IssuerTable {
    issuer: Spanned<String>,
    #[serde(default)]
    preset: Preset,
    audiences: Option<Vec<String>>,
    tenants: Option<Vec<String>>,
    algorithms: Option<Vec<Algorithm>>,
    jwks_url: Option<Url>,
    jwks_file: Option<PathBuf>,
    #[serde(default)]
    claims: MappingTable,
    leeway_seconds: Option<u64>,
    #[serde(default)]
    require_at_jwt: bool,
    #[serde(default)]
    workloads: bool,
    #[serde(default)]
    allow_private_addresses: bool,
    introspection: Option<IntrospectionTable>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct IntrospectionTable {
    url: Url,
    client_id: Option<String>,
    client_secret_file: Option<PathBuf>,
    client_secret_env: Option<String>,
    #[serde(default)]
    limits: IntrospectionLimits,
}

/// Reads the issuers of the flags and of the file.
pub(super) fn load(
    flags: Option<IssuerFlags>,
    path: Option<&Path>,
    changes: &watch::Sender<u64>,
) -> Result<Vec<Issuer>, IssuersFileError> {
    let text = path.map_or_else(|| Ok(ConfigText::new("", "")), ConfigText::read)?;
    let content: IssuersFile = text.parse()?;
    let context = BuildContext { text: &text, changes };
    let mut issuers: Vec<Issuer> = Vec::new();
    if let Some(flags) = flags {
        let issuer = flags.issuer.clone();
        let built = IssuerTable::from_flags(flags).build(&context);
        issuers.push(built.map_err(|problem| IssuersFileError::flag(issuer, &problem))?);
    }
    for table in content.issuers {
        let at = table.issuer.span().start;
        let invalid = |problem| IssuersFileError::File(text.error_at(at, problem));
        let issuer = table.build(&context).map_err(invalid)?;
        if issuers.iter().any(|other| other.name == issuer.name) {
            return Err(invalid(format!("the issuer {} is configured twice", issuer.name)));
        }
        let introspects = |issuer: &Issuer| issuer.introspection.is_some();
        if introspects(&issuer) && issuers.iter().any(introspects) {
            let problem = "only one issuer may have introspection: opaque tokens do not name \
                           their issuer";
            return Err(invalid(problem.to_owned()));
        }
        issuers.push(issuer);
    }
    if issuers.is_empty() {
        return Err(IssuersFileError::None);
    }
    Ok(issuers)
}

/// The context for building issuers.
struct BuildContext<'a> {
    text: &'a ConfigText,
    changes: &'a watch::Sender<u64>,
}

impl IssuerTable {
    /// A table with defaults for everything that flags do not set.
    fn from_flags(flags: IssuerFlags) -> Self {
        Self {
            issuer: Spanned::new(0..0, flags.issuer),
            preset: Preset::default(),
            audiences: None,
            tenants: Some(flags.tenants).filter(|tenants| !tenants.is_empty()),
            algorithms: None,
            jwks_url: None,
            jwks_file: None,
            claims: MappingTable::default(),
            leeway_seconds: None,
            require_at_jwt: false,
            workloads: false,
            allow_private_addresses: flags.allow_private_addresses,
            introspection: None,
        }
    }

    /// Builds the issuer, or returns what is wrong with it.
    fn build(&self, context: &BuildContext<'_>) -> Result<Issuer, String> {
        let name = self.issuer.get_ref();
        // Principals are identified as issuer#subject.
        if name.is_empty() || name.contains('#') {
            return Err("an issuer must be a value of the claim `iss` without #".to_owned());
        }
        let algorithms = self.algorithms.clone().unwrap_or(ALGORITHMS.to_vec());
        if algorithms.is_empty()
            || algorithms.iter().any(|algorithm| !ALGORITHMS.contains(algorithm))
        {
            return Err(format!("algorithms must be some of {ALGORITHMS:?}"));
        }
        let audiences = self.audiences.as_deref();
        let is_empty = |audience: &String| audience.trim_matches('/').is_empty();
        if audiences.is_some_and(|audiences| audiences.is_empty() || audiences.iter().any(is_empty))
        {
            return Err("audiences must not be empty: omit them for the edge's URLs".to_owned());
        }
        if self.preset == Preset::Google && audiences.is_none() {
            return Err("audiences are missing: Google's tokens name OAuth client ids".to_owned());
        }
        let leeway_seconds = self.leeway_seconds.unwrap_or(LEEWAY_SECONDS);
        if leeway_seconds > LEEWAY_SECONDS_MAX {
            return Err(format!("leeway_seconds must be at most {LEEWAY_SECONDS_MAX}"));
        }
        let default_prefix = self.preset.tenant_prefix().filter(|_| self.tenants.is_none());
        let prefix = self.claims.tenant_prefix.as_deref().or(default_prefix);
        let tenants = Tenants::new(prefix, self.tenants.as_deref())?;
        let keys = self.keys(context)?;
        let keys = keys.map(|source| {
            Jwks::with_change_notifier(source, JwksLimits::default(), context.changes.clone())
        });
        Ok(Issuer {
            failures: Failures::default(),
            name: name.clone(),
            rules: IssuerRules {
                preset: self.preset,
                audiences: self.audiences.clone(),
                algorithms,
                mapping: self.claims.clone().over(self.preset.mapping(), tenants),
                leeway_seconds,
                require_at_jwt: self.require_at_jwt,
                workloads: self.workloads,
            },
            keys,
            introspection: self.introspection(context)?,
        })
    }

    fn keys(&self, context: &BuildContext<'_>) -> Result<Option<KeySource>, String> {
        let source = match (&self.jwks_url, &self.jwks_file) {
            (Some(_), Some(_)) => {
                return Err("jwks_url and jwks_file are mutually exclusive".to_owned());
            }
            _ if !self.preset.has_keys() => {
                let has_key_fields = self.jwks_url.is_some()
                    || self.jwks_file.is_some()
                    || self.algorithms.is_some();
                if has_key_fields {
                    return Err("Google's access tokens are opaque and have no keys".to_owned());
                }
                return Ok(None);
            }
            (Some(url), None) => {
                self.check_url(url)?;
                KeySource::Url(url.clone(), self.fetcher()?)
            }
            (None, Some(file)) => KeySource::File(context.text.resolve_path(file)),
            (None, None) => {
                let name = self.issuer.get_ref();
                let url: Url = name.parse().map_err(|_| {
                    format!(
                        "the issuer {name:?} is not a URL, so its keys cannot be located: \
                         set jwks_url or jwks_file"
                    )
                })?;
                self.check_url(&url)?;
                KeySource::Issuer(name.clone(), self.fetcher()?)
            }
        };
        Ok(Some(source))
    }

    fn introspection(&self, context: &BuildContext<'_>) -> Result<Option<Introspection>, String> {
        let (url, endpoint) = match (&self.introspection, self.preset) {
            (None, Preset::Google) => {
                let url = TOKEN_INFO.parse().map_err(|_| "invalid URL".to_owned())?;
                (url, Endpoint::TokenInfo)
            }
            (None, _) => return Ok(None),
            (Some(table), Preset::Google) => (table.url.clone(), Endpoint::TokenInfo),
            (Some(table), _) => {
                let client_id =
                    table.client_id.clone().ok_or("introspection.client_id is missing")?;
                let client_secret = table.secret(context.text)?;
                (table.url.clone(), Endpoint::Introspection { client_id, client_secret })
            }
        };
        self.check_url(&url)?;
        let limits = self.introspection.as_ref().map(|table| table.limits).unwrap_or_default();
        Ok(Some(Introspection::new(url, self.fetcher()?, endpoint, limits)))
    }

    fn fetcher(&self) -> Result<Fetcher, String> {
        let scope = if self.allow_private_addresses {
            NetworkScope::Anywhere
        } else {
            NetworkScope::Public
        };
        Fetcher::new(scope).map_err(|error| format!("cannot create an HTTP client: {error}"))
    }

    fn check_url(&self, url: &Url) -> Result<(), String> {
        match url.scheme() {
            "https" => Ok(()),
            "http" if self.allow_private_addresses => Ok(()),
            "http" => Err(format!("{url} is not https; set {PRIVATE_ADDRESSES} to allow http")),
            _ => Err(format!("{url} is not https")),
        }
    }
}

impl IntrospectionTable {
    fn secret(&self, text: &ConfigText) -> Result<SecretString, String> {
        let secret = match (&self.client_secret_file, &self.client_secret_env) {
            (Some(file), None) => {
                let path = text.resolve_path(file);
                fs::read_to_string(&path)
                    .map_err(|error| format!("cannot read {}: {error}", path.display()))?
            }
            (None, Some(name)) => {
                env::var(name).map_err(|_| format!("the environment variable {name} is not set"))?
            }
            _ => {
                return Err(
                    "introspection needs client_secret_file or client_secret_env".to_owned()
                );
            }
        };
        match secret.trim_end() {
            "" => Err("the introspection secret is empty".to_owned()),
            secret => Ok(secret.to_owned().into()),
        }
    }
}
