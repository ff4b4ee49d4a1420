//! What is recorded: the envelope of a line, and the kinds of events.

use schemars::{Schema, schema_for};
use serde::{Deserialize, Serialize};

pub use self::{
    activity::{
        Admin, AdminAction, Approval, ConfigChange, Delegation, PolicyChange, Revocation, SignIn,
    },
    call::{Call, CallOutcome, Caller, DecisionRef, Question},
    decision::{Decision, Shadow, Who},
    log::{Anchor, CheckpointRecord, Gap, Start, Stop, Torn},
};

mod activity;
mod call;
mod decision;
mod log;

/// The version of the format of a line.
pub const FORMAT_VERSION: u32 = 1;

/// One line of an audit log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The version of the format: [`FORMAT_VERSION`].
    pub v: u32,
    /// The log: service, replica and the time of its first line, `auth/auth-0/20261130T190601123Z`.
    pub log: String,
    /// The number of the line in its log, from 0, without gaps. It is the index of the line's leaf
    /// in the Merkle tree.
    pub seq: u64,
    /// When the event happened (RFC 3339). Clocks may be adjusted; `seq` is the order.
    pub time: String,
    /// SHA-256 of the line before without its newline, in hexadecimal. Zeros in the first line.
    pub prev: String,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// What happened, by the field `event`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// Auth decided on an operation.
    Decision(Box<Decision>),
    /// The outcome of a client's request at the edge.
    Call(Box<Call>),
    /// A service asked to act for a subject.
    Delegation(Box<Delegation>),
    /// Tokens were revoked.
    Revocation(Box<Revocation>),
    /// A person approved or declined a call.
    Approval(Box<Approval>),
    /// Other policies came into force, or were rejected.
    PolicyChange(PolicyChange),
    /// Another configuration came into force, or was rejected.
    ConfigChange(ConfigChange),
    /// A user or program signed in, or failed to.
    SignIn(Box<SignIn>),
    /// An administrative act.
    Admin(Box<Admin>),
    /// The state of this log, signed.
    Checkpoint(CheckpointRecord),
    /// The state of another replica's log, as that replica signed it.
    Anchor(Box<Anchor>),
    /// The service started.
    Start(Box<Start>),
    /// The service stopped.
    Stop(Stop),
    /// Events that could not be recorded.
    Gap(Gap),
    /// An event of a later version.
    #[serde(other)]
    Unknown,
}

impl Event {
    /// The value of the field `event`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Decision(_) => "decision",
            Self::Call(_) => "call",
            Self::Delegation(_) => "delegation",
            Self::Revocation(_) => "revocation",
            Self::Approval(_) => "approval",
            Self::PolicyChange(_) => "policy_change",
            Self::ConfigChange(_) => "config_change",
            Self::SignIn(_) => "sign_in",
            Self::Admin(_) => "admin",
            Self::Checkpoint(_) => "checkpoint",
            Self::Anchor(_) => "anchor",
            Self::Start(_) => "start",
            Self::Stop(_) => "stop",
            Self::Gap(_) => "gap",
            Self::Unknown => "unknown",
        }
    }

    /// The id of the request that caused the event.
    #[must_use]
    pub fn request_id(&self) -> Option<&str> {
        match self {
            Self::Decision(event) => Some(&event.request_id),
            Self::Call(event) => Some(&event.request_id),
            Self::Delegation(event) => Some(&event.request_id),
            Self::Revocation(event) => Some(&event.request_id),
            Self::Approval(event) => Some(&event.request_id),
            Self::Admin(event) => Some(&event.request_id),
            _ => None,
        }
    }
}

/// The members of each kind of event, by the value of the field `event`.
#[must_use]
pub fn schemas() -> [(&'static str, Schema); 14] {
    [
        ("decision", schema_for!(Decision)),
        ("call", schema_for!(Call)),
        ("delegation", schema_for!(Delegation)),
        ("revocation", schema_for!(Revocation)),
        ("approval", schema_for!(Approval)),
        ("policy_change", schema_for!(PolicyChange)),
        ("config_change", schema_for!(ConfigChange)),
        ("sign_in", schema_for!(SignIn)),
        ("admin", schema_for!(Admin)),
        ("start", schema_for!(Start)),
        ("stop", schema_for!(Stop)),
        ("gap", schema_for!(Gap)),
        ("checkpoint", schema_for!(CheckpointRecord)),
        ("anchor", schema_for!(Anchor)),
    ]
}

/// Whether a number is zero, to omit it.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Whether a flag is off, to omit it.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_false(flag: &bool) -> bool {
    !*flag
}
