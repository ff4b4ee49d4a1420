//! The command line `drawbridge`.

mod admin;
pub mod audit;
pub mod call;
pub mod caller;
pub mod catalog;
pub mod client;
pub mod command_line;
pub mod config;
pub mod contracts;
mod demo;
pub mod docs;
pub mod doctor;
pub mod init;
pub mod mcp;
pub mod new;
pub mod policy;
pub mod revoke;
mod scrape;
mod sign_in;
mod table;
pub mod token;
pub mod top;
pub mod trace;
pub mod transform;
pub mod up;
pub mod vault;
