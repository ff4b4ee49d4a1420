//! The metrics of gRPC servers and clients.

drawbridge_runtime::metric_table! {
    /// How long served RPCs took, to the end of their streams.
    SERVER_CALL_DURATION: Histogram<Seconds> = "rpc_server_call_duration_seconds"
        ["rpc_method", "rpc_response_status_code"];
    /// Connections to other services that failed authentication.
    CLIENT_HANDSHAKES_FAILED: Counter<Count> = "grpc_client_handshakes_failed_total" ["reason"];
    /// When the first authority of the trust bundle expires, in seconds since 1970.
    TRUST_BUNDLE_EXPIRY: Gauge<Seconds> = "mtls_trust_bundle_expiry_timestamp_seconds" [];
}
