//! End-to-end tests of the whole mesh through its public endpoints.

#![expect(clippy::expect_used, clippy::panic, reason = "a failed precondition fails the test")]

mod audit;
mod auth;
mod bad_input;
mod catalog;
mod confinement;
mod credentials;
mod dependencies;
mod gateway;
mod hardening;
mod http_endpoints;
mod identity;
mod interop;
mod invoices;
mod logs;
mod mcp;
mod metrics;
mod policies;
mod policy;
mod readiness;
mod replicas;
mod revisions;
mod telemetry;
mod templates;
mod tickets;
mod traces;
