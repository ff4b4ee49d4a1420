//! What a source grants.

use std::time::Duration;

use secrecy::SecretString;

/// Authenticates requests in a session until it is revoked.
#[derive(Debug)]
pub(super) struct SessionToken(pub(super) SecretString);

/// A database user as granted.
#[derive(Debug)]
pub(super) struct GrantedUser {
    pub(super) id: String,
    pub(super) username: String,
    pub(super) password: SecretString,
}

/// A certificate as issued.
#[derive(Debug)]
pub(super) struct GrantedCertificate {
    pub(super) chain: String,
    pub(super) private_key: SecretString,
    pub(super) authority: String,
}

/// A grant with a limited duration.
#[derive(Debug)]
pub(super) struct Granted<T> {
    pub(super) value: T,
    pub(super) duration: Duration,
    pub(super) renewable: bool,
}
