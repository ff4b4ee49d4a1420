//! Commands that say yes have done what they say, and what they say can be read.

mod docs;
mod errors;
mod help;
mod revoke;
mod vault;
