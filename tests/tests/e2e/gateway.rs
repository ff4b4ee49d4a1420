//! What the edge does around a call.

mod guard;
mod hygiene;
mod limits;
mod overload;
