//! The edge's traffic policies: limits, queues, caches, guards, transformations and transport
//! security.

mod browser;
mod cache;
mod guard;
mod hygiene;
pub(crate) mod limits;
mod mtls;
mod overload;
mod redis;
mod transform;
