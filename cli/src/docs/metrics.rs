//! A table of metrics for each crate that has some.

use drawbridge_runtime::metric::{MetricInfo, MetricKind};

use super::table;

pub(super) fn parts() -> impl Iterator<Item = (String, String)> {
    drawbridge_mesh::metric_tables().map(|(name, metrics)| {
        let rows = metrics.iter().map(row);
        (format!("metrics {name}"), table(["metric", "type", "meaning"], rows))
    })
}

fn row(info: &MetricInfo) -> [String; 3] {
    let kind = match info.kind {
        MetricKind::Counter => "counter",
        MetricKind::Gauge => "gauge",
        MetricKind::Histogram => "histogram",
    };
    let labels = match info.labels {
        [] => String::new(),
        labels => format!("{{{}}}", labels.join(",")),
    };
    [format!("`{}{labels}`", info.name), kind.to_owned(), info.help.to_owned()]
}
