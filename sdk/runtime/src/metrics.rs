//! The metrics of every process: its build, the process itself, HTTP, TLS, and sockets of services.

crate::metric_table! {
    /// 1, with the version and the commit that the process was built from, if that is known.
    BUILD_INFO: Gauge<Count> = "drawbridge_build_info" ["version", "commit"];

    /// 1 while the service is ready, as in `/readyz`.
    READY: Gauge<Count> = "drawbridge_ready" [];
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

    /// Open connections.
    OPEN_CONNECTIONS: Gauge<Count> = "http_server_open_connections" [];
    /// Connections that the server ended: `idle`, `send_timeout`, `framing`, `protocol`, `tls`,
    /// `tls_timeout`, `tls_evicted`, `tls_too_many`.
    CLOSED_CONNECTIONS: Counter<Count> = "http_server_closed_connections_total" ["reason"];
    /// Request bodies that arrived too slowly.
    BODY_TIMEOUTS: Counter<Count> = "http_server_body_timeouts_total" [];
    /// When the certificate in use expires, in seconds since 1970.
    TLS_EXPIRY: Gauge<Seconds> = "tls_certificate_expiry_timestamp_seconds" [];
    /// 1 while the certificate in use is the one in the files, 0 while they cannot be used.
    TLS_CURRENT: Gauge<Count> = "tls_certificate_current" [];
    /// Reloads whose files could not be used.
    TLS_RELOADS_FAILED: Counter<Count> = "tls_certificate_reloads_failed_total" [];

    /// When the certificate for services in use expires, in seconds since 1970.
    MTLS_EXPIRY: Gauge<Seconds> = "mtls_certificate_expiry_timestamp_seconds" [];
    /// 1 while the certificate for services in use is the one in the files, 0 while they cannot be
    /// used.
    MTLS_CURRENT: Gauge<Count> = "mtls_certificate_current" [];
    /// Reloads of the certificate for services whose files could not be used.
    MTLS_RELOADS_FAILED: Counter<Count> = "mtls_certificate_reloads_failed_total" [];
    /// Connections of services that were not accepted.
    SERVER_HANDSHAKES_FAILED: Counter<Count> = "grpc_server_handshakes_failed_total" ["reason"];
}
