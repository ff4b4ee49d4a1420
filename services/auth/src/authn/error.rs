use std::sync::Arc;

use drawbridge_proto::auth::v1::unverified::Reason;
use drawbridge_transport::{fetch::FetchError, jwks::JwksError};

/// Why a token is rejected.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum TokenError {
    /// The token is missing.
    #[error("the request carries no access token")]
    Missing,
    /// No issuer could have issued it.
    #[error("the access token is malformed")]
    Malformed,
    /// A header value is never accepted.
    #[error("the access token's {0} is not accepted")]
    Header(&'static str),
    /// Another kind of token, such as an ID token.
    #[error("the token is not an access token")]
    Kind,
    /// It is bound to a key (RFC 7800), so presenting it proves nothing.
    #[error("the access token is bound to a key, and only bearer tokens are accepted")]
    Bound,
    /// The signature is invalid.
    #[error("the access token's signature is not valid")]
    Signature,
    /// The issuer does not have this key, or not yet.
    #[error("the access token's signature is not valid: its issuer has no such key")]
    UnknownKey,
    /// The issuer reports the token as inactive.
    #[error("the access token is not active")]
    Inactive,
    /// It has expired.
    #[error("the access token has expired")]
    Expired,
    /// It is not valid yet.
    #[error("the access token is not valid yet")]
    Immature,
    /// It is from an unknown issuer.
    #[error("the access token is from another issuer")]
    Issuer,
    /// It is for another audience.
    #[error("the access token is for another audience")]
    Audience,
    /// A claim is missing or has a wrong type.
    #[error("the access token's claims are missing or invalid")]
    Claims,
    /// It names a tenant that its issuer may not name.
    #[error("the access token claims a tenant that its issuer may not name")]
    Tenant,
    /// Its groups were omitted as too many, so policies about groups cannot be evaluated.
    #[error("the access token omits groups because there are too many")]
    Overage,
    /// The issuer's keys are unavailable, so the token cannot be verified.
    #[error("the issuer's keys are unavailable")]
    Keys(#[source] JwksError),
    /// The introspection request failed, so the token cannot be verified.
    #[error("the introspection request failed")]
    Introspection(#[source] Arc<FetchError>),
    /// The limit of introspections of unknown tokens is reached.
    #[error("too many unknown access tokens are being introspected")]
    Busy,
}

impl TokenError {
    /// Whether the token could not be verified, rather than being invalid.
    pub(crate) fn is_unavailable(&self) -> bool {
        self.unverified().is_some()
    }

    /// Why the token could not be verified. `None`: it is invalid.
    pub(crate) fn unverified(&self) -> Option<Reason> {
        match self {
            Self::Keys(_) => Some(Reason::Keys),
            Self::Introspection(_) => Some(Reason::Introspection),
            Self::Busy => Some(Reason::Busy),
            _ => None,
        }
    }

    /// Whether the token may become valid later while its issuer's keys and this configuration are
    /// unchanged.
    pub(super) fn is_transient(&self) -> bool {
        self.is_unavailable() || matches!(self, Self::Immature | Self::UnknownKey | Self::Inactive)
    }
}
