//! The metrics of gRPC servers and clients.

drawbridge_runtime::metric_table! {
    /// How long served RPCs took, to the end of their streams.
    SERVER_CALL_DURATION: Histogram<Seconds> = "rpc_server_call_duration_seconds"
        ["rpc_method", "rpc_response_status_code"];
    /// Connections to other services that failed authentication.
    CLIENT_HANDSHAKES_FAILED: Counter<Count> = "grpc_client_handshakes_failed_total" ["reason"];
    /// When the keys of a source (an issuer, a URL or a file) were fetched last, in seconds since
    /// 1970. NaN when they are not needed any more.
    JWKS_FETCHED: Gauge<Seconds> = "jwks_fetched_timestamp_seconds" ["source"];
    /// Until when these keys are fresh, in seconds since 1970. Later they are used for a limited
    /// time, while their source does not answer. NaN when they are not needed any more.
    JWKS_FRESH_UNTIL: Gauge<Seconds> = "jwks_fresh_until_timestamp_seconds" ["source"];
    /// Fetches of keys that failed.
    JWKS_FETCHES_FAILED: Counter<Count> = "jwks_fetches_failed_total" ["source"];
}
