//! What is compared: a line for each duty.

use drawbridge_cli::mesh::MeshConfig;
use serde_json::{Value, json};

/// An edge that is set up in one way, and what is called through it.
#[derive(Clone, Copy)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    /// The row without what this one is about.
    pub(crate) against: &'static str,
    /// What stands in the edge's config file.
    pub(crate) config: &'static str,
    pub(crate) redis: bool,
    pub(crate) tls: bool,
    /// The access log, in a file.
    pub(crate) access_log: bool,
    /// What the whole mesh does besides, where that is something.
    pub(crate) mesh: Option<fn(&mut MeshConfig)>,
    pub(crate) call: Call,
    /// Where it is done, if it is one of those that are done together.
    pub(crate) among: Option<Among>,
}

/// Duties that are done together.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Among {
    /// On a call.
    Call,
    /// At the front, besides.
    Front,
}

/// What is called.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    /// A tool that does nothing.
    Text,
    /// The slowest demo tool, always with the same arguments.
    Search,
    /// The same, never twice with the same arguments.
    SearchAnew,
}

impl Call {
    /// The tool, and the arguments of a call by its number.
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
    mesh: None,
    call: Call::Text,
    among: None,
};
const DUTY: Row = Row { among: Some(Among::Call), ..PLAIN };
const AT_FRONT: Row = Row { among: Some(Among::Front), ..PLAIN };

/// Whatever can be done to a result, in the order that finds most.
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

/// Limits that every call takes from, and that no call reaches.
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

/// A program for what is asked of the tool that does nothing, and two for the search.
const PROGRAMS: &str = r#"
[[tool]]
name = "test_simple_text"
request = 'if $principal.tenant == "nobody" then error else . end'
[[tool]]
name = "code_search"
request = '.max_results = ([.max_results // 50, 50] | min)'
response = '.matches |= map(select(.path | endswith(".md") | not)) | del(.skipped)'
"#;

/// Every call goes to its service.
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
    Row { name: "jq", config: PROGRAMS, ..DUTY },
    Row {
        name: "jq-search",
        against: "cache-miss",
        config: PROGRAMS,
        call: Call::SearchAnew,
        ..PLAIN
    },
    Row { name: "tls", tls: true, ..AT_FRONT },
    Row { name: "access-log", access_log: true, ..AT_FRONT },
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

/// What is turned on in one edge, at once.
pub(crate) struct Duties {
    pub(crate) row: Row,
    pub(crate) config: String,
}

/// All rows, one that does all duties on a call at once, and one that does those at the front too.
pub(crate) fn all() -> Vec<Duties> {
    let mut duties: Vec<_> =
        ROWS.iter().map(|&row| Duties { row, config: row.config.to_owned() }).collect();
    duties.push(together("all", &[Among::Call]));
    duties.push(together("all-and-front", &[Among::Call, Among::Front]));
    duties
}

fn together(name: &'static str, among: &[Among]) -> Duties {
    let mut all = Duties { row: Row { name, ..PLAIN }, config: String::new() };
    for row in ROWS.iter().filter(|row| row.among.is_some_and(|one| among.contains(&one))) {
        all.config.push_str(row.config);
        all.row.redis |= row.redis;
        all.row.tls |= row.tls;
        all.row.access_log |= row.access_log;
        all.row.mesh = all.row.mesh.or(row.mesh);
    }
    all
}
