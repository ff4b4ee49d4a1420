//! The metrics that alerts and dashboards use.

use std::{fs, path::Path};

use drawbridge_mesh::metric_tables;
use drawbridge_tests::{
    fleet::{Fleet, Sizes},
    repository,
};
use serde_json::Value;

use super::*;
use crate::replicas::program;

/// Metrics that a scrape has only with another configuration, or after an event: HTTPS at the edge,
/// an issuers file, a policy bundle, an audit log, a limit of requests that changed, a config file
/// with limits, guards and programs, results that are cached.
const ELSEWHERE: [&str; 15] = [
    "audit_records_written_total",
    "audit_sink_lag_seconds",
    "audit_sink_records_dropped_total",
    "audit_writable",
    "auth_issuers_current",
    "auth_policy_bundle_expired",
    "edge_cache_lookups_total",
    "edge_config_current",
    "edge_guarded_total",
    "edge_limits_redis_available",
    "edge_rate_limited_total",
    "edge_requests_limit",
    "edge_transform_failures_total",
    "tls_certificate_current",
    "up",
];
/// Words of PromQL that look like metrics.
const KEYWORDS: [&str; 16] = [
    "and",
    "avg",
    "bool",
    "by",
    "count",
    "group_left",
    "group_right",
    "ignoring",
    "max",
    "min",
    "offset",
    "on",
    "or",
    "sum",
    "unless",
    "without",
];

/// The names in an expression of PromQL that are metrics or records: neither labels, functions,
/// keywords nor durations.
fn names(expression: &str) -> BTreeSet<String> {
    let mut bare = String::new();
    let (mut depth, mut quoted) = (0, false);
    // Without selectors, ranges and strings.
    for letter in expression.chars() {
        match letter {
            '"' => quoted = !quoted,
            _ if quoted => {}
            '{' | '[' => depth += 1,
            '}' | ']' => depth -= 1,
            _ if depth == 0 => bare.push(letter),
            _ => {}
        }
    }
    let mut found = BTreeSet::new();
    let mut rest = bare.as_str();
    let is_name = |letter: char| letter.is_ascii_alphanumeric() || "_:".contains(letter);
    while let Some(start) = rest.find(is_name) {
        let tail = &rest[start..];
        let (word, after) = tail.split_at(tail.find(|it| !is_name(it)).unwrap_or(tail.len()));
        let after = after.trim_start();
        let takes_labels = ["by", "without", "on", "ignoring", "group_left", "group_right"];
        if takes_labels.contains(&word) && after.starts_with('(') {
            rest = after.split_once(')').map_or("", |(_, rest)| rest);
            continue;
        }
        let is_function = after.starts_with('(');
        let is_number = word.starts_with(|it: char| it.is_ascii_digit());
        if !is_function && !is_number && !KEYWORDS.contains(&word) {
            found.insert(word.to_owned());
        }
        rest = after;
    }
    found
}

/// A histogram has its name with suffixes in a scrape.
fn family(name: &str) -> &str {
    let suffixes = ["_bucket", "_count", "_sum"];
    suffixes.iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name)
}

/// All values of the key `expr` in the JSON of a dashboard.
fn expressions(json: &Value, found: &mut Vec<String>) {
    match json {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value.as_str() {
                    Some(text) if name == "expr" => found.push(text.to_owned()),
                    _ => expressions(value, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| expressions(item, found)),
        _ => {}
    }
}

/// The metrics that the rules and the dashboards use, and the records that the rules make.
fn used() -> (BTreeSet<String>, BTreeSet<String>) {
    let deploy = repository().join("deploy");
    let read = |path: &Path| fs::read_to_string(path).expect("a file");
    let (mut all, mut records) = (Vec::<String>::new(), BTreeSet::new());
    let rules = read(&deploy.join("helm/drawbridge/alerts.yaml"));
    let mut block: Option<usize> = None;
    for line in rules.lines() {
        let indent = line.len() - line.trim_start().len();
        let text = line.trim();
        if block.is_some_and(|block| indent > block) {
            all.last_mut().expect("an expression").push_str(&format!(" {text}"));
            continue;
        }
        block = None;
        if let Some(name) = text.strip_prefix("- record: ") {
            records.insert(name.to_owned());
        }
        if let Some(expression) = text.strip_prefix("expr:") {
            let expression = expression.trim();
            let is_block = [">-", "|"].contains(&expression);
            block = is_block.then_some(indent);
            all.push(if is_block { String::new() } else { expression.to_owned() });
        }
    }
    assert!(all.len() > 40, "{all:?}");
    let dashboards: Vec<_> = fs::read_dir(deploy.join("grafana"))
        .expect("a folder")
        .map(|entry| entry.expect("a file").path())
        .filter(|path| path.extension().is_some_and(|it| it == "json"))
        .collect();
    assert_eq!(dashboards.len(), 4, "{dashboards:?}");
    for path in dashboards {
        expressions(&serde_json::from_str(&read(&path)).expect("JSON"), &mut all);
    }
    (all.iter().flat_map(|expression| names(expression)).collect(), records)
}

#[test]
fn names_of_metrics_are_found_in_expressions() {
    let check = |expression: &str, expected: &[&str]| {
        let expected: BTreeSet<_> = expected.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(names(expression), expected, "{expression}");
    };
    check("sum by (job, le) (rate(a_bucket{x=\"(b)\",y!~\"c|d\"}[5m])) > 0.5", &["a_bucket"]);
    check("a{} < on (job) b:c:ratio5m and a > 14.4 * 0.001", &["a", "b:c:ratio5m"]);
    check("rate(a[1d] offset 10m) or vector(0)", &["a"]);
    check("time() - a_seconds", &["a_seconds"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_metric_of_alerts_and_dashboards_is_in_a_scrape() {
    let sizes = Sizes { auth: 2, edge: 1, tools: 1 };
    let fleet = Box::pin(Fleet::start(program, sizes, 2)).await;
    let client = fleet.client(json!({ "groups": ["engineering", "support", "finance"] }));
    client.call_tool("code_list_files", json!({})).await;
    client.call_tool("tickets_search", json!({ "query": "refund" })).await;
    client.call_tool("invoices_search", json!({})).await;
    let mut seen = BTreeSet::new();
    for replica in fleet.replicas() {
        let url = format!("http://{}/metrics", replica.admin_address());
        let scrape = reqwest::get(url).await.expect("metrics").text().await.expect("metrics");
        seen.extend(parse(&scrape).into_keys().map(ToOwned::to_owned));
    }
    let tables: BTreeSet<_> =
        metric_tables().flat_map(|(_, metrics)| metrics).map(|info| info.name).collect();
    let (used, records) = used();
    assert!(used.len() > 60, "{used:?}");
    for name in used.difference(&records) {
        let name = family(name);
        assert!(name == "up" || tables.contains(name), "no table has {name}");
        assert!(seen.contains(name) || ELSEWHERE.contains(&name), "no scrape has {name}");
    }
    let unused = ELSEWHERE.iter().filter(|name| !used.contains(**name)).collect::<Vec<_>>();
    assert!(unused.is_empty(), "{unused:?}");
}
