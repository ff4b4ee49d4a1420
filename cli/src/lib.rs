//! The command line `drawbridge`, and the mesh that it starts.
//!
//! `drawbridge up` starts the same service libraries that a deployment runs as separate processes.
//! The tests start them through [`mesh`] too.

pub mod call;
pub mod caller;
pub mod catalog;
pub mod command_line;
pub mod contracts;
pub mod dependencies;
pub mod issuer_name;
pub mod mesh;
pub mod policy;
pub mod revoke;
pub mod state;
mod table;
pub mod transform;
pub mod up;
pub mod vault;
