//! Every metric of a scrape is in a table, and described as the table has it; every metric of the
//! alerts and dashboards is in a scrape.

use std::collections::{BTreeMap, BTreeSet};

use drawbridge_mesh::metric_tables;
use drawbridge_runtime::metric::{MetricInfo, MetricKind};
use drawbridge_tests::TestMesh;
use serde_json::json;

mod alerts;
mod outcomes;
mod used;

/// The metrics of a scrape: their `# HELP`, their `# TYPE` and the names of their labels.
#[derive(Debug, Default)]
struct Scraped<'a> {
    help: Option<&'a str>,
    kind: &'a str,
    labels: BTreeSet<&'a str>,
}

fn parse(scrape: &str) -> BTreeMap<&str, Scraped<'_>> {
    let (mut metrics, mut current) = (BTreeMap::<_, Scraped<'_>>::new(), "");
    for line in scrape.lines().filter(|line| !line.is_empty()) {
        if let Some((name, help)) =
            line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' '))
        {
            metrics.entry(name).or_default().help = Some(help);
        } else if let Some((name, kind)) =
            line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
        {
            metrics.entry(name).or_default().kind = kind;
            current = name;
        } else {
            assert!(line.starts_with(current), "{line} is not of {current}");
            let labels = line.split_once('{').and_then(|(_, rest)| rest.rsplit_once('}'));
            // No value of a label in this test has a quotation mark.
            let pieces = labels.map_or("", |(labels, _)| labels).split('"').step_by(2);
            let names = pieces.map(|piece| piece.trim_matches([',', '=']));
            let names = names.filter(|name| !name.is_empty() && *name != "le");
            metrics.entry(current).or_default().labels.extend(names);
        }
    }
    metrics
}

fn check(service: &str, name: &str, scraped: &Scraped<'_>, info: &MetricInfo) {
    let kind = match info.kind {
        MetricKind::Counter => "counter",
        MetricKind::Gauge => "gauge",
        MetricKind::Histogram => "histogram",
    };
    assert_eq!(scraped.kind, kind, "{service}: {name}");
    assert_eq!(scraped.help, Some(info.help), "{service}: {name}");
    let labels = info.labels.iter().copied().collect();
    assert_eq!(scraped.labels, labels, "{service}: {name}");
}

#[tokio::test]
async fn every_metric_of_a_scrape_has_the_help_type_and_labels_of_its_table() {
    let mesh = TestMesh::start().await;
    let (alice, bob) = (mesh.client("alice").await, mesh.client("bob").await);
    alice.call_tool("code_search", json!({ "query": "fn main", "path": "cli/src" })).await;
    alice.call_tool("code_list_files", json!({})).await;
    alice.call_tool("tickets_search", json!({ "query": "refund" })).await;
    bob.call_tool("tickets_search", json!({ "query": "refund" })).await;
    bob.call_tool("code_list_files", json!({})).await;
    mesh.anonymous().call("tools/list", json!({})).await;

    let tables: BTreeMap<_, _> =
        metric_tables().flat_map(|(_, metrics)| metrics).map(|info| (info.name, info)).collect();
    let mut seen = BTreeSet::new();
    for service in &mesh.mesh.services {
        let url = format!("http://{}/metrics", service.running.admin);
        let scrape = reqwest::get(url).await.expect("metrics").text().await.expect("metrics");
        let name = service.telemetry.service();
        let metrics = parse(&scrape);
        assert!(metrics.contains_key("drawbridge_build_info"), "{name}: {scrape}");
        for (metric, scraped) in metrics {
            let info = tables.get(metric).unwrap_or_else(|| panic!("{metric} is in no table"));
            check(name, metric, &scraped, info);
            seen.insert(metric.to_owned());
        }
    }
    for metric in [
        "auth_decisions_total",
        "code_search_duration_seconds",
        "edge_refusals_total",
        "helpdesk_requests_total",
        "http_server_request_duration_seconds",
        "certificate_expiry_timestamp_seconds",
        "tokio_workers",
        "rpc_server_call_duration_seconds",
        #[cfg(target_os = "linux")]
        "process_resident_memory_bytes",
    ] {
        assert!(seen.contains(metric), "{metric} is in no scrape");
    }
}
