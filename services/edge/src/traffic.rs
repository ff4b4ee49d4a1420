//! What the edge does around a call besides authorizing it: limits, queues, cache, guards,
//! transformations.

pub(crate) mod cache;
pub(crate) mod guard;
pub(crate) mod limits;
pub(crate) mod queue;
#[cfg(test)]
pub(crate) mod testdata;
pub(crate) mod transform;
