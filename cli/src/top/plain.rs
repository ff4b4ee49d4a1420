//! The figures as tables without a screen.

use comfy_table::Table;

use super::figures::{Figures, Latency, ServiceFigures, ToolFigures};
use crate::table;

pub(super) fn render(figures: &Figures) -> String {
    let mut tools = table::new();
    tools.set_header(["tool", "calls/s", "calls", "p50", "p95", "failed", "outcomes"]);
    for tool in sorted(&figures.tools) {
        tools.add_row(tool_cells(tool));
    }
    format!("{}\n\n{}\n\n{}", summary(figures), tools, services(figures))
}

fn services(figures: &Figures) -> Table {
    let mut services = table::new();
    services.set_header(SERVICE_HEADER);
    for service in &figures.services {
        services.add_row(service_cells(service));
    }
    services
}

/// Those that are called most, first.
fn sorted(tools: &[ToolFigures]) -> Vec<&ToolFigures> {
    let mut tools: Vec<_> = tools.iter().collect();
    tools.sort_by(|one, other| other.calls.total_cmp(&one.calls));
    tools
}

/// One line about everything.
pub(super) fn summary(figures: &Figures) -> String {
    let Figures { title, calls_per_second, latency, sessions, streams, queued, .. } = figures;
    format!(
        "{title}: {calls_per_second:.1} calls/s, p50 {}, p95 {}, {sessions} sessions, {streams} \
         streams, {queued} queued",
        seconds(latency.p50),
        seconds(latency.p95),
    )
}

/// The header of [`service_cells`].
pub(super) const SERVICE_HEADER: [&str; 9] =
    ["service", "health", "calls/s", "run", "queue", "sess.", "leases", "memory", "version"];

/// The cells of a tool: name, rate, calls, latencies, failures, and their reasons.
pub(super) fn tool_cells(tool: &ToolFigures) -> [String; 7] {
    let Latency { p50, p95 } = tool.latency;
    let reasons = tool.outcomes.iter().filter(|(outcome, _)| *outcome != "ok");
    let reasons: Vec<_> = reasons.map(|(outcome, count)| format!("{outcome} {count}")).collect();
    [
        tool.name.clone(),
        format!("{:.1}", tool.calls_per_second),
        tool.calls.to_string(),
        seconds(p50),
        seconds(p95),
        tool.failed().to_string(),
        reasons.join(", "),
    ]
}

pub(super) fn service_cells(service: &ServiceFigures) -> [String; 9] {
    let count = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |it| it.to_string());
    [
        service.name.clone(),
        service.health.clone(),
        format!("{:.1}", service.calls_per_second),
        service.running.to_string(),
        service.queued.to_string(),
        count(service.sessions),
        count(service.leases),
        service
            .memory_bytes
            .map_or_else(|| "-".to_owned(), |bytes| format!("{:.0} MiB", bytes / 1024.0 / 1024.0)),
        service.version.clone(),
    ]
}

/// A latency for people.
pub(super) fn seconds(latency: Option<f64>) -> String {
    match latency {
        None => "-".to_owned(),
        Some(seconds) if seconds < 0.0095 => format!("{:.1} ms", seconds * 1000.0),
        Some(seconds) if seconds < 0.9995 => format!("{:.0} ms", seconds * 1000.0),
        Some(seconds) => format!("{seconds:.1} s"),
    }
}
