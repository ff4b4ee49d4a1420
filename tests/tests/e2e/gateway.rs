//! What the edge does around a call.

mod hygiene;
mod limits;
mod overload;
mod redis;
