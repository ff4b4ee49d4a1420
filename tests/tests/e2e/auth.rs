//! Who gets in.

mod attacks;
mod front;
mod issuers;
mod keycloak;
mod rpcs;
