//! Access tokens from outside (RFC 9068, RFC 8725).

use std::{sync::Arc, time::Duration};

use drawbridge_proto::auth::v1 as pb;
use drawbridge_sdk::jwks::{Jwks, JwksError, fetch_json};
use jsonwebtoken::{
    Algorithm, Header, Validation, decode, decode_header, errors::ErrorKind, get_current_timestamp,
};
use moka::sync::Cache;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use tokio::sync::OnceCell;
use url::Url;

/// Algorithms that may sign an access token: asymmetric ones alone (RFC 8725 section 3.1).
const ALGORITHMS: [Algorithm; 9] = [
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
];
/// Types that say "access token", or say nothing: many issuers write plain `JWT`.
const TYPES: [&str; 3] = ["at+jwt", "application/at+jwt", "jwt"];
const TOKEN_BYTES_MAX: usize = 16 * 1024;
/// How many verified tokens are remembered, and for how long.
const VERIFIED_MAX: u64 = 10_000;
const VERIFIED_FOR: Duration = Duration::from_secs(30);
/// Clock difference that is forgiven, in seconds.
const LEEWAY_SECONDS: u64 = 30;

/// Why an access token is not accepted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokenError {
    /// There is none.
    #[error("the request carries no access token")]
    Missing,
    /// It is not one that this issuer could have made.
    #[error("the access token is malformed")]
    Malformed,
    /// Its header asks for something that is never accepted.
    #[error("the access token's {0} is not accepted")]
    Header(&'static str),
    /// Its signature is not the issuer's.
    #[error("the access token's signature is not valid")]
    Signature,
    /// Its time is over.
    #[error("the access token has expired")]
    Expired,
    /// Its time has not come.
    #[error("the access token is not valid yet")]
    Immature,
    /// Somebody else issued it.
    #[error("the access token is from another issuer")]
    Issuer,
    /// It is for somebody else.
    #[error("the access token is for another audience")]
    Audience,
    /// A claim is missing or not of its kind.
    #[error("the access token's claims are not complete")]
    Claims,
    /// The issuer's keys cannot be had: nobody can say whether the token is good.
    #[error("the issuer's keys cannot be had")]
    Keys(#[source] JwksError),
    /// The issuer's metadata names another issuer (RFC 8414 section 3.3).
    #[error("the issuer's metadata names another issuer")]
    Metadata,
}

/// An authenticated caller, as the claims tell of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Identity {
    /// Issuer, subject, client, tenant and scopes.
    pub principal: pb::Principal,
    /// Groups that the token names.
    pub groups: Vec<String>,
    /// Roles that the token names.
    pub roles: Vec<String>,
    /// The person's address.
    pub email: Option<String>,
    /// Whether the person showed more than one factor.
    pub mfa: bool,
    /// A program that calls in its own name, rather than a person.
    pub workload: bool,
}

/// A token that was found good.
#[derive(Debug)]
struct Verified {
    identity: Arc<Identity>,
    /// In seconds since 1970.
    expires_at: u64,
}

/// Verifies the access tokens of one issuer for certain audiences.
#[derive(Debug)]
pub(crate) struct TokenVerifier {
    issuer: String,
    audiences: Vec<String>,
    validation: Validation,
    http: reqwest::Client,
    /// Found in the issuer's metadata when the first token comes.
    jwks: OnceCell<Jwks>,
    /// Tokens that were found good a moment ago, by their digest: a client shows the same one with each call.
    verified: Cache<[u8; 32], Arc<Verified>>,
}

impl TokenVerifier {
    pub(crate) fn new(issuer: &str, audiences: &[String], http: reqwest::Client) -> Self {
        let mut validation = Validation::new(Algorithm::ES256);
        validation.set_issuer(&[issuer]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        validation.validate_nbf = true;
        validation.leeway = LEEWAY_SECONDS;
        let audiences = audiences.iter().map(|audience| audience.trim_end_matches('/').to_owned());
        let issuer = issuer.to_owned();
        // A key that its issuer has withdrawn serves no longer than this.
        let verified = Cache::builder().max_capacity(VERIFIED_MAX).time_to_live(VERIFIED_FOR).build();
        Self { issuer, audiences: audiences.collect(), validation, http, jwks: OnceCell::new(), verified }
    }

    /// Verifies a token for `resource`, which is one of the audiences or an endpoint below one, and says whose
    /// it is. A token for an endpoint serves what is below it too, and never what is above or beside it.
    pub(crate) async fn verify(&self, token: &str, resource: &str) -> Result<Arc<Identity>, TokenError> {
        if token.is_empty() {
            return Err(TokenError::Missing);
        }
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::Malformed);
        }
        let key = digest(token, resource);
        if let Some(verified) = self.verified.get(&key)
            && verified.expires_at > get_current_timestamp()
        {
            return Ok(Arc::clone(&verified.identity));
        }
        let (identity, expires_at) = self.verify_anew(token, resource).await?;
        let identity = Arc::new(identity);
        self.verified.insert(key, Arc::new(Verified { identity: Arc::clone(&identity), expires_at }));
        Ok(identity)
    }

    async fn verify_anew(&self, token: &str, resource: &str) -> Result<(Identity, u64), TokenError> {
        // An unknown algorithm, such as `none`, does not even parse.
        let header = decode_header(token).map_err(|_| TokenError::Malformed)?;
        let key_id = check_header(&header)?;
        let key = self.jwks().await?.key(key_id).await.map_err(|error| match error {
            JwksError::UnknownKey => TokenError::Signature,
            error => TokenError::Keys(error),
        })?;
        // The algorithm is the key's to say, not the token's.
        if !key.verifies(header.alg) {
            return Err(TokenError::Header("algorithm"));
        }
        let mut validation = self.validation.clone();
        validation.algorithms = vec![header.alg];
        validation.set_audience(&acceptable(&self.audiences, resource.trim_end_matches('/')));
        let claims: Claims = decode(token, &key.key, &validation).map_err(|error| reason(&error))?.claims;
        // Some issuers write fractions of a second.
        let expires_at = claims.exp as u64;
        Ok((claims.identity()?, expires_at))
    }

    async fn jwks(&self) -> Result<&Jwks, TokenError> {
        self.jwks
            .get_or_try_init(async || {
                let metadata = self.metadata().await?;
                if metadata.issuer != self.issuer {
                    return Err(TokenError::Metadata);
                }
                Ok(Jwks::new(metadata.jwks_uri, self.http.clone()))
            })
            .await
    }

    /// The issuer's metadata by RFC 8414, or else by OpenID Connect Discovery.
    async fn metadata(&self) -> Result<Metadata, TokenError> {
        let issuer: Url = self.issuer.parse().map_err(|_| TokenError::Metadata)?;
        let path = issuer.path().trim_end_matches('/').to_owned();
        let mut oauth = issuer.clone();
        oauth.set_path(&format!("/.well-known/oauth-authorization-server{path}"));
        let mut openid = issuer;
        openid.set_path(&format!("{path}/.well-known/openid-configuration"));
        match fetch_json(&self.http, &oauth).await {
            Ok(metadata) => Ok(metadata),
            Err(_) => fetch_json(&self.http, &openid).await.map_err(TokenError::Keys),
        }
    }
}

fn digest(token: &str, resource: &str) -> [u8; 32] {
    Sha256::new().chain_update(resource).chain_update(b"\0").chain_update(token).finalize().into()
}

/// The audiences of which a token for `resource` must name one, each with and without a trailing slash:
/// clients differ in whether they keep it.
fn acceptable(audiences: &[String], resource: &str) -> Vec<String> {
    let is_at_or_below = |above: &str| {
        resource.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let mut acceptable = Vec::new();
    for audience in audiences.iter().filter(|audience| is_at_or_below(audience)) {
        let below = resource.get(audience.len()..).unwrap_or_default();
        let ends = below.match_indices('/').skip(1).map(|(at, _)| at).chain([below.len()]);
        let between = ends.map(|end| format!("{audience}{}", &below[..end]));
        acceptable.extend([audience.clone()].into_iter().chain(between));
    }
    acceptable.dedup();
    acceptable.into_iter().flat_map(|audience| [format!("{audience}/"), audience]).collect()
}

#[derive(Deserialize)]
struct Metadata {
    issuer: String,
    jwks_uri: Url,
}

fn check_header(header: &Header) -> Result<&str, TokenError> {
    if !ALGORITHMS.contains(&header.alg) {
        return Err(TokenError::Header("algorithm"));
    }
    // Nothing is understood that would have to be (RFC 7515 section 4.1.11).
    if header.crit.is_some() {
        return Err(TokenError::Header("critical extension"));
    }
    if let Some(typ) = &header.typ
        && !TYPES.iter().any(|known| known.eq_ignore_ascii_case(typ))
    {
        return Err(TokenError::Header("type"));
    }
    // Keys come from the issuer's key set alone; `jku`, `x5u` and `jwk` are never looked at.
    header.kid.as_deref().ok_or(TokenError::Header("missing key id"))
}

fn reason(error: &jsonwebtoken::errors::Error) -> TokenError {
    match error.kind() {
        ErrorKind::ExpiredSignature => TokenError::Expired,
        ErrorKind::ImmatureSignature => TokenError::Immature,
        ErrorKind::InvalidIssuer => TokenError::Issuer,
        ErrorKind::InvalidAudience => TokenError::Audience,
        ErrorKind::InvalidSignature => TokenError::Signature,
        ErrorKind::MissingRequiredClaim(_) | ErrorKind::InvalidClaimFormat(_) | ErrorKind::Json(_) => {
            TokenError::Claims
        }
        _ => TokenError::Malformed,
    }
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    exp: f64,
    #[serde(alias = "azp")]
    client_id: Option<String>,
    #[serde(default, alias = "scp")]
    scope: OneOrMany,
    #[serde(default)]
    groups: OneOrMany,
    #[serde(default)]
    roles: OneOrMany,
    email: Option<String>,
    /// How the person was authenticated (RFC 8176).
    #[serde(default)]
    amr: OneOrMany,
    tenant: Option<String>,
    /// How the token was obtained, where the issuer says so.
    gty: Option<String>,
}

impl Claims {
    fn identity(self) -> Result<Identity, TokenError> {
        if self.sub.is_empty() {
            return Err(TokenError::Claims);
        }
        let workload = self.gty.as_deref() == Some("client-credentials")
            || self.client_id.as_deref() == Some(self.sub.as_str());
        Ok(Identity {
            principal: pb::Principal {
                issuer: self.iss,
                subject: self.sub,
                client_id: self.client_id.unwrap_or_default(),
                tenant: self.tenant.unwrap_or_default(),
                scopes: self.scope.words(),
            },
            groups: self.groups.list(),
            roles: self.roles.list(),
            email: self.email,
            mfa: self.amr.list().iter().any(|method| method == "mfa"),
            workload,
        })
    }
}

/// A claim that some issuers write as a text and others as a list.
#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl Default for OneOrMany {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

impl OneOrMany {
    fn list(self) -> Vec<String> {
        match self {
            Self::One(text) => vec![text],
            Self::Many(list) => list,
        }
    }

    fn words(self) -> Vec<String> {
        match self {
            Self::One(text) => text.split_whitespace().map(ToOwned::to_owned).collect(),
            Self::Many(list) => list,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(resource: &str, expected: &[&str]) {
        let audiences = ["https://a/mcp".to_owned(), "other".to_owned()];
        let found = acceptable(&audiences, resource);
        let found: Vec<_> = found.iter().filter(|audience| !audience.ends_with('/')).collect();
        assert_eq!(found, expected.iter().collect::<Vec<_>>(), "{resource}");
    }

    #[test]
    fn a_token_serves_its_own_endpoint_and_those_below() {
        check("https://a/mcp", &["https://a/mcp"]);
        check("https://a/mcp/code", &["https://a/mcp", "https://a/mcp/code"]);
        check("https://a/mcp/a/b", &["https://a/mcp", "https://a/mcp/a", "https://a/mcp/a/b"]);
        check("other", &["other"]);
    }

    #[test]
    fn what_is_not_the_edges_is_nobodys_audience() {
        check("https://a", &[]);
        check("https://a/mcpx", &[]);
        check("https://evil/mcp", &[]);
        check("", &[]);
    }
}
