//! What happens when the edge receives more than it can process.
//!
//! When this replica does not keep up, excess requests queue before their bodies are parsed, and
//! calls queue for their tool service. Both queues are fair to callers and bounded in time.

pub(crate) use self::{
    admission_controller::{AdmissionController, RequestPermit, TokenBearer, watch_busy_ratio},
    call_limiter::CallLimiter,
    config::QueueRules,
    fair_queue::{Busy, CallerHash, Permit},
};

mod admission_controller;
mod busy_ratio;
mod call_limiter;
mod config;
mod fair_queue;
