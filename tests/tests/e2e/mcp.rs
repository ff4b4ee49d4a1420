//! MCP ⇄ gRPC: every kind of content, interaction and revision.

mod calls;
mod conformance;
pub(crate) mod interaction;
mod sdks;
mod sessions;
mod watching;
