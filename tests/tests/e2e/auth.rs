//! Who gets in.

mod attacks;
mod decisions;
mod delegation;
mod front;
mod issuers;
mod keycloak;
mod kubernetes;
mod revocation;
mod rpcs;
