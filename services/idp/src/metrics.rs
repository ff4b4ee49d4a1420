//! The metrics of the authorization server.

drawbridge_runtime::metric_table! {
    /// How long requests took.
    REQUEST_DURATION: Histogram<Seconds> = "http_server_request_duration_seconds"
        ["http_request_method", "http_route", "http_response_status_code"];
}
