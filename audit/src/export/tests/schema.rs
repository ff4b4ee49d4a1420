//! Facts of the schema of OCSF 1.9 about the classes and objects of exported events, from
//! <https://github.com/ocsf/ocsf-schema>: which members there are, which are required, of which some
//! one must be there, and the values of enumerations.

use serde_json::{Map, Value, json};

use super::*;
use crate::event::{
    Admin, AdminAction, Approval, Call, Delegation, Gap, PolicyChange, Revocation, SignIn, Start,
    Stop,
};

/// What a member may be.
enum Kind {
    Text,
    Texts,
    Number,
    /// One of these numbers, and the member with its caption.
    Enumeration(&'static [(u64, &'static str)], &'static str),
    Object(&'static Object),
    Objects(&'static Object),
    /// The schema does not say.
    Any,
}

use Kind::{Any, Enumeration, Number, Object as One, Objects, Text, Texts};

struct Object {
    name: &'static str,
    required: &'static [&'static str],
    at_least_one: &'static [&'static str],
    members: &'static [(&'static str, Kind)],
}

const OTHER: (u64, &str) = (99, "");
const STATUS: Kind =
    Enumeration(&[(0, "Unknown"), (1, "Success"), (2, "Failure"), OTHER], "status");
const SEVERITY: Kind = Enumeration(
    &[
        (0, "Unknown"),
        (1, "Informational"),
        (2, "Low"),
        (3, "Medium"),
        (4, "High"),
        (5, "Critical"),
        (6, "Fatal"),
        OTHER,
    ],
    "severity",
);
const USER_TYPE: Kind = Enumeration(
    &[(0, "Unknown"), (1, "User"), (2, "Admin"), (3, "System"), (4, "Service"), OTHER],
    "type",
);

const NAMED: &[&str] = &["name", "uid"];
const PRODUCT: Object = Object {
    name: "product",
    required: &[],
    at_least_one: NAMED,
    members: &[("name", Text), ("uid", Text), ("vendor_name", Text), ("version", Text)],
};
const METADATA: Object = Object {
    name: "metadata",
    required: &["product", "version"],
    at_least_one: &[],
    members: &[
        ("product", One(&PRODUCT)),
        ("version", Text),
        ("profiles", Texts),
        ("log_name", Text),
        ("sequence", Number),
        ("uid", Text),
        ("correlation_uid", Text),
        ("original_time", Text),
    ],
};
const ORGANIZATION: Object = Object {
    name: "organization",
    required: &[],
    at_least_one: NAMED,
    members: &[("name", Text), ("uid", Text)],
};
const USER: Object = Object {
    name: "user",
    required: &[],
    at_least_one: &["account", "name", "uid"],
    members: &[
        ("name", Text),
        ("uid", Text),
        ("domain", Text),
        ("org", One(&ORGANIZATION)),
        ("type", Text),
        ("type_id", USER_TYPE),
    ],
};
const ACTOR: Object = Object {
    name: "actor",
    required: &[],
    at_least_one: &["process", "user", "iam_role", "invoked_by", "session", "app_name", "app_uid"],
    members: &[("user", One(&USER)), ("app_name", Text), ("app_uid", Text)],
};
const SERVICE: Object = Object {
    name: "service",
    required: &[],
    at_least_one: NAMED,
    members: &[("name", Text), ("uid", Text), ("version", Text)],
};
const REQUEST: Object =
    Object { name: "request", required: &["uid"], at_least_one: &[], members: &[("uid", Text)] };
const RESPONSE: Object = Object {
    name: "response",
    required: &[],
    at_least_one: &[],
    members: &[("code", Number), ("error", Text), ("error_message", Text)],
};
const API: Object = Object {
    name: "api",
    required: &["operation"],
    at_least_one: &[],
    members: &[
        ("operation", Text),
        ("service", One(&SERVICE)),
        ("request", One(&REQUEST)),
        ("response", One(&RESPONSE)),
    ],
};
const ENDPOINT: Object = Object {
    name: "network_endpoint",
    required: &[],
    at_least_one: &["ip", "uid", "name", "hostname", "svc_name"],
    members: &[("ip", Text), ("uid", Text), ("name", Text)],
};
const RESOURCE: Object = Object {
    name: "resource_details",
    required: &[],
    at_least_one: NAMED,
    members: &[("name", Text), ("uid", Text)],
};
const AGENT: Object = Object {
    name: "ai_agent",
    required: &[],
    at_least_one: NAMED,
    members: &[("name", Text), ("uid", Text)],
};
const TRACE: Object =
    Object { name: "trace", required: &["uid"], at_least_one: &[], members: &[("uid", Text)] };

/// The members of every class. `activity_id` has the values of its class.
const BASE_REQUIRED: &[&str] =
    &["activity_id", "category_uid", "class_uid", "metadata", "severity_id", "time", "type_uid"];
const BASE: Object = Object {
    name: "base_event",
    required: BASE_REQUIRED,
    at_least_one: &[],
    members: &[
        ("activity_id", Number),
        ("activity_name", Text),
        ("category_uid", Number),
        ("class_uid", Number),
        ("type_uid", Number),
        ("severity_id", SEVERITY),
        ("severity", Text),
        ("time", Number),
        ("status_id", STATUS),
        ("status", Text),
        ("status_code", Text),
        ("metadata", One(&METADATA)),
        ("unmapped", Any),
    ],
};

struct Class {
    uid: u64,
    activities: &'static [(u64, &'static str)],
    own: Object,
    /// The profiles whose members it may have.
    profiles: &'static [&'static str],
}

const CLASSES: [Class; 4] = [
    Class {
        uid: 3002,
        activities: &[
            (0, "Unknown"),
            (1, "Logon"),
            (2, "Logoff"),
            (3, "Authentication Ticket"),
            (4, "Service Ticket Request"),
            (5, "Service Ticket Renew"),
            (6, "Preauth"),
            (7, "Account Switch"),
            OTHER,
        ],
        own: Object {
            name: "authentication",
            required: &["user"],
            at_least_one: &["service", "dst_endpoint"],
            members: &[
                ("user", One(&USER)),
                ("actor", One(&ACTOR)),
                ("service", One(&SERVICE)),
                ("src_endpoint", One(&ENDPOINT)),
            ],
        },
        profiles: &["ai_operation"],
    },
    Class {
        uid: 3003,
        activities: &[
            (0, "Unknown"),
            (1, "Assign Privileges"),
            (2, "Assign Groups"),
            (3, "Assign Roles"),
            OTHER,
        ],
        own: Object {
            name: "authorize_session",
            required: &["user"],
            at_least_one: &["privileges", "groups", "iam_roles"],
            members: &[
                ("user", One(&USER)),
                ("actor", One(&ACTOR)),
                ("privileges", Texts),
                ("src_endpoint", One(&ENDPOINT)),
            ],
        },
        profiles: &["ai_operation"],
    },
    Class {
        uid: 6002,
        activities: &[
            (0, "Unknown"),
            (1, "Install"),
            (2, "Remove"),
            (3, "Start"),
            (4, "Stop"),
            (5, "Restart"),
            (6, "Enable"),
            (7, "Disable"),
            (8, "Update"),
            OTHER,
        ],
        own: Object {
            name: "application_lifecycle",
            required: &["app"],
            at_least_one: &[],
            members: &[("app", One(&PRODUCT))],
        },
        profiles: &["ai_operation"],
    },
    Class {
        uid: 6003,
        activities: &[
            (0, "Unknown"),
            (1, "Create"),
            (2, "Read"),
            (3, "Update"),
            (4, "Delete"),
            OTHER,
        ],
        own: Object {
            name: "api_activity",
            required: &["actor", "api", "src_endpoint"],
            at_least_one: &[],
            members: &[
                ("actor", One(&ACTOR)),
                ("api", One(&API)),
                ("src_endpoint", One(&ENDPOINT)),
                ("resources", Objects(&RESOURCE)),
                ("trace", One(&TRACE)),
                ("ai_agent", One(&AGENT)),
            ],
        },
        profiles: &["ai_operation", "trace"],
    },
];

/// What in an object is not as the schema has it.
fn check(object: &Object, value: &Value, found: &mut Vec<String>) {
    let name = object.name;
    let Some(members) = value.as_object() else {
        found.push(format!("{name} is {value}"));
        return;
    };
    let is_there = |wanted: &&str| members.get(*wanted).is_some_and(|it| !is_empty(it));
    let missing = object.required.iter().filter(|wanted| !is_there(wanted));
    found.extend(missing.map(|wanted| format!("{name}.{wanted} is missing")));
    if !object.at_least_one.is_empty() && !object.at_least_one.iter().any(is_there) {
        found.push(format!("{name} has none of {:?}", object.at_least_one));
    }
    for (member, value) in members {
        let place = format!("{name}.{member}");
        match object.members.iter().find(|(known, _)| known == member) {
            None => found.push(format!("{place} is no member")),
            Some((_, kind)) => check_member(&place, kind, value, members, found),
        }
    }
}

fn is_empty(value: &Value) -> bool {
    value.is_null() || value == "" || value == &json!([]) || value == &json!({})
}

fn check_member(
    place: &str,
    kind: &Kind,
    value: &Value,
    siblings: &Map<String, Value>,
    found: &mut Vec<String>,
) {
    let is_right = match kind {
        Text => value.as_str().is_some_and(|text| !text.is_empty()),
        Texts => value.as_array().is_some_and(|all| all.iter().all(Value::is_string)),
        Number => value.is_i64(),
        Any => true,
        Enumeration(values, caption) => {
            let known = values.iter().find(|(id, _)| value == id);
            let shown = siblings.get(*caption).and_then(Value::as_str);
            // Another value has the caption of the source.
            known.is_some_and(|(id, name)| shown.is_some_and(|it| *id == 99 || it == *name))
        }
        One(object) => {
            check(object, value, found);
            true
        }
        Objects(object) => {
            let all = value.as_array().map(Vec::as_slice).unwrap_or_default();
            all.iter().for_each(|value| check(object, value, found));
            !all.is_empty()
        }
    };
    if !is_right {
        found.push(format!("{place} is {value}"));
    }
}

/// What in an event is not as the schema has it.
fn violations(event: &Value) -> Vec<String> {
    let mut found = Vec::new();
    let Some(class) = CLASSES.iter().find(|class| event["class_uid"] == class.uid) else {
        return vec![format!("no class {}", event["class_uid"])];
    };
    let (mut base, mut own) = (Map::new(), Map::new());
    for (name, value) in event.as_object().into_iter().flatten() {
        let is_base = BASE.members.iter().any(|(member, _)| member == name);
        let part = if is_base { &mut base } else { &mut own };
        part.insert(name.clone(), value.clone());
    }
    check(&BASE, &Value::Object(base), &mut found);
    check(&class.own, &Value::Object(own), &mut found);
    let activity = event["activity_id"].as_u64().unwrap_or(u64::MAX);
    let activities = Enumeration(class.activities, "activity_name");
    let siblings = event.as_object().cloned().unwrap_or_default();
    check_member("activity_id", &activities, &event["activity_id"], &siblings, &mut found);
    if event["category_uid"] != class.uid / 1000 || event["type_uid"] != class.uid * 100 + activity
    {
        found.push(format!("category {} or type {}", event["category_uid"], event["type_uid"]));
    }
    for profile in event["metadata"]["profiles"].as_array().into_iter().flatten() {
        if !class.profiles.iter().any(|known| profile == known) {
            found.push(format!("the class has no profile {profile}"));
        }
    }
    found
}

/// Events with all their members, and with none.
fn events() -> Vec<Event> {
    let who = || Who {
        issuer: "https://idp".to_owned(),
        subject: "alice".to_owned(),
        client_id: "claude".to_owned(),
        tenant: "acme".to_owned(),
        ..Who::default()
    };
    let Event::Call(whole) = call().event else { panic!("a call") };
    let named =
        |call: Call, method: &str, outcome| Call { method: method.to_owned(), outcome, ..call };
    let by = Some(Who { workload: true, ..who() });
    vec![
        Event::Call(whole.clone()),
        Event::Call(Box::new(named((*whole).clone(), "tools/list", CallOutcome::Ok))),
        Event::Call(Box::new(named(Call::default(), "tools/call", CallOutcome::Refused))),
        Event::Decision(Box::new(Decision {
            who: who(),
            outcome: "allow".to_owned(),
            ..Default::default()
        })),
        Event::Decision(Box::default()),
        Event::Delegation(Box::new(Delegation {
            who: who(),
            for_subject: "bob".to_owned(),
            outcome: "allow".to_owned(),
            ..Default::default()
        })),
        Event::Delegation(Box::default()),
        Event::Revocation(Box::new(Revocation {
            request_id: "r".to_owned(),
            who: who(),
            of_issuer: "i".to_owned(),
            what: "subject".to_owned(),
            value: "bob".to_owned(),
            outcome: "allow".to_owned(),
            ..Default::default()
        })),
        Event::Revocation(Box::default()),
        Event::Approval(Box::new(Approval {
            who: who(),
            answer: "accept".to_owned(),
            ..Default::default()
        })),
        Event::Approval(Box::default()),
        Event::PolicyChange(PolicyChange {
            accepted: true,
            source: "policies".to_owned(),
            ..Default::default()
        }),
        Event::PolicyChange(PolicyChange::default()),
        Event::ConfigChange(crate::event::ConfigChange {
            what: "lock".to_owned(),
            ..Default::default()
        }),
        Event::SignIn(Box::new(SignIn {
            issuer: "i".to_owned(),
            subject: "alice".to_owned(),
            outcome: "ok".to_owned(),
            client_address: "::1".to_owned(),
            grant: "authorization_code".to_owned(),
            ..Default::default()
        })),
        Event::SignIn(Box::default()),
        Event::Admin(Box::new(Admin { by, ..Admin::new(AdminAction::LogFilter, "debug") })),
        Event::Admin(Box::new(Admin::new(AdminAction::Drain, ""))),
        Event::Start(Box::new(Start { service: "edge".to_owned(), ..Default::default() })),
        Event::Stop(Stop::default()),
        Event::Gap(Gap { lost: 3, reason: "the disk is full".to_owned(), ..Default::default() }),
    ]
}

#[test]
fn every_exported_event_is_one_of_its_class_in_the_schema() {
    let mut classes = std::collections::BTreeSet::new();
    let mut names = std::collections::BTreeSet::new();
    for event in events() {
        let record = Record { event, ..call() };
        let exported = to_ocsf(&record).expect("an event");
        assert_eq!(violations(&exported), [""; 0], "{exported:#}");
        classes.insert(exported["class_uid"].as_u64());
        names.insert(record.event.name());
    }
    assert_eq!(classes.len(), CLASSES.len());
    let of_the_log = ["checkpoint", "anchor"];
    let all = crate::event::schemas().map(|(name, _)| name);
    let missing = all.iter().filter(|name| !of_the_log.contains(name) && !names.contains(*name));
    assert_eq!(missing.count(), 0, "{names:?}");
}

#[test]
fn what_the_schema_does_not_have_is_found() {
    let event = to_ocsf(&call()).unwrap();
    let check = |change: &dyn Fn(&mut Value), expected: &str| {
        let mut changed = event.clone();
        change(&mut changed);
        let found = violations(&changed).join("\n");
        assert!(found.contains(expected), "{expected}: {found}");
    };
    check(&|event| event["activity_id"] = json!(7), "activity_id is 7");
    check(&|event| event["severity_id"] = json!(9), "base_event.severity_id is 9");
    check(&|event| event["status"] = json!("Good"), "base_event.status_id is 2");
    check(&|event| event["duration"] = json!(9), "api_activity.duration is no member");
    check(&|event| event["api"]["request"] = json!({ "uid": "" }), "request.uid is missing");
    check(&|event| event["api"]["service"] = json!({ "name": "" }), "service has none of");
    check(
        &|event| drop(event.as_object_mut().unwrap().remove("src_endpoint")),
        "src_endpoint is missing",
    );
    check(&|event| event["metadata"]["profiles"] = json!(["cloud"]), "no profile");
    check(&|event| event["type_uid"] = json!(1), "type 1");
}
