//! Commands: help, errors, documentation, `revoke` and `vault`.

mod deploy;
pub(crate) mod docs;
mod errors;
mod help;
mod links;
mod revoke;
mod vault;
