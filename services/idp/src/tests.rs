//! Drives the real server over HTTP.

mod authorizing;
mod harness;
mod serving;
mod tokens;
