//! The test harness: boots the real mesh on free ports, and what stands around it.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "a test that cannot go on says so"
)]

mod browser;
mod client;
mod collector;
mod issuer;
mod mesh;
mod spy;
mod tools;

pub use browser::sign_in;
pub use client::{Client, Reply};
pub use collector::{Collector, Span};
pub use issuer::TestIssuer;
pub use mesh::TestMesh;
pub use spy::Spy;
pub use tools::{node_modules, program, python, repository};
