//! What a user has granted to a client, with its codes and refresh tokens.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use uuid::Uuid;

use crate::{
    client::ClientId,
    error::{ErrorCode, OAuthError},
    secret::{self, SecretDigest},
    state_file::{SavedGrant, SavedToken},
    unix_time,
};

/// The maximum number of valid access tokens per grant. A client refreshes about as often as they
/// expire.
const ACCESS_TOKENS_MAX: usize = 256;

/// A set of scopes, in the order of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Scopes(Vec<String>);

impl Scopes {
    /// At least one scope of the characters that RFC 6749 section 3.3 allows.
    pub(crate) fn new(scopes: &[String]) -> Option<Self> {
        let is_allowed = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\';
        let is_valid = |scope: &String| !scope.is_empty() && scope.bytes().all(is_allowed);
        (!scopes.is_empty() && scopes.iter().all(is_valid)).then(|| Self(scopes.to_vec()))
    }

    /// The scopes to grant: all if none are requested, otherwise the requested ones that exist.
    /// Unknown ones are ignored, which RFC 6749 section 3.3 allows, unless none remain.
    pub(crate) fn narrow(&self, requested: Option<&str>) -> Result<Self, OAuthError> {
        let Some(requested) = requested else { return Ok(self.clone()) };
        let requested: Vec<_> = requested.split_ascii_whitespace().collect();
        let granted: Vec<_> =
            self.0.iter().filter(|scope| requested.contains(&scope.as_str())).cloned().collect();
        if granted.is_empty() {
            return Err(
                ErrorCode::InvalidScope.because("none of the requested scopes can be granted")
            );
        }
        Ok(Self(granted))
    }

    pub(crate) fn as_slice(&self) -> &[String] {
        &self.0
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(" "))
    }
}

/// The grant of one sign-in. Its code and tokens share it, so revoking it ends them all.
pub(crate) struct Grant {
    pub(crate) client: ClientId,
    /// The user name, which is the subject.
    pub(crate) subject: String,
    pub(crate) resource: String,
    pub(crate) scopes: Scopes,
    /// The valid access tokens. Absent: the grant is revoked.
    issued: Mutex<Option<Vec<IssuedToken>>>,
}

/// An issued access token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IssuedToken {
    /// Its `jti`.
    pub(crate) id: Uuid,
    pub(crate) expires: Instant,
}

/// Why no further access token can be issued for a grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IssueError {
    /// The grant is revoked.
    Revoked,
    /// It has the maximum number of valid access tokens.
    TooMany,
}

impl Grant {
    pub(crate) fn new(client: ClientId, subject: String, resource: String, scopes: Scopes) -> Self {
        Self { client, subject, resource, scopes, issued: Mutex::new(Some(Vec::new())) }
    }

    /// Records an access token, so that it can be revoked.
    pub(crate) fn issue(&self, token: IssuedToken) -> Result<(), IssueError> {
        let mut issued = self.issued();
        let issued = issued.as_mut().ok_or(IssueError::Revoked)?;
        let now = Instant::now();
        issued.retain(|token| token.expires > now);
        if issued.len() >= ACCESS_TOKENS_MAX {
            return Err(IssueError::TooMany);
        }
        issued.push(token);
        Ok(())
    }

    /// Ends the grant and returns its valid access tokens, which the caller must revoke.
    pub(crate) fn revoke(&self) -> Vec<IssuedToken> {
        self.issued().take().unwrap_or_default()
    }

    pub(crate) fn is_revoked(&self) -> bool {
        self.issued().is_none()
    }

    /// The valid access tokens. `None` if the grant is revoked.
    fn valid_tokens(&self) -> Option<Vec<IssuedToken>> {
        let now = Instant::now();
        let issued = self.issued();
        Some(issued.as_ref()?.iter().filter(|token| token.expires > now).copied().collect())
    }

    fn issued(&self) -> MutexGuard<'_, Option<Vec<IssuedToken>>> {
        self.issued.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A PKCE challenge by the S256 method (RFC 7636 section 4.2).
#[derive(Clone)]
pub(crate) struct Challenge(String);

impl Challenge {
    /// A SHA-256 digest in base64url, which is always 43 characters.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let digest = BASE64_URL_SAFE_NO_PAD.decode(text).ok()?;
        (digest.len() == 32).then(|| Self(text.to_owned()))
    }

    pub(crate) fn is_met_by(&self, verifier: &str) -> bool {
        let unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        let derived = BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(verifier));
        (43..=128).contains(&verifier.len())
            && verifier.bytes().all(unreserved)
            && bool::from(derived.as_bytes().ct_eq(self.0.as_bytes()))
    }
}

/// An issued authorization code.
pub(crate) struct IssuedCode {
    pub(crate) grant: Arc<Grant>,
    pub(crate) redirect_uri: String,
    pub(crate) challenge: Challenge,
    pub(crate) expires: Instant,
    pub(crate) redeemed: AtomicBool,
}

impl IssuedCode {
    /// Marks the code as used. Returns false if it was already used.
    pub(crate) fn redeem(&self) -> bool {
        !self.redeemed.swap(true, Ordering::SeqCst)
    }
}

/// The sequence of refresh tokens from one code. Only the newest is valid; any other secret with
/// the family's id is from a token that was used before.
pub(crate) struct TokenFamily {
    pub(crate) grant: Arc<Grant>,
    /// Until when its tokens can be refreshed.
    pub(crate) expires: Instant,
    current: Mutex<SecretDigest>,
}

/// A refresh token was used before, or was forged with the id of its family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TokenReused;

impl TokenFamily {
    /// A new family with this lifetime, and its first secret.
    pub(crate) fn new(grant: Arc<Grant>, lifetime: Duration) -> (Self, String) {
        let first = secret::random();
        let current = Mutex::new(SecretDigest::of(&first));
        (Self { grant, expires: Instant::now() + lifetime, current }, first)
    }

    /// The family as stored in a state file. `None` if its grant is revoked.
    pub(crate) fn save(&self, id: Uuid) -> Option<SavedGrant> {
        let saved = |token: IssuedToken| SavedToken {
            id: token.id,
            expires: unix_time::seconds(token.expires),
        };
        let Grant { client, subject, resource, scopes, .. } = &*self.grant;
        // The lock prevents issuing an access token for the next secret.
        let current = self.current();
        Some(SavedGrant {
            family: id,
            secret_sha256: current.to_text(),
            client: client.0.clone(),
            subject: subject.clone(),
            resource: resource.clone(),
            scopes: scopes.as_slice().to_vec(),
            expires: unix_time::seconds(self.expires),
            issued: self.grant.valid_tokens()?.into_iter().map(saved).collect(),
        })
    }

    /// A family from a state file, with its grant narrowed to the scopes that can be granted now.
    /// `None` if none remain or it has expired.
    pub(crate) fn restore(saved: SavedGrant, grantable: &Scopes) -> Option<Self> {
        let scopes = grantable.narrow(Some(&saved.scopes.join(" "))).ok()?;
        let issued = saved.issued.into_iter().filter_map(|token| {
            Some(IssuedToken { id: token.id, expires: unix_time::instant(token.expires)? })
        });
        let issued = Mutex::new(Some(issued.collect()));
        let client = ClientId(saved.client);
        let grant =
            Grant { client, subject: saved.subject, resource: saved.resource, scopes, issued };
        let current = Mutex::new(SecretDigest::parse(&saved.secret_sha256)?);
        Some(Self { grant: Arc::new(grant), expires: unix_time::instant(saved.expires)?, current })
    }

    fn current(&self) -> MutexGuard<'_, SecretDigest> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Exchanges the current secret for the result of `issue` and the next secret. If `issue`
    /// fails, the secret remains valid. Of two concurrent callers one succeeds.
    pub(crate) fn rotate<T, E>(
        &self,
        presented: &str,
        issue: impl FnOnce() -> Result<T, E>,
    ) -> Result<Result<(T, String), E>, TokenReused> {
        let mut current = self.current();
        if !current.is_of(presented) {
            return Err(TokenReused);
        }
        Ok(issue().map(|issued| {
            let next = secret::random();
            *current = SecretDigest::of(&next);
            (issued, next)
        }))
    }
}

/// A refresh token: the id of its family and a secret.
pub(crate) struct RefreshToken {
    pub(crate) family: Uuid,
    pub(crate) secret: String,
}

impl RefreshToken {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (family, secret) = text.split_once('.')?;
        Some(Self { family: family.parse().ok()?, secret: secret.to_owned() })
    }

    pub(crate) fn into_text(self) -> String {
        format!("{}.{}", self.family.simple(), self.secret)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An error for too many access tokens used up the refresh token, and a retry ended the grant.
    #[test]
    fn a_refresh_token_remains_valid_when_no_access_token_can_be_issued() {
        let grant = Grant::new(
            ClientId("client".to_owned()),
            "alice".to_owned(),
            "https://mcp.example".to_owned(),
            Scopes::new(&["mcp".to_owned()]).unwrap(),
        );
        let (family, first) = TokenFamily::new(Arc::new(grant), Duration::from_secs(600));
        let expires = Instant::now() + Duration::from_secs(600);
        let issue = || family.grant.issue(IssuedToken { id: Uuid::new_v4(), expires });
        for _ in 0..ACCESS_TOKENS_MAX {
            issue().unwrap();
        }
        for _ in 0..2 {
            assert_eq!(family.rotate(&first, issue), Ok(Err(IssueError::TooMany)));
        }
        let Ok(Ok(((), second))) = family.rotate(&first, || Ok::<_, IssueError>(())) else {
            panic!("the refresh token is used up")
        };
        assert_eq!(family.rotate(&first, issue), Err(TokenReused));
        assert!(second != first && family.rotate(&second, || Ok::<_, IssueError>(())).is_ok());
    }
}
