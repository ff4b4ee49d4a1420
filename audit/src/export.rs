//! Records in the forms that security tools read: OCSF and CEF; and records without names of persons.

use drawbridge_runtime::Pseudonyms;
use jiff::Timestamp;
use serde_json::Value;

use crate::{
    Event, Record,
    event::{Call, CallOutcome, Caller, Decision, SignIn, Who},
};

pub use self::{cef::to_cef, ocsf::to_ocsf};

mod cef;
mod ocsf;

const PRODUCT: &str = "Drawbridge";
/// Members that name a person or reveal what a person did, and have no pseudonym.
const PERSONAL: [&str; 4] = ["email", "client_address", "arguments", "groups"];

/// Replaces principals by their pseudonyms in spans and service logs, and removes what else names a
/// person. The result is no line of the log any more: it cannot be verified.
pub fn pseudonymise(record: &mut Value, names: &Pseudonyms) {
    let Value::Object(members) = record else { return };
    members.retain(|name, _| !PERSONAL.contains(&name.as_str()));
    for (issuer, subject) in [
        ("issuer", "subject"),
        ("for_issuer", "for_subject"),
        ("of_issuer", "value"),
        ("iss", "sub"),
    ] {
        let text = |name: &str| members.get(name).and_then(Value::as_str).unwrap_or_default();
        // A value without an issuer does not belong to a principal.
        if members.contains_key(issuer) && !text(subject).is_empty() {
            let tenant = if subject == "subject" { text("tenant") } else { "" };
            let pseudonym = names.of(text(issuer), text(subject), tenant);
            members.insert(subject.to_owned(), pseudonym.into());
        }
    }
    for name in ["by", "actor", "act"] {
        members.get_mut(name).into_iter().for_each(|inner| pseudonymise(inner, names));
    }
}

/// What the forms have in common.
struct Common {
    /// The OCSF class.
    class: u64,
    activity: u64,
    activity_name: String,
    is_success: bool,
    code: String,
    /// Who did it.
    user: Option<Caller>,
    /// Whose session began or ended, if it is not that of who did it.
    target: Option<Caller>,
    /// What a service may do from now on.
    privilege: String,
    operation: String,
    service: String,
    item: String,
    client_address: String,
    trace_id: String,
}

impl Common {
    /// `None`: an event of the log itself.
    fn of(event: &Event) -> Option<Self> {
        let common = match event {
            Event::Call(call) => return Some(Self::call(call)),
            Event::Decision(decision) => return Some(Self::decision(decision)),
            Event::SignIn(sign_in) => return Some(Self::sign_in(sign_in)),
            Event::Delegation(it) => {
                let common = Self::new(3003, 1, "Assign Privileges", Some(caller(&it.who)));
                let privilege = format!("act for {} of {}", it.for_subject, it.for_issuer);
                let (item, service) = (it.for_subject.clone(), it.service.clone());
                Self { item, service, privilege, ..common }
                    .with_outcome(is_allowed(&it.outcome), &it.outcome)
            }
            Event::Revocation(it) => {
                let common = Self::new(3002, 2, "Logoff", Some(caller(&it.who)));
                let (issuer, subject) = (it.of_issuer.clone(), it.value.clone());
                let target = Some(Caller { issuer, subject, ..Caller::default() });
                let (item, operation) = (it.value.clone(), format!("revoke {}", it.what));
                Self { item, operation, target, ..common }
                    .with_outcome(is_allowed(&it.outcome), &it.outcome)
            }
            Event::Approval(it) => {
                let common = Self::new(6003, 99, "Approve", Some(caller(&it.who)));
                Self { item: it.item.clone(), service: it.service.clone(), ..common }
                    .with_outcome(it.answer == "accept", &it.answer)
            }
            Event::PolicyChange(it) => {
                Self::change("policies", &it.source, it.accepted, &it.problem)
            }
            Event::ConfigChange(it) => Self::change(&it.what, &it.source, it.accepted, &it.problem),
            Event::Admin(it) => {
                let common = Self::new(6003, 3, "Update", it.by.as_ref().map(caller));
                Self { operation: it.action.clone(), item: it.value.clone(), ..common }
                    .with_outcome(it.problem.is_empty(), &it.problem)
            }
            Event::Start(it) => {
                Self { service: it.service.clone(), ..Self::new(6002, 3, "Start", None) }
            }
            Event::Stop(it) => {
                Self { service: it.service.clone(), ..Self::new(6002, 4, "Stop", None) }
            }
            Event::Gap(it) => {
                Self::new(6002, 99, "Audit gap", None).with_outcome(false, &it.reason)
            }
            Event::Checkpoint(_) | Event::Anchor(_) | Event::Unknown => return None,
        };
        Some(common)
    }

    fn new(class: u64, activity: u64, name: &str, user: Option<Caller>) -> Self {
        Self {
            class,
            activity,
            activity_name: name.to_owned(),
            is_success: true,
            code: String::new(),
            user,
            target: None,
            privilege: String::new(),
            operation: name.to_lowercase(),
            service: String::new(),
            item: String::new(),
            client_address: String::new(),
            trace_id: String::new(),
        }
    }

    fn with_outcome(self, is_success: bool, code: &str) -> Self {
        Self { is_success, code: code.to_owned(), ..self }
    }

    fn change(what: &str, source: &str, accepted: bool, problem: &str) -> Self {
        let common = Self::new(6003, 3, "Update", None);
        Self { operation: format!("change {what}"), item: source.to_owned(), ..common }
            .with_outcome(accepted, problem)
    }

    fn call(call: &Call) -> Self {
        let is_read = !matches!(call.method.as_str(), "tools/call" | "other");
        let (activity, name) = if is_read { (2, "Read") } else { (99, "Call") };
        Self {
            operation: call.method.clone(),
            service: call.service.clone(),
            item: call.item.clone(),
            client_address: call.client_address.clone(),
            trace_id: call.trace_id.clone(),
            ..Self::new(6003, activity, name, call.who.clone())
        }
        .with_outcome(call.outcome == CallOutcome::Ok, &call.code)
    }

    fn decision(it: &Decision) -> Self {
        Self {
            operation: it.operation.clone(),
            service: it.service.clone(),
            item: it.item.clone(),
            trace_id: it.trace_id.clone(),
            ..Self::new(6003, 99, "Authorize", Some(caller(&it.who)))
        }
        .with_outcome(is_allowed(&it.outcome) && it.missing_scopes.is_empty(), &it.outcome)
    }

    fn sign_in(it: &SignIn) -> Self {
        let SignIn { issuer, subject, client_id, .. } = it.clone();
        // Who failed to sign in may be unknown.
        let user = Caller { issuer, subject, client_id, ..Caller::default() };
        Self {
            operation: it.grant.clone(),
            client_address: it.client_address.clone(),
            ..Self::new(3002, 1, "Logon", Some(user))
        }
        .with_outcome(it.outcome == "ok", &it.code)
    }
}

fn caller(who: &Who) -> Caller {
    let Who { issuer, subject, client_id, tenant, workload, .. } = who.clone();
    Caller { issuer, subject, client_id, tenant, workload }
}

fn is_allowed(outcome: &str) -> bool {
    matches!(outcome, "allow" | "conditional")
}

/// The time of a record in milliseconds since 1970.
fn milliseconds(record: &Record) -> i64 {
    record.time.parse::<Timestamp>().map_or(0, Timestamp::as_millisecond)
}

#[cfg(test)]
mod tests;
