//! The issuers file: whose access tokens auth accepts.

use std::{num::NonZeroU32, path::PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use url::Url;

use crate::{Bounded, Spanned};

/// The issuers whose access tokens auth accepts.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct IssuersFile {
    /// The issuers.
    pub issuers: Vec<IssuerEntry>,
}

/// One issuer.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IssuerEntry {
    /// Its name, exactly as in the claim `iss` of its tokens.
    pub issuer: Spanned<String>,
    /// The token format of a well-known issuer.
    pub preset: Option<Preset>,
    /// The names by which it knows the edge. Absent: the edge's URLs. A URL of the edge covers
    /// itself and the URLs below it; any other name, such as a client id, covers the whole edge.
    pub audiences: Option<Spanned<Vec<Spanned<String>>>>,
    /// The tenants that its tokens may claim; `["*"]`: any. Absent: any if it is the only issuer,
    /// otherwise none.
    pub tenants: Option<Vec<Spanned<String>>>,
    /// The algorithms that may sign its tokens. Absent: all.
    pub algorithms: Option<Spanned<Vec<Algorithm>>>,
    /// The URL of its keys. Absent: its metadata names it.
    pub jwks_url: Option<Spanned<Url>>,
    /// A file of its keys, which is read again every five minutes. Relative to this file.
    pub jwks_file: Option<Spanned<PathBuf>>,
    /// A PEM file of the only authorities that may sign the certificate of the server of its keys.
    /// Relative to this file. Absent: the platform's.
    pub jwks_ca_file: Option<Spanned<PathBuf>>,
    /// A file with a bearer token for the server of its keys, which is read again at each request.
    /// Relative to this file.
    pub jwks_token_file: Option<Spanned<PathBuf>>,
    /// The claims that it writes.
    #[serde(default)]
    pub claims: ClaimsTable,
    /// The tolerated clock difference, in seconds.
    #[serde(default = "leeway_seconds")]
    pub leeway_seconds: Bounded<0, 300>,
    /// Whether only tokens of the type `at+jwt` (RFC 9068) are accepted.
    #[serde(default)]
    pub require_at_jwt: bool,
    /// Whether every token is a program's.
    #[serde(default)]
    pub workloads: bool,
    /// Whether its keys may be fetched by http, and from private addresses.
    #[serde(default)]
    pub allow_private_addresses: bool,
    /// How its opaque tokens are introspected (RFC 7662). Only one issuer may have it.
    pub introspection: Option<IntrospectionTable>,
}

impl IssuerEntry {
    /// An issuer with defaults for everything else.
    #[must_use]
    pub fn new(issuer: impl Into<String>) -> Self {
        Self {
            issuer: issuer.into().into(),
            preset: None,
            audiences: None,
            tenants: None,
            algorithms: None,
            jwks_url: None,
            jwks_file: None,
            jwks_ca_file: None,
            jwks_token_file: None,
            claims: ClaimsTable::default(),
            leeway_seconds: leeway_seconds(),
            require_at_jwt: false,
            workloads: false,
            allow_private_addresses: false,
            introspection: None,
        }
    }
}

const fn leeway_seconds() -> Bounded<0, 300> {
    Bounded::new(30)
}

/// A well-known issuer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Preset {
    /// Keycloak.
    Keycloak,
    /// Auth0.
    Auth0,
    /// Microsoft Entra ID.
    Entra,
    /// Google, whose access tokens are opaque.
    Google,
    /// A Kubernetes cluster, for the tokens of its service accounts.
    Kubernetes,
}

/// An asymmetric algorithm that signs tokens (RFC 7518 section 3.1, RFC 8037).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "they are the names of the RFCs")]
pub enum Algorithm {
    ES256,
    ES384,
    EdDSA,
    PS256,
    PS384,
    PS512,
    RS256,
    RS384,
    RS512,
}

/// Where an issuer's tokens have their claims. A whole name takes precedence over a path.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClaimsTable {
    /// The prefix of its custom claims, such as `https://acme.example/`.
    pub namespace: Option<String>,
    /// The claim of the tenant.
    pub tenant: Option<ClaimPaths>,
    /// The prefix of its tenants' names outside the issuer.
    pub tenant_prefix: Option<Spanned<String>>,
    /// The claims of groups.
    pub groups: Option<ClaimPaths>,
    /// The claims of roles.
    pub roles: Option<ClaimPaths>,
    /// The claim of the email address.
    pub email: Option<ClaimPaths>,
    /// The claims that show more than one factor.
    pub mfa: Option<ClaimPaths>,
    /// Values of those claims that mean more than one factor, besides `true`.
    pub mfa_values: Option<Vec<String>>,
    /// The prefix of its groups and roles in policies.
    pub group_prefix: Option<String>,
}

/// The path of a claim, or several.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected the path of a claim, or an array of them")]
pub enum ClaimPaths {
    /// One.
    One(String),
    /// Several. For a single value the first path with a value counts, for lists all paths do.
    Many(Vec<String>),
}

impl From<ClaimPaths> for Vec<String> {
    fn from(paths: ClaimPaths) -> Self {
        match paths {
            ClaimPaths::One(path) => vec![path],
            ClaimPaths::Many(paths) => paths,
        }
    }
}

/// An endpoint that introspects opaque tokens.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IntrospectionTable {
    /// Its URL.
    pub url: Spanned<Url>,
    /// The id of the client that may use it.
    pub client_id: Option<String>,
    /// A file with that client's secret. Relative to this file.
    pub client_secret_file: Option<Spanned<PathBuf>>,
    /// An environment variable with that client's secret, in place of a file.
    pub client_secret_env: Option<Spanned<String>>,
    /// The limits of requests to it.
    #[serde(default)]
    pub limits: IntrospectionLimits,
}

/// Limits of introspection requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct IntrospectionLimits {
    /// How long a valid token counts as known, in seconds.
    pub known_seconds: NonZeroU32,
    /// The maximum number of requests in flight for known tokens.
    pub known_in_flight_max: NonZeroU32,
    /// How long an inactive result is cached, in seconds.
    pub refused_seconds: NonZeroU32,
    /// The maximum rate of requests for unknown tokens, per second.
    pub unknown_per_second: NonZeroU32,
    /// The maximum number of those in flight.
    pub unknown_in_flight_max: NonZeroU32,
    /// The maximum number of those in flight per network.
    pub unknown_in_flight_per_address_max: NonZeroU32,
    /// The maximum number of those in the queue.
    pub unknown_queue_max: NonZeroU32,
    /// The maximum number of those in the queue per network.
    pub unknown_queue_per_address_max: NonZeroU32,
    /// The maximum time in the queue, in milliseconds.
    pub unknown_queue_timeout_ms: NonZeroU32,
}

impl Default for IntrospectionLimits {
    fn default() -> Self {
        const fn nonzero(number: u32) -> NonZeroU32 {
            match NonZeroU32::new(number) {
                Some(number) => number,
                None => NonZeroU32::MIN,
            }
        }
        Self {
            known_seconds: nonzero(3600),
            known_in_flight_max: nonzero(32),
            refused_seconds: nonzero(10),
            unknown_per_second: nonzero(50),
            unknown_in_flight_max: nonzero(16),
            unknown_in_flight_per_address_max: nonzero(4),
            unknown_queue_max: nonzero(128),
            unknown_queue_per_address_max: nonzero(32),
            unknown_queue_timeout_ms: nonzero(2000),
        }
    }
}
