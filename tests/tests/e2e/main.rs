//! The whole mesh, from its front doors.

#![expect(clippy::expect_used, clippy::panic, reason = "a test that cannot go on says so")]

mod auth;
mod backing;
mod bad_input;
mod catalog;
mod confinement;
mod credentials;
mod front_door;
mod gateway;
mod hardening;
mod http_face;
mod identity;
mod invoices;
mod mcp;
mod policies;
mod policy;
mod revisions;
mod tickets;
mod traces;
