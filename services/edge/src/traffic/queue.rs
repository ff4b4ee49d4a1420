//! What happens when more is asked of the edge than it can carry.
//!
//! Requests wait at the door when this replica no longer keeps up, before they are looked at closely, and calls wait
//! for room on their tool service: fairly, and not for long.

pub(crate) use self::{
    calls::Calls,
    config::{Rules, Settings},
    requests::{InProgress, Requests, Sender, watch},
    turns::{Busy, Caller, Turn},
};

mod calls;
mod config;
mod load;
mod requests;
mod turns;
