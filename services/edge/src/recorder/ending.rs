//! How a request ended.

use std::borrow::Cow;

use drawbridge_audit::event::CallOutcome;

use crate::refusal::Refusal;

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ending {
    pub(crate) outcome: CallOutcome,
    /// Why: the reason of a refusal, a gRPC status or a JSON-RPC code. Empty: none is needed.
    pub(crate) code: Cow<'static, str>,
}

impl Ending {
    pub(crate) const OK: Self = Self::ok("");

    pub(crate) const fn ok(code: &'static str) -> Self {
        Self { outcome: CallOutcome::Ok, code: Cow::Borrowed(code) }
    }

    pub(crate) const fn refused(code: &'static str) -> Self {
        Self { outcome: CallOutcome::Refused, code: Cow::Borrowed(code) }
    }

    pub(crate) const fn tool_error(code: &'static str) -> Self {
        Self { outcome: CallOutcome::ToolError, code: Cow::Borrowed(code) }
    }

    pub(crate) const fn failed(code: &'static str) -> Self {
        Self { outcome: CallOutcome::Failed, code: Cow::Borrowed(code) }
    }

    pub(crate) fn new(outcome: CallOutcome, code: impl Into<Cow<'static, str>>) -> Self {
        Self { outcome, code: code.into() }
    }
}

impl From<&Refusal> for Ending {
    fn from(refusal: &Refusal) -> Self {
        let outcome = match refusal {
            Refusal::Denied { .. } | Refusal::InsufficientScope { .. } => CallOutcome::Denied,
            _ => CallOutcome::Refused,
        };
        Self::new(outcome, refusal.reason())
    }
}
