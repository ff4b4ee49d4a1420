//! Records in the forms that security tools read: OCSF and CEF; and records without names of persons.

use drawbridge_runtime::Pseudonyms;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::{
    Event, Record,
    event::{Call, CallOutcome, Caller, Decision, SignIn, Who},
};

/// The version of the schema of [`to_ocsf`].
const OCSF_VERSION: &str = "1.10.0-dev";
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
    user: Option<Caller>,
    operation: String,
    service: String,
    item: String,
    client_address: String,
    trace_id: String,
    duration_us: Option<u64>,
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
                Self { item: it.for_subject.clone(), service: it.service.clone(), ..common }
                    .with_outcome(is_allowed(&it.outcome), &it.outcome)
            }
            Event::Revocation(it) => {
                let common = Self::new(3002, 2, "Logoff", Some(caller(&it.who)));
                Self { item: it.value.clone(), operation: format!("revoke {}", it.what), ..common }
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
            operation: name.to_lowercase(),
            service: String::new(),
            item: String::new(),
            client_address: String::new(),
            trace_id: String::new(),
            duration_us: None,
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
            duration_us: Some(call.duration_us),
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
            duration_us: Some(it.latency_us),
            ..Self::new(6003, 99, "Authorize", Some(caller(&it.who)))
        }
        .with_outcome(is_allowed(&it.outcome) && it.missing_scopes.is_empty(), &it.outcome)
    }

    fn sign_in(it: &SignIn) -> Self {
        let SignIn { issuer, subject, client_id, .. } = it.clone();
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

/// A record as an event of OCSF: API Activity (6003) with the profile `ai_operation`,
/// Authentication (3002), Authorize Session (3003) or Application Lifecycle (6002). `None` for
/// events of the log itself.
#[must_use]
pub fn to_ocsf(record: &Record) -> Option<Value> {
    let common = Common::of(&record.event)?;
    let mut fields = serde_json::to_value(record).ok()?;
    let own = fields.as_object_mut()?;
    own.retain(|name, _| !matches!(name.as_str(), "v" | "log" | "seq" | "time" | "prev"));
    let status = if common.is_success { (1, "Success") } else { (2, "Failure") };
    let mut event = Map::from_iter([
        ("category_uid".to_owned(), json!(common.class / 1000)),
        ("class_uid".to_owned(), json!(common.class)),
        ("activity_id".to_owned(), json!(common.activity)),
        ("activity_name".to_owned(), json!(common.activity_name)),
        ("type_uid".to_owned(), json!(common.class * 100 + common.activity)),
        ("severity_id".to_owned(), json!(if common.is_success { 1 } else { 2 })),
        ("time".to_owned(), json!(milliseconds(record))),
        ("status_id".to_owned(), json!(status.0)),
        ("status".to_owned(), json!(status.1)),
        ("metadata".to_owned(), metadata(record, &common)),
    ]);
    let mut add = |name: &str, value: Value| {
        event.insert(name.to_owned(), value);
    };
    if !common.code.is_empty() {
        add("status_code", json!(common.code));
    }
    if let Some(duration) = common.duration_us {
        add("duration", json!(duration / 1000));
    }
    if !common.trace_id.is_empty() {
        add("trace", json!({ "uid": common.trace_id }));
    }
    // The class wants a source.
    add(
        "src_endpoint",
        match &common.client_address {
            address if address.is_empty() => json!({ "name": "unknown" }),
            address => json!({ "ip": address }),
        },
    );
    let user = common.user.as_ref().map(user);
    match common.class {
        3002 | 3003 => add("user", user.unwrap_or_else(|| json!({ "name": "unknown" }))),
        _ => add("actor", actor(&common, user)),
    }
    match common.class {
        6003 => {
            add("api", api(record, &common));
            if !common.item.is_empty() {
                add("resources", json!([{ "name": common.item }]));
            }
            if let Some(client) = common.user.filter(|user| !user.client_id.is_empty()) {
                add("ai_agent", json!({ "uid": client.client_id }));
            }
        }
        6002 => add("app", json!({ "name": PRODUCT, "uid": common.service })),
        _ => add("service", json!({ "name": common.service })),
    }
    add("unmapped", json!({ "drawbridge": fields }));
    Some(Value::Object(event))
}

fn metadata(record: &Record, common: &Common) -> Value {
    let profiles = if common.class == 6003 { json!(["ai_operation", "trace"]) } else { json!([]) };
    json!({
        "version": OCSF_VERSION,
        "product": { "name": PRODUCT, "vendor_name": PRODUCT, "version": env!("CARGO_PKG_VERSION") },
        "profiles": profiles,
        "log_name": record.log,
        "sequence": record.seq,
        "uid": format!("{}#{}", record.log, record.seq),
        "correlation_uid": record.event.request_id(),
        "original_time": record.time,
    })
}

fn user(caller: &Caller) -> Value {
    let mut user = json!({ "uid": caller.subject, "domain": caller.issuer });
    if !caller.tenant.is_empty() {
        user["org"] = json!({ "uid": caller.tenant });
    }
    user
}

fn actor(common: &Common, user: Option<Value>) -> Value {
    match (user, &common.user) {
        (Some(user), Some(caller)) => json!({ "user": user, "app_uid": caller.client_id }),
        _ => json!({ "app_name": PRODUCT }),
    }
}

fn api(record: &Record, common: &Common) -> Value {
    json!({
        "operation": common.operation,
        "service": { "name": common.service },
        "request": { "uid": record.event.request_id().unwrap_or_default() },
        "response": { "error": common.code },
    })
}

/// A record as a line of CEF (ArcSight Common Event Format). `None` for events of the log itself.
#[must_use]
pub fn to_cef(record: &Record) -> Option<String> {
    let common = Common::of(&record.event)?;
    let severity = if common.is_success { 3 } else { 6 };
    let name = format!("{} {}", common.activity_name, common.operation);
    let user = common.user.unwrap_or_default();
    let extensions = [
        ("rt", milliseconds(record).to_string()),
        ("outcome", if common.is_success { "success" } else { "failure" }.to_owned()),
        ("reason", common.code),
        ("externalId", format!("{}#{}", record.log, record.seq)),
        ("suid", user.subject),
        ("sntdom", user.issuer),
        ("src", common.client_address),
        ("request", record.event.request_id().unwrap_or_default().to_owned()),
        ("destinationServiceName", common.service),
        ("cs1Label", if common.item.is_empty() { "" } else { "item" }.to_owned()),
        ("cs1", common.item),
    ];
    let extensions = extensions.iter().filter(|(_, value)| !value.is_empty());
    let extensions: Vec<_> = extensions
        .map(|(key, value)| format!("{key}={}", escape(value, '=').replace('\n', "\\n")))
        .collect();
    Some(format!(
        "CEF:0|{PRODUCT}|{PRODUCT}|{}|{}|{}|{severity}|{}",
        env!("CARGO_PKG_VERSION"),
        record.event.name(),
        escape(&name.replace('\n', " "), '|'),
        extensions.join(" ")
    ))
}

fn escape(text: &str, special: char) -> String {
    text.replace('\\', "\\\\").replace(special, &format!("\\{special}"))
}

#[cfg(test)]
mod tests;
