use std::sync::Arc;

use drawbridge_proto::auth::v1::unverified::Reason;
use drawbridge_sdk::{fetch::FetchError, jwks::JwksError};

/// Why a token is not accepted.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum TokenError {
    /// There is none.
    #[error("the request carries no access token")]
    Missing,
    /// It is not one that an issuer could have made.
    #[error("the access token is malformed")]
    Malformed,
    /// Its header asks for something that is never accepted.
    #[error("the access token's {0} is not accepted")]
    Header(&'static str),
    /// It is some other kind of token: an ID token, say.
    #[error("the token is no access token")]
    Kind,
    /// It is bound to a key (RFC 7800), and to show it proves nothing.
    #[error("the access token is bound to a key, and only bearer tokens are accepted")]
    Bound,
    /// Its signature is not the issuer's.
    #[error("the access token's signature is not valid")]
    Signature,
    /// Its issuer has no such key, or not yet.
    #[error("the access token's signature is not valid: its issuer has no such key")]
    UnknownKey,
    /// Its issuer says that it is not good, or not any more.
    #[error("the access token is not active")]
    Inactive,
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
    /// It claims a tenant to which its issuer is not bound.
    #[error("the access token claims a tenant that its issuer may not name")]
    Tenant,
    /// It says that its groups did not fit in, so nobody knows what a policy about a group would say.
    #[error("the access token leaves out groups, because there are too many")]
    Overage,
    /// The issuer's keys cannot be had: nobody can say whether the token is good.
    #[error("the issuer's keys cannot be had")]
    Keys(#[source] JwksError),
    /// The issuer does not answer: nobody can say whether the token is good.
    #[error("the issuer cannot be asked about the token")]
    Introspection(#[source] Arc<FetchError>),
    /// The issuer is asked about as many unknown tokens as it may be.
    #[error("too many unknown access tokens are being introspected")]
    Busy,
}

impl TokenError {
    /// Whether nobody can say if the token is good, rather than that it is not.
    pub(crate) fn is_unavailable(&self) -> bool {
        self.unverified().is_some()
    }

    /// Why nobody can say whether the token is good. Nothing: it is known that it is not.
    pub(crate) fn unverified(&self) -> Option<Reason> {
        match self {
            Self::Keys(_) => Some(Reason::Keys),
            Self::Introspection(_) => Some(Reason::Introspection),
            Self::Busy => Some(Reason::Busy),
            _ => None,
        }
    }

    /// Whether the same token may be good later, while its issuer's keys and this configuration stay as they are.
    pub(super) fn may_heal(&self) -> bool {
        self.is_unavailable() || matches!(self, Self::Immature | Self::UnknownKey | Self::Inactive)
    }
}
