//! OCSF (Open Cybersecurity Schema Framework), <https://schema.ocsf.io>.

use std::net::IpAddr;

use serde_json::{Map, Value, json};

use super::{Common, PRODUCT, milliseconds};
use crate::{Record, event::Caller};

/// The version of the schema.
const VERSION: &str = "1.9.0";
/// Types of users.
const USER: (u64, &str) = (1, "User");
const SERVICE: (u64, &str) = (4, "Service");

/// A record as an event of OCSF: API Activity (6003) with the profile `ai_operation`,
/// Authentication (3002), Authorize Session (3003) or Application Lifecycle (6002). `None` for
/// events of the log itself.
#[must_use]
pub fn to_ocsf(record: &Record) -> Option<Value> {
    let mut common = Common::of(&record.event)?;
    let mut names = record.log.split('/');
    let (service, replica) = (names.next().unwrap_or_default(), names.next().unwrap_or_default());
    if common.service.is_empty() {
        service.clone_into(&mut common.service);
    }
    if common.operation.is_empty() {
        common.operation = common.activity_name.to_lowercase();
    }
    let mut event = base(record, &common)?;
    let mut add = |name: &str, value: Value| {
        event.insert(name.to_owned(), value);
    };
    let user = common.user.as_ref().map(user);
    match common.class {
        6002 => add("app", json!({ "name": PRODUCT, "uid": common.service })),
        6003 => {
            add("actor", actor(&common, user));
            add("api", api(record, &common));
            add("src_endpoint", source(record, &common, replica));
            if !common.item.is_empty() {
                add("resources", json!([{ "name": common.item }]));
            }
            if !common.trace_id.is_empty() {
                add("trace", json!({ "uid": common.trace_id }));
            }
            if let Some(client) = common.user.filter(|user| !user.client_id.is_empty()) {
                add("ai_agent", json!({ "uid": client.client_id }));
            }
        }
        class => {
            let of = common.target.as_ref().map(self::user).or_else(|| user.clone());
            add("user", of.unwrap_or_else(|| json!({ "name": "unknown" })));
            add("actor", actor(&common, user));
            add("src_endpoint", source(record, &common, replica));
            if class == 3002 {
                add("service", json!({ "name": common.service }));
            } else {
                add("privileges", json!([common.privilege]));
            }
        }
    }
    Some(Value::Object(event))
}

/// The members of every class.
fn base(record: &Record, common: &Common) -> Option<Map<String, Value>> {
    let mut fields = serde_json::to_value(record).ok()?;
    let own = fields.as_object_mut()?;
    own.retain(|name, _| !matches!(name.as_str(), "v" | "log" | "seq" | "time" | "prev"));
    let (status_id, status) = if common.is_success { (1, "Success") } else { (2, "Failure") };
    let (severity_id, severity) = if common.is_success { (1, "Informational") } else { (2, "Low") };
    let mut base = Map::from_iter([
        ("category_uid".to_owned(), json!(common.class / 1000)),
        ("class_uid".to_owned(), json!(common.class)),
        ("activity_id".to_owned(), json!(common.activity)),
        ("activity_name".to_owned(), json!(common.activity_name)),
        ("type_uid".to_owned(), json!(common.class * 100 + common.activity)),
        ("severity_id".to_owned(), json!(severity_id)),
        ("severity".to_owned(), json!(severity)),
        ("time".to_owned(), json!(milliseconds(record))),
        ("status_id".to_owned(), json!(status_id)),
        ("status".to_owned(), json!(status)),
        ("metadata".to_owned(), metadata(record, common)),
        ("unmapped".to_owned(), json!({ "drawbridge": fields })),
    ]);
    if !common.code.is_empty() {
        base.insert("status_code".to_owned(), json!(common.code));
    }
    Some(base)
}

fn metadata(record: &Record, common: &Common) -> Value {
    let profiles = if common.class == 6003 { json!(["ai_operation", "trace"]) } else { json!([]) };
    let mut metadata = json!({
        "version": VERSION,
        "product": {
            "name": PRODUCT, "vendor_name": PRODUCT, "version": env!("CARGO_PKG_VERSION"),
        },
        "profiles": profiles,
        "log_name": record.log,
        "sequence": record.seq,
        "uid": format!("{}#{}", record.log, record.seq),
        "original_time": record.time,
    });
    if let Some(id) = record.event.request_id().filter(|id| !id.is_empty()) {
        metadata["correlation_uid"] = json!(id);
    }
    metadata
}

fn user(caller: &Caller) -> Value {
    let (type_id, kind) = if caller.workload { SERVICE } else { USER };
    let mut user = json!({ "type_id": type_id, "type": kind });
    if caller.subject.is_empty() {
        user["name"] = json!("unknown");
    } else {
        user["uid"] = json!(caller.subject);
    }
    if !caller.issuer.is_empty() {
        user["domain"] = json!(caller.issuer);
    }
    if !caller.tenant.is_empty() {
        user["org"] = json!({ "uid": caller.tenant });
    }
    user
}

fn actor(common: &Common, user: Option<Value>) -> Value {
    let Some((user, caller)) = user.zip(common.user.as_ref()) else {
        return json!({ "app_name": PRODUCT });
    };
    let mut actor = json!({ "user": user });
    if !caller.client_id.is_empty() {
        actor["app_uid"] = json!(caller.client_id);
    }
    actor
}

/// The class wants a source. What happens in a service by itself comes from its replica.
fn source(record: &Record, common: &Common, replica: &str) -> Value {
    let address = &common.client_address;
    if address.parse::<IpAddr>().is_ok() {
        return json!({ "ip": address });
    }
    let is_request = record.event.request_id().is_some_and(|id| !id.is_empty());
    let name = match (address.is_empty(), is_request) {
        (false, _) => address,
        (true, true) => "unknown",
        (true, false) => replica,
    };
    json!({ "name": name })
}

fn api(record: &Record, common: &Common) -> Value {
    let mut api = json!({
        "operation": common.operation,
        "service": { "name": common.service },
    });
    if let Some(id) = record.event.request_id().filter(|id| !id.is_empty()) {
        api["request"] = json!({ "uid": id });
    }
    if !common.is_success && !common.code.is_empty() {
        api["response"] = json!({ "error": common.code });
    }
    api
}
