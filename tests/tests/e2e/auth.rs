//! Who gets in.

mod attacks;
mod decisions;
mod delegation;
mod front;
mod issuers;
mod keycloak;
mod kubernetes;
pub(crate) mod revocation;
pub(crate) mod rpcs;
