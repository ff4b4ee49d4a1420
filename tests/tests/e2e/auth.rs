//! Who gets in.

mod attacks;
mod decisions;
mod front;
mod issuers;
mod keycloak;
mod revocation;
mod rpcs;
