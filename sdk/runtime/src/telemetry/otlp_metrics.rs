//! The export of metrics to a collector, beside `/metrics`: what a scrape would have, as data points
//! of OTLP. So there is one pipeline of metrics, and one table per crate.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest,
    common::v1::InstrumentationScope,
    metrics::v1::{Metric, ResourceMetrics, ScopeMetrics},
    resource::v1::Resource,
};
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{instrument::WithSubscriber as _, subscriber::NoSubscriber};

use self::points::{Times, metrics};
use super::{FLUSH_DEADLINE, export_state::ExportState};
use crate::{
    metrics::DATA_POINTS_LOST,
    otlp::{OtlpClient, OtlpVariables},
};

mod points;

/// How often metrics are exported, in milliseconds, unless `OTEL_METRIC_EXPORT_INTERVAL` is set.
const EXPORT_INTERVAL_MS: usize = 60_000;
/// About how many data points a request has at most.
const REQUEST_POINTS_MAX: usize = 2_000;

/// The export of data points, with what became of them.
pub(super) fn metric_export_state() -> ExportState {
    ExportState::new("metrics", &DATA_POINTS_LOST)
}

/// Sends a service's metrics to a collector.
#[derive(Clone, Debug)]
pub(crate) struct OtlpMetrics {
    client: OtlpClient,
    resource: Resource,
    interval: Duration,
    /// Since when counters count.
    start_unix_nano: u64,
    state: Arc<ExportState>,
}

impl OtlpMetrics {
    pub(super) fn new(
        client: OtlpClient,
        resource: Resource,
        variables: &OtlpVariables,
        state: &Arc<ExportState>,
    ) -> Self {
        let interval_ms = variables.number("OTEL_METRIC_EXPORT_INTERVAL", EXPORT_INTERVAL_MS);
        Self {
            client,
            resource,
            interval: Duration::from_millis(interval_ms as u64),
            start_unix_nano: now_unix_nano(),
            state: Arc::clone(state),
        }
    }

    /// Exports what `scrape` returns at each interval, and once more when `stopping`.
    pub(crate) async fn run(self, scrape: impl Fn() -> String, stopping: CancellationToken) {
        let mut interval = interval_at(Instant::now() + self.interval, self.interval);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while stopping.run_until_cancelled(interval.tick()).await.is_some() {
            stopping.run_until_cancelled(self.export(&scrape())).await;
        }
        // The last figures. A collector that does not take them in time does not delay the end.
        let _ = timeout(FLUSH_DEADLINE, self.export(&scrape())).await;
    }

    async fn export(&self, scrape: &str) {
        let times = Times { start: self.start_unix_nano, now: now_unix_nano() };
        let (mut batch, mut points) = (Vec::new(), 0);
        for (metric, count) in metrics(scrape, times) {
            batch.push(metric);
            points += count;
            if points >= REQUEST_POINTS_MAX {
                self.send(std::mem::take(&mut batch), points).await;
                points = 0;
            }
        }
        if points > 0 {
            self.send(batch, points).await;
        }
    }

    async fn send(&self, metrics: Vec<Metric>, points: usize) {
        let scope = InstrumentationScope { name: "drawbridge".to_owned(), ..Default::default() };
        let scope_metrics = ScopeMetrics { scope: Some(scope), metrics, ..Default::default() };
        let request = ExportMetricsServiceRequest {
            resource_metrics: vec![ResourceMetrics {
                resource: Some(self.resource.clone()),
                scope_metrics: vec![scope_metrics],
                ..Default::default()
            }],
        };
        let sent = self.client.export(request).with_subscriber(NoSubscriber::new()).await;
        self.state.ended(points as u64, &sent.map_err(|error| crate::error_chain(&error)));
    }
}

fn now_unix_nano() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}
