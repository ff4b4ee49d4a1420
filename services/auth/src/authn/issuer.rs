//! One issuer, and what makes its tokens good.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use drawbridge_sdk::{
    error_chain,
    jwks::{Jwks, JwksError},
};
use jsonwebtoken::{Algorithm, get_current_timestamp};

use super::{
    ClientNetwork, Token, TokenError, claims::Claims, introspection::Introspection,
    mapping::Mapping, preset::Preset, token::Jwt,
};

/// How often it is logged that an issuer is away, however many tokens name it: anybody can make tokens up.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// One issuer.
#[derive(Debug)]
pub(super) struct Issuer {
    /// Exactly as it writes itself in `iss`.
    pub(super) name: String,
    pub(super) rules: Rules,
    /// Keys of this issuer alone. Absent when its tokens are opaque.
    pub(super) keys: Option<Jwks>,
    pub(super) introspection: Option<Introspection>,
    pub(super) failures: Failures,
}

/// When it was last logged that an issuer is away.
#[derive(Debug, Default)]
pub(super) struct Failures {
    logged: Mutex<Option<Instant>>,
}

impl Failures {
    /// Whether a failure is to be logged now: others are of the same kind.
    fn is_due(&self, now: Instant) -> bool {
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due =
            logged.is_none_or(|logged| now.saturating_duration_since(logged) >= LOG_INTERVAL);
        if is_due {
            *logged = Some(now);
        }
        is_due
    }
}

/// What makes an issuer's tokens good, and what they say.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    pub(super) preset: Preset,
    /// Under which names the issuer knows the edge. Absent: by its URLs.
    pub(super) audiences: Option<Vec<String>>,
    pub(super) algorithms: Vec<Algorithm>,
    pub(super) mapping: Mapping,
    /// Clock difference that is forgiven.
    pub(super) leeway_seconds: u64,
    pub(super) require_at_jwt: bool,
    /// Every token is a program's.
    pub(super) workloads: bool,
}

impl Issuer {
    pub(super) fn audiences(&self) -> Option<&[String]> {
        self.rules.audiences.as_deref()
    }

    /// Verifies a JWT for one of `audiences`: whose it is, and until when that may be relied on.
    pub(super) async fn verify(
        &self,
        jwt: &Jwt<'_>,
        audiences: &[String],
    ) -> Result<(Token, Instant), TokenError> {
        let Rules { preset, algorithms, require_at_jwt, .. } = &self.rules;
        let keys = self.keys.as_ref().ok_or(TokenError::Kind)?;
        let key_id = jwt.check_header(algorithms)?;
        preset.check_kind(jwt, *require_at_jwt)?;
        let key = keys.key(key_id).await.map_err(|error| match error {
            JwksError::UnknownKey => TokenError::UnknownKey,
            error => TokenError::Keys(error),
        })?;
        // The algorithm is the key's to say, not the token's.
        if !key.verifies(jwt.header.alg) {
            return Err(TokenError::Header("algorithm"));
        }
        jwt.verify_signature(&key.key)?;
        let expires_at = jwt.claims.seconds("exp")?.ok_or(TokenError::Claims)?;
        let token = self.token(&jwt.claims, expires_at, audiences)?;
        Ok((token, keys.remember_until()))
    }

    /// Asks about an opaque token, which must be for one of `audiences`. What was answered in another epoch does not count.
    pub(super) async fn introspect(
        &self,
        token: &str,
        audiences: &[String],
        network: Option<ClientNetwork>,
        epoch: u64,
    ) -> Result<(Token, Instant), TokenError> {
        let introspection = self.introspection.as_ref().ok_or(TokenError::Malformed)?;
        let (claims, until) = introspection.ask(token, network, epoch).await?;
        if claims.text("iss")?.is_some_and(|issuer| issuer != self.name) {
            return Err(TokenError::Issuer);
        }
        // RFC 7662 section 2.2 leaves the end of a token to the answer's writer.
        let for_now =
            get_current_timestamp() + until.saturating_duration_since(Instant::now()).as_secs();
        let expires_at = claims.seconds("exp")?.unwrap_or(for_now);
        let meaning = self.token(&claims, expires_at, audiences)?;
        introspection.know(token);
        Ok((meaning, until))
    }

    /// Logs that nobody can say whether a token is good. All of that is counted besides.
    pub(super) fn log_failure(&self, error: &TokenError) {
        let is_busy = matches!(error, TokenError::Busy);
        if !error.is_unavailable() {
            return;
        }
        if !is_busy && self.failures.is_due(Instant::now()) {
            tracing::error!(
                issuer = self.name,
                error = error_chain(error),
                "cannot verify access tokens"
            );
        } else {
            tracing::debug!(
                issuer = self.name,
                error = error_chain(error),
                "cannot verify an access token"
            );
        }
    }

    /// What the token says, when it is for one of `audiences` and for now.
    fn token(
        &self,
        claims: &Claims,
        expires_at: u64,
        audiences: &[String],
    ) -> Result<Token, TokenError> {
        let Rules { preset, mapping, leeway_seconds: leeway, workloads, .. } = &self.rules;
        let now = get_current_timestamp();
        if expires_at.saturating_add(*leeway) < now {
            return Err(TokenError::Expired);
        }
        // One that will be issued would outlive a revocation of all that were.
        let starts = claims.seconds("nbf")?.max(claims.seconds("iat")?);
        if starts.is_some_and(|starts| starts > now + leeway) {
            return Err(TokenError::Immature);
        }
        if claims.has("cnf") {
            return Err(TokenError::Bound);
        }
        if !claims.has("aud") {
            return Err(TokenError::Claims);
        }
        if !claims
            .list("aud")?
            .iter()
            .any(|named| audiences.iter().any(|audience| audience == named))
        {
            return Err(TokenError::Audience);
        }
        let mut identity = mapping.identity(&self.name, claims)?;
        let principal = &identity.principal;
        identity.workload =
            *workloads || preset.is_workload(claims, &principal.subject, &principal.client_id);
        Ok(Token {
            identity,
            // Entra ID has a name of its own for it.
            id: claims.text("jti")?.or(claims.text("uti")?).map(ToOwned::to_owned),
            issued_at: claims.seconds("iat")?,
            expires_at,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each made-up token that named an issuer whose keys could not be had was an error in the log.
    #[test]
    fn that_an_issuer_is_away_is_logged_once_in_a_while() {
        let (failures, now) = (Failures::default(), Instant::now());
        let due = [0, 0, 1, 9, 10, 11, 19, 20]
            .map(|after| failures.is_due(now + Duration::from_secs(after)));
        assert_eq!(due, [true, false, false, false, true, false, false, true]);
    }
}
