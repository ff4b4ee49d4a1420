//! The metrics of the edge.

use std::time::Duration;

use drawbridge_runtime::metric;

use crate::error_codes::REFUSAL_REASONS;

/// Describes the metrics of the edge to the current recorder. Counters whose labels are known start
/// at zero.
pub(crate) fn register() {
    metric::describe(METRICS);
    REFUSALS.start_at_zero(REFUSAL_REASONS.iter().map(|refusal| [refusal.reason.into()]));
    DECISIONS.start_at_zero(["auth", "cache", "refused"].map(|source| [source.into()]));
}

/// Records an operation of MCP that ended. `method` is a known one or empty, and `tool` one of the
/// catalog or empty, so that no caller can create labels. `error_type` is empty for success.
pub(crate) fn record_operation(method: &str, tool: &str, error_type: &str, elapsed: Duration) {
    let method = if method.is_empty() { "other" } else { method };
    let labels = [method, tool, error_type].map(|label| label.to_owned().into());
    OPERATION_DURATION.with(labels).record(elapsed);
}

drawbridge_runtime::metric_table! {
    /// How long operations of MCP took, up to their response. `error_type` is empty for success,
    /// `tool_error` (the tool's result reports an error), `cancelled`, the reason of a refusal, a
    /// gRPC status or a JSON-RPC code. The tool is one of the catalog, or empty.
    OPERATION_DURATION: Histogram<Seconds> = "mcp_server_operation_duration_seconds"
        ["mcp_method_name", "gen_ai_tool_name", "error_type"];
    /// Sessions of this replica.
    SESSIONS: Gauge<Count> = "mcp_server_sessions" [];
    /// Streams of this replica that listen for changes.
    STREAMS: Gauge<Count> = "mcp_server_streams" [];
    /// Resources that clients of this replica watch.
    WATCHES: Gauge<Count> = "mcp_server_watched_resources" [];
    /// Requests that were refused.
    REFUSALS: Counter<Count> = "edge_refusals_total" ["reason"];
    /// Decisions: requested from `auth`, repeated from the `cache`, or `refused` for a token that
    /// auth has refused before.
    DECISIONS: Counter<Count> = "edge_decisions_total" ["source"];
    /// Replicas of auth: `known` addresses, and those `live`, which are asked.
    AUTH_REPLICAS: Gauge<Count> = "edge_auth_replicas" ["state"];
    /// Requests that were repeated and answered, because a replica of auth was lost or refused them.
    AUTH_FAILOVERS: Counter<Count> = "edge_auth_failovers_total" [];
    /// 1 while the config file in force is the one on disk, 0 while that has a mistake.
    CONFIG_CURRENT: Gauge<Count> = "edge_config_current" [];
    /// Changes of the config file, or of the catalog lock, that were rejected.
    CONFIG_RELOADS_FAILED: Counter<Count> = "edge_config_reloads_failed_total" [];

    /// Labelled Services of Kubernetes: `offered` as tool services, and `refused`.
    DISCOVERED_SERVICES: Gauge<Count> = "edge_discovered_services" ["state"];
    /// Attempts to list or watch the Services of Kubernetes that failed.
    DISCOVERY_FAILURES: Counter<Count> = "edge_discovery_failures_total" [];

    /// Request bodies that wait for memory.
    BODIES_WAITING: Gauge<Count> = "edge_bodies_waiting" [];
    /// Request bodies that found no memory.
    BODIES_REFUSED: Counter<Count> = "edge_bodies_refused_total" [];
    /// Large responses that clients have not read.
    RESPONSES_UNREAD: Gauge<Bytes> = "edge_answers_unread_bytes" [];

    /// Requests that a rate limit rejected.
    RATE_LIMITED: Counter<Count> = "edge_rate_limited_total" ["limit"];
    /// 1 while Redis counts the limits, 0 while it does not.
    LIMITS_REDIS_AVAILABLE: Gauge<Count> = "edge_limits_redis_available" [];

    /// Calls that run now.
    CALLS_RUNNING: Gauge<Count> = "edge_calls_running" ["service"];
    /// Calls that are queued now.
    CALLS_WAITING: Gauge<Count> = "edge_calls_waiting" ["service"];
    /// How long queued calls waited.
    CALL_WAIT: Histogram<Seconds> = "edge_call_wait_seconds" ["service"];
    /// Calls that got no permit, because of the limit of the `principal` or of the `service`.
    CALLS_REFUSED: Counter<Count> = "edge_calls_refused_total" ["service", "reason"];
    /// How many requests may be in progress, once that has changed.
    REQUESTS_LIMIT: Gauge<Count> = "edge_requests_limit" [];
    /// Requests in progress.
    REQUESTS_RUNNING: Gauge<Count> = "edge_requests_running" [];
    /// Requests that are queued now.
    REQUESTS_WAITING: Gauge<Count> = "edge_requests_waiting" [];
    /// How long queued requests waited.
    REQUEST_WAIT: Histogram<Seconds> = "edge_request_wait_seconds" [];
    /// Requests that could not begin.
    REQUESTS_REFUSED: Counter<Count> = "edge_requests_refused_total" [];

    /// Lookups of results: `memory`, `redis`, `joined` (waited for another caller's fetch),
    /// `stale`, `miss`, and `bypassed` (neither looked up nor stored).
    CACHE_LOOKUPS: Counter<Count> = "edge_cache_lookups_total" ["item", "outcome"];
    /// Results that were stored.
    CACHE_STORED: Counter<Count> = "edge_cache_stored_total" ["item"];
    /// Results that were evicted for lack of memory.
    CACHE_EVICTED: Counter<Count> = "edge_cache_evicted_total" [];
    /// The size of this process's cache.
    CACHE_SIZE: Gauge<Bytes> = "edge_cache_bytes" [];
    /// Generations that this replica began, by `namespace/tag`.
    CACHE_INVALIDATIONS: Counter<Count> = "edge_cache_invalidations_total" ["tag"];
    /// 1 while Redis is available to the cache, 0 while it is not.
    CACHE_REDIS_AVAILABLE: Gauge<Count> = "edge_cache_redis_available" [];

    /// Calls that ended because a program failed.
    TRANSFORM_FAILURES: Counter<Count> = "edge_transform_failures_total" ["tool", "direction"];
    /// How long a program took, with the wait for a thread where it needed one.
    TRANSFORM_DURATION: Histogram<Seconds> = "edge_transform_duration_seconds"
        ["tool", "direction"];
    /// What guards replaced, by what it was (`github-token`, `card`, a pattern's name, `field`),
    /// and texts that were stripped (`strip`) or cut (`size`).
    GUARDED: Counter<Count> = "edge_guarded_total" ["guard", "item"];

    /// Items that are `new` or `changed` against the catalog lock.
    LOCK_VIOLATIONS: Gauge<Count> = "edge_catalog_lock_violations" ["change"];
    /// Items left out because their name belongs to another service: `tool`, `tool_own`,
    /// `resource`, `uri`, `prompt`.
    CATALOG_CONFLICTS: Gauge<Count> = "edge_catalog_conflicts" ["kind"];
}
