//! What an attacker tried, kept as tests: each fails on the code before its fix.

mod admission;
mod answers;
mod blocking;
mod catalog;
mod code;
mod files;
mod idp;
mod introspection;
mod memory;
mod model;
mod replicas;
mod sessions;
mod tenants;
mod tokens;
mod transport;
