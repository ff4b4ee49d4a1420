//! Regression tests of attacks: each fails on the code before its fix.

mod admission;
mod blocking;
mod catalog;
mod code;
mod drain;
mod files;
mod idp;
mod introspection;
mod memory;
mod model;
mod replicas;
pub(crate) mod sessions;
mod tenants;
mod tokens;
mod transport;
mod unread_responses;
