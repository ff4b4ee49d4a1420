//! Thousands of tools with types of their own, as MCP servers and OpenAPI documents bring them.

use std::{fmt::Write as _, fs, hint::black_box, time::Instant};

use drawbridge_auth::policy::{DecisionOutcome, Policies};
use drawbridge_proto::auth::v1::{self as pb, operation::Kind};
use drawbridge_tests::repository;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{caller, edit, folder::replace, time};

const TOOLS: usize = 5_000;
const TOOLS_FEW: usize = 50;
const POLICIES: usize = 1_000;
const TOOLS_OF_A_SERVICE: usize = 200;
/// One in this many policies is about one tool, and reads its arguments.
const READING: usize = 4;

/// A policy folder with foreign tools.
struct Folder(TempDir);

impl Folder {
    fn new(tools: usize, policies: usize) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let write =
            |name: &str, text: &str| fs::write(folder.path().join(name), text).expect("a file");
        fs::create_dir(folder.path().join("catalog")).expect("a folder");
        let base = fs::read_to_string(repository().join("policies/mcp.cedarschema"));
        write("mcp.cedarschema", &base.expect("the base schema"));
        let services = tools.div_ceil(TOOLS_OF_A_SERVICE);
        for service in 0..services {
            let (schema, entities) = catalog(service, tools.min(TOOLS_OF_A_SERVICE));
            write(&format!("catalog/s{service}.cedarschema"), &schema);
            write(&format!("catalog/s{service}.entities.json"), &entities);
        }
        let all: String = (0..policies).map(|number| policy(number, services)).collect();
        write("all.cedar", &all);
        Self(folder)
    }

    fn tool(number: usize) -> pb::CatalogItem {
        let (service, tool) = (number / TOOLS_OF_A_SERVICE, number % TOOLS_OF_A_SERVICE);
        pb::CatalogItem {
            name: format!("s{service}_t{tool}"),
            service: format!("s{service}"),
            rpc: format!("bench.S{service}/T{tool}"),
            scopes: Vec::new(),
        }
    }
}

/// Tools with eight arguments each, one of them of its own name.
fn catalog(service: usize, tools: usize) -> (String, String) {
    let uid = json!({ "type": "Service", "id": format!("s{service}") });
    let mut entities = vec![json!({ "uid": uid, "attrs": {}, "parents": [] })];
    let mut schema = String::new();
    for tool in 0..tools {
        let is_read_only = tool % 2 == 1;
        let group = if is_read_only { "read_tool" } else { "write_tool" };
        let _ = writeln!(
            schema,
            "action \"s{service}_t{tool}\" in [{group}] appliesTo {{ principal: [User, Workload], resource: Tool, \
             context: {{ \"input\": {{ \"amount_{tool}\": Long, \"owner\": String, \"draft\": Bool, \"labels\": Set<String>, \
             \"page\"?: Long, \"state\"?: String, \"body\"?: {{ \"title\": String }}, \"sort\"?: String }} }} }};"
        );
        entities.push(json!({
            "uid": { "type": "Tool", "id": format!("s{service}_t{tool}") },
            "attrs": {
                "rpc": format!("bench.S{service}/T{tool}"), "read_only": is_read_only,
                "destructive": !is_read_only, "idempotent": false, "open_world": false,
            },
            "parents": [uid],
        }));
    }
    (schema, Value::Array(entities).to_string())
}

fn policy(number: usize, services: usize) -> String {
    let service = number % services;
    let body = if number % READING == READING - 1 {
        format!(
            "permit (principal in Group::\"group-{number}\", action == Action::\"s{service}_t0\", resource) \
             when {{ context.input.amount_0 < {number} }};"
        )
    } else {
        format!(
            "permit (principal in Group::\"group-{number}\", action in Action::\"read_tool\", \
             resource in Service::\"s{service}\");"
        )
    };
    format!("@id(\"policy-{number}\")\n{body}\n\n")
}

/// What a folder costs.
pub(crate) struct Foreign {
    load_ms: f64,
    load_mib: f64,
    edit_policy_ms: f64,
    edit_schema_ms: f64,
    warm: f64,
    warm_few: f64,
    list_ms: f64,
}

impl Foreign {
    pub(crate) fn measure() -> Self {
        let folder = Folder::new(TOOLS, POLICIES);
        let before = resident_mib();
        let started = Instant::now();
        let loaded = Policies::load(folder.0.path()).expect("policies");
        let load_ms = started.elapsed().as_secs_f64() * 1e3;
        let load_mib = resident_mib() - before;
        let few = Folder::new(TOOLS_FEW, POLICIES);
        let few = Policies::load(few.0.path()).expect("policies");
        let items: Vec<_> = (0..TOOLS).map(Folder::tool).collect();
        let known = caller(0);
        let allows = |policies: &Policies, item: &pb::CatalogItem| {
            policies.decide(&known, Kind::CallTool, item, None).outcome == DecisionOutcome::Allow
        };
        let list = || items.iter().filter(|item| allows(&loaded, item)).count();
        // The groups 1 and 2 read one service each.
        assert_eq!(list(), TOOLS_OF_A_SERVICE, "half of two services");
        let readable = Folder::tool(TOOLS_OF_A_SERVICE + 1);
        assert!(allows(&loaded, &readable));
        let of_few = Folder::tool(1);
        assert!(allows(&few, &of_few));
        let edit = |file: &str, text: &str, with: &str| {
            edit(folder.0.path(), || replace(folder.0.path(), file, text, with))
        };
        Self {
            load_ms,
            load_mib,
            edit_policy_ms: edit("all.cedar", "group-500", "group-other"),
            edit_schema_ms: edit("catalog/s7.cedarschema", "\"draft\": Bool", "\"draft\"?: Bool"),
            warm: time(|| {
                black_box(allows(&loaded, &readable));
            }),
            warm_few: time(|| {
                black_box(allows(&few, &of_few));
            }),
            list_ms: time(|| {
                black_box(list());
            }) / 1e3,
        }
    }

    pub(crate) fn json(&self) -> Value {
        let Self { load_ms, load_mib, edit_policy_ms, edit_schema_ms, warm, warm_few, list_ms } =
            self;
        json!({
            "tools": TOOLS, "policies": POLICIES, "load_ms": load_ms, "load_mib": load_mib,
            "edit_of_a_policy_ms": edit_policy_ms, "edit_of_a_schema_ms": edit_schema_ms,
            "warm_us": warm, "warm_with_50_tools_us": warm_few, "list_ms": list_ms,
        })
    }

    pub(crate) fn print(&self) {
        let Self { load_ms, load_mib, edit_policy_ms, edit_schema_ms, warm, warm_few, list_ms } =
            self;
        println!("\n{TOOLS} tools with eight typed arguments each, and {POLICIES} policies\n");
        let rows = [
            ("load, ms", *load_ms, "< 3000"),
            ("memory of it, MiB", *load_mib, "< 200"),
            ("an edit of one policy until it holds, ms", *edit_policy_ms, "< 1000"),
            ("an edit of one tool's schema until it holds, ms", *edit_schema_ms, "< 1000"),
            ("a decision, warm, compared with 50 tools", warm / warm_few, "< 2"),
            ("the list of one caller, warm, ms", *list_ms, "< 5"),
        ];
        for (name, value, budget) in rows {
            println!("{name:<50} {value:>9.2}   {budget}");
        }
    }
}

/// The memory of this process, in MiB.
fn resident_mib() -> f64 {
    let status = fs::read_to_string("/proc/self/status").expect("the status of this process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    let kib: f64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kib / 1024.0
}
