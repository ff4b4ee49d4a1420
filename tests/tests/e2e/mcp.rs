//! MCP ⇄ gRPC: every kind of content, interaction and revision.

mod calls;
mod capabilities;
pub(crate) mod conformance;
mod contract;
pub(crate) mod interaction;
mod sdks;
pub(crate) mod sessions;
mod subscriptions;
mod unread;
