//! The issuers file. docs/reference/issuers-file.md documents its format.

use std::{collections::HashSet, env, path::Path};

use drawbridge_config::{
    ConfigError, ConfigText, Mistakes,
    issuers::{self, IntrospectionTable, IssuerEntry, IssuersFile, Preset},
};
use drawbridge_runtime::bounded;
use drawbridge_transport::jwks::{Jwks, JwksLimits};
use jsonwebtoken::Algorithm;
use secrecy::SecretString;
use tokio::sync::watch;
use url::Url;

use super::{
    introspection::{Endpoint, Introspection},
    issuer::{Failures, Issuer, IssuerRules},
    mapping::Mapping,
    preset,
    tenants::{ANY_TENANT, Tenants},
    token::ALGORITHMS,
};

mod keys;

/// The largest file of a client secret, in bytes.
const SECRET_BYTES_MAX: u64 = 64 * 1024;
/// The field that allows fetching keys over http.
const PRIVATE_ADDRESSES: &str = "allow_private_addresses";
const TOKEN_INFO: &str = "https://oauth2.googleapis.com/tokeninfo";

/// The issuers are invalid.
#[derive(Debug, thiserror::Error)]
pub enum IssuersFileError {
    /// The file is invalid.
    #[error(transparent)]
    File(#[from] ConfigError),
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
    /// The error without any text of the file, which may contain secrets.
    pub(super) fn brief(&self) -> String {
        match self {
            Self::File(error) => error.brief(),
            error => error.to_string(),
        }
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

/// Reads the file.
pub(super) fn read(path: &Path) -> Result<ConfigText, IssuersFileError> {
    Ok(ConfigText::read(path)?)
}

/// Builds the issuers of the flags and of the file, if there is one.
pub(super) fn build(
    flags: Option<IssuerFlags>,
    text: Option<&ConfigText>,
    changes: &watch::Sender<u64>,
) -> Result<Vec<Issuer>, IssuersFileError> {
    let mut issuers = Vec::new();
    issuers.extend(flags.map(|flags| flags.build(changes)).transpose()?);
    if let Some(text) = text {
        let mut mistakes = Mistakes::new(text);
        let mut builder = IssuerBuilder { mistakes: &mut mistakes, changes, reads_secrets: true };
        let built = builder.file(&issuers);
        issuers.extend(mistakes.finish(Some(built))?);
    }
    if issuers.is_empty() {
        return Err(IssuersFileError::None);
    }
    Ok(issuers)
}

/// Checks an issuers file. Secrets that it names are not read.
///
/// # Errors
/// The mistakes of the file.
pub fn check(text: &ConfigText) -> Result<(), ConfigError> {
    let mut mistakes = Mistakes::new(text);
    let changes = watch::Sender::new(0);
    IssuerBuilder { mistakes: &mut mistakes, changes: &changes, reads_secrets: false }.file(&[]);
    mistakes.finish(Some(()))
}

impl IssuerFlags {
    fn build(self, changes: &watch::Sender<u64>) -> Result<Issuer, IssuersFileError> {
        let Self { issuer, allow_private_addresses, tenants } = self;
        let tenants = tenants.into_iter().map(Into::into).collect::<Vec<_>>();
        let entry = IssuerEntry {
            tenants: Some(tenants).filter(|tenants| !tenants.is_empty()),
            allow_private_addresses,
            ..IssuerEntry::new(issuer.clone())
        };
        let text = ConfigText::new("--issuer", "");
        let mut mistakes = Mistakes::new(&text);
        let built =
            IssuerBuilder { mistakes: &mut mistakes, changes, reads_secrets: true }.issuer(&entry);
        mistakes.finish(Some(built)).map_err(|error| {
            let problems = error.mistakes().iter().map(|mistake| mistake.problem.as_str());
            let problem = problems.collect::<Vec<_>>().join("; ");
            let problem = problem.replace(PRIVATE_ADDRESSES, "--allow-private-addresses");
            IssuersFileError::Flag { issuer, problem }
        })
    }
}

/// Builds issuers and collects the mistakes in their entries. What it builds of an entry with
/// mistakes is not used.
struct IssuerBuilder<'a, 'b> {
    mistakes: &'a mut Mistakes<'b>,
    changes: &'a watch::Sender<u64>,
    /// Whether secrets are read, rather than left empty.
    reads_secrets: bool,
}

impl IssuerBuilder<'_, '_> {
    /// The issuers of the file, beside `others`.
    fn file(&mut self, others: &[Issuer]) -> Vec<Issuer> {
        let IssuersFile { issuers: entries } = self.mistakes.parse().unwrap_or_default();
        let mut names: HashSet<_> = others.iter().map(|issuer| issuer.name.clone()).collect();
        let mut introspects = others.iter().any(|issuer| issuer.introspection.is_some());
        let mut issuers = Vec::new();
        for entry in &entries {
            let issuer = self.issuer(entry);
            if !names.insert(issuer.name.clone()) {
                let problem = format!("the issuer {} is configured twice", issuer.name);
                self.mistakes.push(entry.issuer.span(), problem);
            }
            if issuer.introspection.is_some() && introspects {
                let problem = "only one issuer may have introspection: opaque tokens do not name \
                               their issuer";
                let table = entry.introspection.as_ref();
                let span = table.map_or(entry.issuer.span(), |table| table.url.span());
                self.mistakes.push(span, problem);
            }
            introspects |= issuer.introspection.is_some();
            issuers.push(issuer);
        }
        issuers
    }

    fn issuer(&mut self, entry: &IssuerEntry) -> Issuer {
        let name = entry.issuer.as_str();
        // Principals are identified as issuer#subject.
        if name.is_empty() || name.contains('#') {
            let problem = "an issuer must be a value of the claim `iss` without #";
            self.mistakes.push(entry.issuer.span(), problem);
        }
        self.check_audiences(entry);
        let rules = IssuerRules {
            preset: entry.preset,
            audiences: entry
                .audiences
                .as_ref()
                .map(|audiences| audiences.iter().map(|audience| audience.to_string()).collect()),
            algorithms: self.algorithms(entry),
            mapping: self.mapping(entry),
            leeway_seconds: entry.leeway_seconds.get(),
            require_at_jwt: entry.require_at_jwt,
            workloads: entry.workloads,
        };
        let keys = self.keys(entry).map(|source| {
            Jwks::with_change_notifier(source, JwksLimits::default(), self.changes.clone())
        });
        let introspection = self.introspection(entry);
        Issuer { name: name.to_owned(), rules, keys, introspection, failures: Failures::default() }
    }

    fn check_audiences(&mut self, entry: &IssuerEntry) {
        let problem = "audiences must not be empty: omit them for the edge's URLs";
        match &entry.audiences {
            None if entry.preset == Some(Preset::Google) => self.mistakes.push_combined(
                entry.issuer.span(),
                "audiences are missing: Google's tokens name OAuth client ids",
            ),
            None => {}
            Some(audiences) if audiences.is_empty() => {
                self.mistakes.push(audiences.span(), problem);
            }
            Some(audiences) => {
                for empty in audiences.iter().filter(|name| name.trim_matches('/').is_empty()) {
                    self.mistakes.push(empty.span(), problem);
                }
            }
        }
    }

    fn algorithms(&mut self, entry: &IssuerEntry) -> Vec<Algorithm> {
        let Some(algorithms) = &entry.algorithms else { return ALGORITHMS.to_vec() };
        if algorithms.is_empty() {
            let problem = "algorithms must not be empty: omit them for all";
            self.mistakes.push_combined(algorithms.span(), problem);
        }
        algorithms.iter().copied().map(algorithm).collect()
    }

    fn mapping(&mut self, entry: &IssuerEntry) -> Mapping {
        if let Some(prefix) = entry.claims.tenant_prefix.as_ref().filter(|prefix| prefix.is_empty())
        {
            let problem = "claims.tenant_prefix must not be empty: omit it for no prefix";
            self.mistakes.push(prefix.span(), problem);
        }
        let names = entry.tenants.as_deref();
        for name in names.unwrap_or_default() {
            let is_one_of_several = names.is_some_and(|names| names.len() > 1);
            if name.is_empty() || (name.as_str() == ANY_TENANT && is_one_of_several) {
                let problem = format!("tenants must be names, or only {ANY_TENANT:?} for any");
                self.mistakes.push(name.span(), problem);
            }
        }
        let names = names.map(|names| names.iter().map(|name| name.to_string()).collect());
        let default_prefix = preset::tenant_prefix(entry.preset).filter(|_| names.is_none());
        let prefix = entry.claims.tenant_prefix.as_ref().map(|prefix| prefix.as_str());
        let tenants = Tenants::new(prefix.or(default_prefix), names);
        preset::mapping(entry.preset).overridden(entry.claims.clone(), tenants)
    }

    fn introspection(&mut self, entry: &IssuerEntry) -> Option<Introspection> {
        let (url, span, endpoint) = match (&entry.introspection, entry.preset) {
            (None, Some(Preset::Google)) => {
                let url = TOKEN_INFO.parse().ok()?;
                (url, entry.issuer.span(), Endpoint::TokenInfo)
            }
            (None, _) => return None,
            (Some(table), Some(Preset::Google)) => {
                (Url::clone(&table.url), table.url.span(), Endpoint::TokenInfo)
            }
            (Some(table), _) => (Url::clone(&table.url), table.url.span(), self.endpoint(table)),
        };
        let fetcher = self.fetcher(entry, &url, span)?;
        let limits = entry.introspection.as_ref().map(|table| table.limits).unwrap_or_default();
        Some(Introspection::new(url, fetcher, endpoint, limits))
    }

    fn endpoint(&mut self, table: &IntrospectionTable) -> Endpoint {
        if table.client_id.is_none() {
            self.mistakes.push_combined(table.url.span(), "introspection.client_id is missing");
        }
        let client_id = table.client_id.clone().unwrap_or_default();
        Endpoint::Introspection { client_id, client_secret: self.secret(table) }
    }

    fn secret(&mut self, table: &IntrospectionTable) -> SecretString {
        let (span, secret) = match (&table.client_secret_file, &table.client_secret_env) {
            (Some(_), Some(name)) => {
                let problem = "client_secret_file and client_secret_env are mutually exclusive";
                self.mistakes.push_combined(name.span(), problem);
                return SecretString::default();
            }
            (None, None) => {
                let problem = "introspection needs client_secret_file or client_secret_env";
                self.mistakes.push_combined(table.url.span(), problem);
                return SecretString::default();
            }
            _ if !self.reads_secrets => return SecretString::default(),
            (Some(file), None) => {
                let path = self.mistakes.text().resolve_path(file);
                let secret = bounded::read_file_to_string(&path, SECRET_BYTES_MAX)
                    .map_err(|error| format!("cannot read {}: {error}", path.display()));
                (file.span(), secret)
            }
            (None, Some(name)) => {
                let secret = env::var(name.as_str())
                    .map_err(|_| format!("the environment variable {name} is not set"));
                (name.span(), secret)
            }
        };
        let secret = secret.map(|secret| secret.trim_end().to_owned());
        let problem = match secret {
            Ok(secret) if !secret.is_empty() => return secret.into(),
            Ok(_) => "the introspection secret is empty".to_owned(),
            Err(problem) => problem,
        };
        self.mistakes.push(span, problem);
        SecretString::default()
    }
}

/// The algorithm by its name in a file.
fn algorithm(name: issuers::Algorithm) -> Algorithm {
    match name {
        issuers::Algorithm::ES256 => Algorithm::ES256,
        issuers::Algorithm::ES384 => Algorithm::ES384,
        issuers::Algorithm::EdDSA => Algorithm::EdDSA,
        issuers::Algorithm::PS256 => Algorithm::PS256,
        issuers::Algorithm::PS384 => Algorithm::PS384,
        issuers::Algorithm::PS512 => Algorithm::PS512,
        issuers::Algorithm::RS256 => Algorithm::RS256,
        issuers::Algorithm::RS384 => Algorithm::RS384,
        issuers::Algorithm::RS512 => Algorithm::RS512,
    }
}
