//! Authentication and authorization.

mod attacks;
mod decisions;
mod delegation;
mod edge_tokens;
mod epochs;
mod issuers;
mod keycloak;
pub(crate) mod keys;
mod kubernetes;
mod replicas;
pub(crate) mod revocation;
pub(crate) mod rpcs;
