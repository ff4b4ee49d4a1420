use std::sync::Arc;

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
    /// It says that its groups did not fit in, so nobody knows what a policy about a group would say.
    #[error("the access token leaves out groups, because there are too many")]
    Overage,
    /// The issuer's keys cannot be had: nobody can say whether the token is good.
    #[error("the issuer's keys cannot be had")]
    Keys(#[source] JwksError),
    /// The issuer does not answer: nobody can say whether the token is good.
    #[error("the issuer cannot be asked about the token")]
    Introspection(#[source] Arc<FetchError>),
}

impl TokenError {
    /// Whether nobody can say if the token is good, rather than that it is not.
    pub(crate) fn is_unavailable(&self) -> bool {
        matches!(self, Self::Keys(_) | Self::Introspection(_))
    }
}
