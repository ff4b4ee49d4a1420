//! Tests the server over HTTP.

mod authorizing;
mod harness;
mod restarts;
mod serving;
mod tokens;
