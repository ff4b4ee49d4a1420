//! Commands: help, errors, documentation, `revoke` and `vault`.

mod docs;
mod errors;
mod help;
mod links;
mod revoke;
mod vault;
