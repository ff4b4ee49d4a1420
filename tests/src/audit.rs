//! Reads audit logs.

use std::path::Path;

use drawbridge_audit::{
    Event,
    event::{Call, Decision},
    read::{self, Item},
};

/// All events in the audit logs below a folder.
#[must_use]
pub fn audit_events(folder: &Path) -> Vec<Event> {
    let items = read::records(&[folder.to_owned()]).expect("audit logs");
    let events = items.map(|item| match item.expect("a record") {
        Item::Record(record) => record.event,
        Item::Torn { place } => panic!("{place} is torn"),
    });
    events.collect()
}

/// The decisions in the audit logs below a folder.
#[must_use]
pub fn audit_decisions(folder: &Path) -> Vec<Decision> {
    let events = audit_events(folder).into_iter();
    let decisions = events.filter_map(|event| match event {
        Event::Decision(decision) => Some(*decision),
        _ => None,
    });
    decisions.collect()
}

/// The calls in the audit logs below a folder.
#[must_use]
pub fn audit_calls(folder: &Path) -> Vec<Call> {
    let events = audit_events(folder).into_iter();
    let calls = events.filter_map(|event| match event {
        Event::Call(call) => Some(*call),
        _ => None,
    });
    calls.collect()
}
