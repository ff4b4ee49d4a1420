//! The metrics of every process: its build, the process itself, its telemetry, HTTP, TLS, and
//! sockets of services.

/// Describes the metrics of every process to the current recorder. Counters whose labels are known
/// start at zero.
pub(crate) fn register() {
    crate::metric::describe(METRICS);
    for lost in [SPANS_LOST, LOG_RECORDS_LOST, DATA_POINTS_LOST] {
        let reasons = ["queue_full", "export_failed", "rejected"];
        lost.start_at_zero(reasons.map(|reason| [reason.into()]));
    }
    let closed = ["idle", "send_timeout", "framing", "protocol"];
    CLOSED_CONNECTIONS.start_at_zero(closed.map(|reason| [reason.into()]));
}

crate::metric_table! {
    /// 1, with the version and the commit that the process was built from, if that is known.
    BUILD_INFO: Gauge<Count> = "drawbridge_build_info" ["version", "commit"];

    /// 1 while the service is ready, as in `/readyz`.
    READY: Gauge<Count> = "drawbridge_ready" [];
    /// 1 since the service has been asked to stop, 0 before.
    DRAINING: Gauge<Count> = "drawbridge_draining" [];
    /// 1 while a condition of readiness is met, 0 while it is not. Without a `required` one the
    /// service is not ready.
    DEPENDENCY_UP: Gauge<Count> = "drawbridge_dependency_up" ["dependency", "effect"];

    /// The time that the process spent on CPUs, in user and kernel mode.
    PROCESS_CPU: Counter<Seconds> = "process_cpu_seconds_total" [];
    /// Open file descriptors.
    PROCESS_OPEN_FILES: Gauge<Count> = "process_open_fds" [];
    /// The maximum of open file descriptors.
    PROCESS_FILES_MAX: Gauge<Count> = "process_max_fds" [];
    /// The size of virtual memory.
    PROCESS_VIRTUAL_MEMORY: Gauge<Bytes> = "process_virtual_memory_bytes" [];
    /// The size of resident memory.
    PROCESS_RESIDENT_MEMORY: Gauge<Bytes> = "process_resident_memory_bytes" [];
    /// When the process started, in seconds since 1970.
    PROCESS_START: Gauge<Seconds> = "process_start_time_seconds" [];
    /// Threads of the operating system.
    PROCESS_THREADS: Gauge<Count> = "process_threads" [];

    /// Threads that run tasks of the runtime.
    TOKIO_WORKERS: Gauge<Count> = "tokio_workers" [];
    /// Tasks of the runtime that have not ended.
    TOKIO_TASKS: Gauge<Count> = "tokio_alive_tasks" [];
    /// Tasks that are ready to run and wait for a worker, in the queue that all workers share.
    TOKIO_QUEUE: Gauge<Count> = "tokio_global_queue_depth" [];
    /// The time that workers spent running tasks.
    TOKIO_BUSY: Counter<Seconds> = "tokio_workers_busy_seconds_total" [];

    /// Spans that were lost: `queue_full` (more than the exporter could send), `export_failed`,
    /// `rejected` (by the collector).
    SPANS_LOST: Counter<Count> = "telemetry_spans_lost_total" ["reason"];
    /// Log records that were lost on their way to a collector, for the same reasons.
    LOG_RECORDS_LOST: Counter<Count> = "telemetry_log_records_lost_total" ["reason"];
    /// Data points that a collector did not take, for the same reasons. The next ones include what
    /// they had.
    DATA_POINTS_LOST: Counter<Count> = "telemetry_data_points_lost_total" ["reason"];
    /// Log lines that could not be written.
    LOG_LINES_LOST: Counter<Count> = "telemetry_log_lines_lost_total" [];

    /// How long HTTP requests took, up to the head of their response. The method is a known one or
    /// `_OTHER`; the route is a template, or `unknown`.
    HTTP_REQUEST_DURATION: Histogram<Seconds> = "http_server_request_duration_seconds"
        ["http_request_method", "http_route", "http_response_status_code"];
    /// Open connections.
    OPEN_CONNECTIONS: Gauge<Count> = "http_server_open_connections" [];
    /// Connections that the server ended: `idle`, `send_timeout`, `framing`, `protocol`, `tls`,
    /// `tls_timeout`, `tls_evicted`, `tls_too_many`.
    CLOSED_CONNECTIONS: Counter<Count> = "http_server_closed_connections_total" ["reason"];
    /// Request bodies that arrived too slowly.
    BODY_TIMEOUTS: Counter<Count> = "http_server_body_timeouts_total" [];
    /// When a certificate in use expires, in seconds since 1970: the `server`'s for clients, the
    /// `service`'s for other services, and that of the authority of the `trust_bundle` that expires
    /// first.
    CERTIFICATE_EXPIRY: Gauge<Seconds> = "certificate_expiry_timestamp_seconds" ["certificate"];
    /// From the beginning of a certificate's validity to its end.
    CERTIFICATE_LIFETIME: Gauge<Seconds> = "certificate_lifetime_seconds" ["certificate"];
    /// 1 while the certificate in use is the one in the files, 0 while they cannot be used.
    TLS_CURRENT: Gauge<Count> = "tls_certificate_current" [];
    /// Reloads whose files could not be used.
    TLS_RELOADS_FAILED: Counter<Count> = "tls_certificate_reloads_failed_total" [];

    /// 1 while the certificate for services in use is the one in the files, 0 while they cannot be
    /// used.
    MTLS_CURRENT: Gauge<Count> = "mtls_certificate_current" [];
    /// Reloads of the certificate for services whose files could not be used.
    MTLS_RELOADS_FAILED: Counter<Count> = "mtls_certificate_reloads_failed_total" [];
    /// Connections of services that were not accepted.
    SERVER_HANDSHAKES_FAILED: Counter<Count> = "grpc_server_handshakes_failed_total" ["reason"];
}
