//! The command line `drawbridge`.

pub mod call;
pub mod caller;
pub mod catalog;
pub mod command_line;
pub mod contracts;
pub mod policy;
pub mod revoke;
mod table;
pub mod transform;
pub mod up;
pub mod vault;
