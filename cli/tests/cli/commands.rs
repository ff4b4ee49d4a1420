//! Commands: help, errors, documentation, `revoke` and `vault`.

mod alerts;
mod deploy;
pub(crate) mod docs;
mod errors;
mod help;
mod links;
mod revoke;
mod vault;
