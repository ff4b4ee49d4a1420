//! Who gets in.

mod attacks;
mod decisions;
mod front;
mod issuers;
mod keycloak;
mod kubernetes;
mod revocation;
mod rpcs;
