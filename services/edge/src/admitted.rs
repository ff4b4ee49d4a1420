//! What was admitted: the request, its message, and what remains to be done for it. Only the
//! `Reauthorizer` has the caller's token, and no other code can read it.

use std::{sync::Arc, time::Duration};

use drawbridge_transport::CallContext;
use tracing::Span;

use crate::{
    authorizer::{Grant, Reauthorizer},
    budget::{BodyPermit, CallerBudget},
    recorder::CallRecorder,
    traffic::queue::RequestPermit,
};

pub(crate) use self::{
    cursor::{Cursor, PAGE_ITEMS_MAX, TOOL_PAGE_BYTES_MAX, TOOL_PAGE_ITEMS_MAX},
    message::{ID_BYTES_MAX, Kind, Message},
    operation::{operation, operation_on, read_operation},
    plan::{Call, ListedTool, Plan, ResourceWatch, ServiceLists, ToolPage},
};

mod cursor;
mod message;
mod operation;
mod plan;

/// An admitted request, and what remains to be done for it.
#[derive(Debug)]
pub(crate) struct Admission {
    pub(crate) context: CallContext,
    pub(crate) grant: Grant,
    /// Asks auth again while the request continues.
    pub(crate) reauthorizer: Reauthorizer,
    pub(crate) plan: Plan,
    pub(crate) accepts: Accepts,
    /// The memory budget of its response.
    pub(crate) budget: CallerBudget,
    pub(crate) span: Span,
    /// Writes the record of the request.
    pub(crate) recorder: Arc<CallRecorder>,
    /// Absent for a stream that only listens: it does not count as in progress.
    pub(crate) _permits: Option<(RequestPermit, BodyPermit)>,
}

/// The kinds of response that a client accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Accepts {
    /// Only a single JSON message.
    Json,
    /// Only an event stream.
    Stream,
    Both,
}

impl Accepts {
    /// Whether the client accepts events before the response.
    pub(crate) fn allows_stream(self) -> bool {
        self != Self::Json
    }

    /// After how long without a response a stream is opened. `None`: never.
    pub(crate) fn stream_after(self, default: Duration) -> Option<Duration> {
        match self {
            Self::Json => None,
            Self::Stream => Some(Duration::ZERO),
            Self::Both => Some(default),
        }
    }
}
