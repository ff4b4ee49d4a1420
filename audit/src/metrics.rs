//! The metrics of this crate.

use drawbridge_runtime::metric;

/// Describes the metrics to the current recorder. What was lost, and checkpoints of other replicas,
/// start at zero.
pub(crate) fn register() {
    metric::describe(METRICS);
    let lost = ["queue_full", "write_failed", "too_large"];
    RECORDS_LOST.start_at_zero(lost.map(|reason| [reason.into()]));
    let checkpoints = ["anchored", "inconsistent", "invalid"];
    PEER_CHECKPOINTS.start_at_zero(checkpoints.map(|outcome| [outcome.into()]));
}

drawbridge_runtime::metric_table! {
    /// Records that were written to the audit log.
    RECORDS_WRITTEN: Counter<Count> = "audit_records_written_total" ["event"];
    /// Events that are missing in the audit log: `queue_full`, `write_failed`, `too_large`. A record
    /// `gap` says how many at that place.
    RECORDS_LOST: Counter<Count> = "audit_records_lost_total" ["reason"];
    /// 1 while the audit log can be written, 0 while it cannot.
    WRITABLE: Gauge<Count> = "audit_writable" [];
    /// When the last record was written, in seconds since 1970.
    LAST_WRITE: Gauge<Seconds> = "audit_last_write_timestamp_seconds" [];
    /// When the last checkpoint was signed, in seconds since 1970.
    LAST_CHECKPOINT: Gauge<Seconds> = "audit_last_checkpoint_timestamp_seconds" [];
    /// How long a call waited for its record to be on the disk, with `--audit-mode required`.
    COMMIT_DURATION: Histogram<Seconds> = "audit_commit_duration_seconds" [];
    /// Checkpoints of other replicas: `anchored`, `inconsistent` (that log was changed), `invalid`.
    PEER_CHECKPOINTS: Counter<Count> = "audit_peer_checkpoints_total" ["outcome"];
    /// Records that a sink's receiver (`http`, `otlp`) has acknowledged. Some are sent again after a
    /// restart.
    SINK_RECORDS_SENT: Counter<Count> = "audit_sink_records_sent_total" ["sink"];
    /// Records that a sink's receiver will not get: `deleted` (by `--audit-days`, before they were
    /// sent), `rejected` (the receiver refused them for good). The files of the log are complete, or
    /// were.
    SINK_RECORDS_DROPPED: Counter<Count> = "audit_sink_records_dropped_total" ["sink", "reason"];
    /// Attempts to send a batch that failed. It is sent again.
    SINK_ATTEMPTS_FAILED: Counter<Count> = "audit_sink_attempts_failed_total" ["sink"];
    /// The age of the oldest record that a sink's receiver has not acknowledged, at the latest
    /// attempt; 0 if it has all of them.
    SINK_LAG: Gauge<Seconds> = "audit_sink_lag_seconds" ["sink"];
    /// Records that a sink's receiver has not acknowledged.
    SINK_LAG_RECORDS: Gauge<Count> = "audit_sink_lag_records" ["sink"];
}
