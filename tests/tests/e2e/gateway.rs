//! What the edge does around a call.

mod browser;
mod cache;
mod guard;
mod hygiene;
pub(crate) mod limits;
mod mtls;
mod overload;
mod redis;
mod transform;
