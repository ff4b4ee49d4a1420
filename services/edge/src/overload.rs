//! What happens when more is asked of the edge than it can carry.
//!
//! Calls wait for their turn, fairly and not for long. Requests are refused before they are looked at closely
//! when this replica no longer keeps up.

pub(crate) use self::{
    config::{Rules, Settings},
    requests::{Requests, watch},
    turns::{Busy, Turn, Turns},
};

mod config;
mod requests;
mod turns;
