//! The compared configurations: one row for each duty.

use drawbridge_audit::AuditMode;
use drawbridge_mesh::MeshConfig;
use serde_json::{Value, json};

/// An edge configuration and the call that is measured through it.
#[derive(Clone, Copy)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    /// The name of its baseline: the row without this duty.
    pub(crate) against: &'static str,
    /// The edge's config file.
    pub(crate) config: &'static str,
    pub(crate) redis: bool,
    pub(crate) tls: bool,
    /// Whether the edge writes its access log, to a file.
    pub(crate) access_log: bool,
    /// The traces that the edge exports, if any.
    pub(crate) tracing: Option<Tracing>,
    /// The edge's audit log, if any.
    pub(crate) audit: Option<AuditMode>,
    /// A change to the whole mesh, if any.
    pub(crate) mesh: Option<fn(&mut MeshConfig)>,
    pub(crate) call: Call,
    /// The group of combined duties that it belongs to, if any.
    pub(crate) group: Option<Group>,
}

/// The traces of an edge.
#[derive(Clone, Copy)]
pub(crate) struct Tracing {
    /// The ratio of the traces that are sampled.
    pub(crate) ratio: f64,
    /// Whether there is a collector at the address.
    pub(crate) has_collector: bool,
}

/// Groups of duties that are also measured in combination.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Group {
    /// Duties of a call.
    Call,
    /// Duties of the ingress.
    Ingress,
}

/// The measured call.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    /// A tool that does nothing.
    Text,
    /// The slowest demo tool, always with the same arguments.
    Search,
    /// The slowest demo tool, with new arguments in each call.
    SearchAnew,
}

impl Call {
    /// The tool and the arguments of the call with this number.
    pub(crate) fn of(self, number: usize) -> (&'static str, Value) {
        match self {
            Self::Text => ("test_simple_text", json!({})),
            Self::Search => ("code_search", json!({ "query": "permit", "path": "policies" })),
            Self::SearchAnew => {
                ("code_search", json!({ "query": format!("permit|{number}~"), "path": "policies" }))
            }
        }
    }
}

const PLAIN: Row = Row {
    name: "none",
    against: "none",
    config: "",
    redis: false,
    tls: false,
    access_log: false,
    tracing: None,
    audit: None,
    mesh: None,
    call: Call::Text,
    group: None,
};
const DUTY: Row = Row { group: Some(Group::Call), ..PLAIN };
const INGRESS_DUTY: Row = Row { group: Some(Group::Ingress), ..PLAIN };

/// All guards, in the order that detects most.
const GUARDS: &str = r#"
[[guard]]
kind = "strip"
[[guard]]
kind = "redact"
redact = ["secrets", "cards", "iban", "email"]
[[guard]]
kind = "size"
bytes_max = 1048576
"#;

/// Limits that every call consumes and none reaches.
const LIMITS: &str = r#"
[limits]
redis_timeout_ms = 5000
[[limit]]
name = "each"
by = "principal"
rate = 100000
burst = 100000000
[[limit]]
name = "tool"
by = "tool"
rate = 100000
burst = 100000000
[[limit]]
name = "together"
by = "global"
rate = 100000
burst = 100000000
"#;

/// A request program for the tool that does nothing, and two programs for the search.
const PROGRAMS: &str = r#"
[[tool]]
name = "test_simple_text"
request = 'if $principal.tenant == "unknown" then error else . end'
[[tool]]
name = "code_search"
request = '.max_results = ([.max_results // 50, 50] | min)'
response = '.matches |= map(select(.path | endswith(".md") | not)) | del(.skipped)'
"#;

/// Without a cache every call reaches its service.
const NO_CACHE: &str = "[cache]\nenabled = false\n";

const ROWS: &[Row] = &[
    PLAIN,
    Row { name: "limits-local", config: LIMITS, ..PLAIN },
    Row { name: "limits-redis", config: LIMITS, redis: true, ..DUTY },
    Row { name: "guards", config: GUARDS, ..DUTY },
    Row {
        name: "guards-search",
        against: "cache-miss",
        config: GUARDS,
        call: Call::SearchAnew,
        ..PLAIN
    },
    Row { name: "audit", audit: Some(AuditMode::Best), ..DUTY },
    // Each call waits for the disk.
    Row { name: "audit-required", audit: Some(AuditMode::Required), ..PLAIN },
    Row { name: "jq", config: PROGRAMS, ..DUTY },
    Row {
        name: "jq-search",
        against: "cache-miss",
        config: PROGRAMS,
        call: Call::SearchAnew,
        ..PLAIN
    },
    Row { name: "tls", tls: true, ..INGRESS_DUTY },
    Row { name: "access-log", access_log: true, ..INGRESS_DUTY },
    Row {
        name: "traces-1-percent",
        tracing: Some(Tracing { ratio: 0.01, has_collector: true }),
        ..PLAIN
    },
    Row { name: "traces-all", tracing: Some(Tracing { ratio: 1.0, has_collector: true }), ..PLAIN },
    Row {
        name: "traces-dead-collector",
        against: "traces-all",
        tracing: Some(Tracing { ratio: 1.0, has_collector: false }),
        ..PLAIN
    },
    Row { name: "mtls", mesh: Some(|config| config.mtls = true), ..DUTY },
    Row { name: "search", against: "search", config: NO_CACHE, call: Call::Search, ..PLAIN },
    Row {
        name: "search-anew",
        against: "search",
        config: NO_CACHE,
        call: Call::SearchAnew,
        ..PLAIN
    },
    Row { name: "cache-hit", against: "search", call: Call::Search, ..PLAIN },
    Row { name: "cache-miss", against: "search-anew", call: Call::SearchAnew, ..PLAIN },
    Row {
        name: "cache-miss-redis",
        against: "search-anew",
        redis: true,
        call: Call::SearchAnew,
        ..PLAIN
    },
];

/// The configuration of one edge.
pub(crate) struct Duties {
    pub(crate) row: Row,
    pub(crate) config: String,
}

/// All rows, one with all duties of a call combined, and one with those of the ingress too.
pub(crate) fn all() -> Vec<Duties> {
    let mut duties: Vec<_> =
        ROWS.iter().map(|&row| Duties { row, config: row.config.to_owned() }).collect();
    duties.push(combine("all", &[Group::Call]));
    duties.push(combine("all-and-front", &[Group::Call, Group::Ingress]));
    duties
}

fn combine(name: &'static str, group: &[Group]) -> Duties {
    let mut all = Duties { row: Row { name, ..PLAIN }, config: String::new() };
    for row in ROWS.iter().filter(|row| row.group.is_some_and(|one| group.contains(&one))) {
        all.config.push_str(row.config);
        all.row.redis |= row.redis;
        all.row.tls |= row.tls;
        all.row.access_log |= row.access_log;
        all.row.audit = all.row.audit.or(row.audit);
        all.row.mesh = all.row.mesh.or(row.mesh);
    }
    all
}
