//! What the edge does around a call.

mod limits;
