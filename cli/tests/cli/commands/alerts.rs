//! Alerts and dashboards. That their metrics exist, the end-to-end tests show with a live mesh.

use std::{collections::BTreeSet, fs, path::Path, process::Command as Process};

use serde_json::{Value, json};

use crate::{REPOSITORY, text};

const RULES: &str = "deploy/helm/drawbridge/alerts.yaml";
const CASES: &str = "deploy/prometheus/alerts.test.yml";
const RUNBOOK: &str = "docs/how-to/runbook.md";
const DASHBOARDS: [&str; 4] = ["dependencies", "overview", "security", "tools"];

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(REPOSITORY).join(path)).expect("a file")
}

/// Runs a program in the repository.
fn run(program: &str, arguments: &[&str]) {
    let run = Process::new(program).args(arguments).current_dir(REPOSITORY).output();
    let output = run.unwrap_or_else(|error| {
        panic!("{program}: {error}; `tests/setup.sh deploy` installs what is missing")
    });
    let arguments = arguments.join(" ");
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{program} {arguments}: {out}{err}");
}

/// The rest of the lines that begin so.
fn values<'a>(page: &'a str, prefix: &str) -> Vec<&'a str> {
    page.lines().filter_map(|line| line.trim().strip_prefix(prefix)).collect()
}

#[test]
fn alerts_fire_and_stay_silent_as_their_cases_say() {
    run("promtool", &["check", "config", "deploy/prometheus/prometheus.yml"]);
    run("promtool", &["test", "rules", CASES]);
}

#[test]
fn each_alert_has_cases_and_a_section_of_the_runbook() {
    let (rules, cases, runbook) = (read(RULES), read(CASES), read(RUNBOOK));
    let alerts: BTreeSet<_> = values(&rules, "- alert: ").into_iter().collect();
    assert!(alerts.len() >= 40, "{alerts:?}");
    let links: BTreeSet<_> = values(&rules, "runbook_url: ").into_iter().collect();
    let expected: BTreeSet<_> =
        alerts.iter().map(|alert| format!("{RUNBOOK}#{}", alert.to_lowercase())).collect();
    assert_eq!(links, expected.iter().map(String::as_str).collect());
    let tested: BTreeSet<_> = values(&cases, "- name: Drawbridge")
        .into_iter()
        .map(|name| format!("Drawbridge{}", name.split(' ').next().unwrap_or_default()))
        .collect();
    assert_eq!(tested, alerts.iter().map(|&alert| alert.to_owned()).collect());
    let sections: BTreeSet<_> = values(&runbook, "### Drawbridge").into_iter().collect();
    let named = alerts.iter().filter_map(|alert| alert.strip_prefix("Drawbridge")).collect();
    assert_eq!(sections, named);
}

/// Otherwise an alert would be silent there because a metric is missing.
#[test]
fn the_healthy_mesh_has_each_metric_of_the_cases_that_fire() {
    let cases = read(CASES);
    let (healthy, firing) = cases.split_once("\n\n").expect("a healthy mesh, and the others");
    let metrics = |part| -> BTreeSet<_> {
        let series = values(part, "- { series: '").into_iter();
        series.map(|series| series.split('{').next().unwrap_or_default().to_owned()).collect()
    };
    let missing: Vec<_> = metrics(firing).difference(&metrics(healthy)).cloned().collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn dashboards_are_current_and_each_panel_has_a_unit_a_description_and_valid_queries() {
    run("python3", &["deploy/grafana/dashboards.py", "--check"]);
    let mut rules = Vec::new();
    for name in DASHBOARDS {
        let dashboard: Value =
            serde_json::from_str(&read(&format!("deploy/grafana/{name}.json"))).expect("JSON");
        let panels = dashboard["panels"].as_array().expect("panels");
        for panel in panels.iter().filter(|panel| panel["type"] != "row") {
            let title = panel["title"].as_str().expect("a title");
            let unit = panel["fieldConfig"]["defaults"]["unit"].as_str();
            assert!(unit.is_some_and(|unit| !unit.is_empty()), "{name}: {title}");
            let description = panel["description"].as_str();
            assert!(description.is_some_and(|text| text.ends_with('.')), "{name}: {title}");
            for target in panel["targets"].as_array().expect("queries") {
                let query = target["expr"].as_str().expect("a query");
                let query = query.replace("$__rate_interval", "5m");
                rules.push(json!({ "record": format!("panel:{}", rules.len()), "expr": query }));
            }
        }
    }
    assert!(rules.len() > 60, "{}", rules.len());
    let folder = tempfile::tempdir().expect("a folder");
    // JSON is YAML too.
    let path = folder.path().join("panels.yml");
    let groups = json!({ "groups": [{ "name": "panels", "rules": rules }] });
    fs::write(&path, groups.to_string()).expect("a file");
    run("promtool", &["check", "rules", path.to_str().expect("a path")]);
}
