//! One issuer and the rules for its tokens.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use drawbridge_config::issuers::Preset;
use drawbridge_runtime::error_chain;
use drawbridge_transport::jwks::{Jwks, JwksError};
use jsonwebtoken::{Algorithm, get_current_timestamp};

use super::{
    AccessToken, ClientNetwork, TokenError, claims::Claims, introspection::Introspection,
    mapping::Mapping, preset, token::Jwt,
};

/// How often failures of an issuer are logged, however many tokens name it: forged tokens can name
/// any issuer.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// One issuer.
#[derive(Debug)]
pub(super) struct Issuer {
    /// Exactly as in its `iss` claim.
    pub(super) name: String,
    pub(super) rules: IssuerRules,
    /// Keys of this issuer only. Absent if its tokens are opaque.
    pub(super) keys: Option<Jwks>,
    pub(super) introspection: Option<Introspection>,
    pub(super) failures: Failures,
}

/// When a failure of the issuer was last logged.
#[derive(Debug, Default)]
pub(super) struct Failures {
    logged: Mutex<Option<Instant>>,
}

impl Failures {
    /// Whether a failure should be logged at error level now.
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

/// How an issuer's tokens are validated and mapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct IssuerRules {
    /// Absent: no well-known issuer.
    pub(super) preset: Option<Preset>,
    /// The audiences by which the issuer names the edge. Absent: the edge's URLs.
    pub(super) audiences: Option<Vec<String>>,
    pub(super) algorithms: Vec<Algorithm>,
    pub(super) mapping: Mapping,
    /// Accepted clock skew.
    pub(super) leeway_seconds: u64,
    pub(super) require_at_jwt: bool,
    /// Whether every token belongs to a program.
    pub(super) workloads: bool,
}

impl Issuer {
    /// Takes the keys of this issuer as it was before, if they come from the same source. Returns
    /// whether nothing else differs.
    pub(super) fn take_over(&mut self, before: &Self) -> bool {
        let has_same_keys = match (&mut self.keys, &before.keys) {
            (Some(keys), Some(before)) if keys.has_same_source(before) => {
                keys.clone_from(before);
                true
            }
            (keys, before) => keys.is_none() && before.is_none(),
        };
        let has_same_introspection = match (&self.introspection, &before.introspection) {
            (Some(now), Some(before)) => now.has_same_settings(before),
            (now, before) => now.is_none() && before.is_none(),
        };
        has_same_keys && has_same_introspection && self.rules == before.rules
    }

    pub(super) fn audiences(&self) -> Option<&[String]> {
        self.rules.audiences.as_deref()
    }

    /// Verifies a JWT for one of `audiences`. The instant is until when the result may be cached.
    pub(super) async fn verify(
        &self,
        jwt: &Jwt<'_>,
        audiences: &[String],
    ) -> Result<(AccessToken, Instant), TokenError> {
        let IssuerRules { preset, algorithms, require_at_jwt, .. } = &self.rules;
        let keys = self.keys.as_ref().ok_or(TokenError::Kind)?;
        let key_id = jwt.check_header(algorithms)?;
        preset::check_kind(*preset, jwt, *require_at_jwt)?;
        let key = keys.key(key_id).await.map_err(|error| match error {
            JwksError::UnknownKey => TokenError::UnknownKey,
            error => TokenError::Keys(error),
        })?;
        // The key determines the algorithm, not the token.
        if !key.verifies(jwt.header.alg) {
            return Err(TokenError::Header("algorithm"));
        }
        jwt.verify_signature(&key.key)?;
        let expires_at = jwt.claims.seconds("exp")?.ok_or(TokenError::Claims)?;
        let token = self.token(&jwt.claims, expires_at, audiences)?;
        Ok((token, keys.cacheable_until()))
    }

    /// Introspects an opaque token, which must name one of `audiences`. Results of other epochs are
    /// not reused.
    pub(super) async fn introspect(
        &self,
        token: &str,
        audiences: &[String],
        network: Option<ClientNetwork>,
        epoch: u64,
    ) -> Result<(AccessToken, Instant), TokenError> {
        let introspection = self.introspection.as_ref().ok_or(TokenError::Malformed)?;
        let (claims, until) = introspection.resolve(token, network, epoch).await?;
        if claims.text("iss")?.is_some_and(|issuer| issuer != self.name) {
            return Err(TokenError::Issuer);
        }
        // RFC 7662 section 2.2: `exp` is optional.
        let for_now =
            get_current_timestamp() + until.saturating_duration_since(Instant::now()).as_secs();
        let expires_at = claims.seconds("exp")?.unwrap_or(for_now);
        let token_info = self.token(&claims, expires_at, audiences)?;
        introspection.mark_known(token);
        Ok((token_info, until))
    }

    /// Logs that a token could not be verified. A metric counts these too.
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

    /// The token of these claims, if it is currently valid for one of `audiences`.
    fn token(
        &self,
        claims: &Claims,
        expires_at: u64,
        audiences: &[String],
    ) -> Result<AccessToken, TokenError> {
        let IssuerRules { preset, mapping, leeway_seconds: leeway, workloads, .. } = &self.rules;
        let now = get_current_timestamp();
        if expires_at.saturating_add(*leeway) < now {
            return Err(TokenError::Expired);
        }
        // A token issued in the future would survive a revocation of all earlier tokens.
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
        identity.workload = *workloads
            || preset::is_workload(*preset, claims, &principal.subject, &principal.client_id);
        Ok(AccessToken {
            identity,
            // Entra ID calls it `uti`.
            id: claims.text("jti")?.or(claims.text("uti")?).map(ToOwned::to_owned),
            issued_at: claims.seconds("iat")?,
            expires_at,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each forged token that named an unreachable issuer was an error in the log.
    #[test]
    fn failures_of_an_issuer_are_logged_once_per_interval() {
        let (failures, now) = (Failures::default(), Instant::now());
        let due = [0, 0, 1, 9, 10, 11, 19, 20]
            .map(|after| failures.is_due(now + Duration::from_secs(after)));
        assert_eq!(due, [true, false, false, false, true, false, false, true]);
    }
}
