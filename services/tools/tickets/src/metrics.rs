//! The metrics of this service.

drawbridge_sdk::metric_table! {
    /// Requests to helpdesks: `search`, `ticket`, `articles`, `user`, `reply`. Outcomes are `ok`,
    /// `refused`, `not_found`, `rejected`, `busy`, `unavailable`, `malformed`, `deadline`.
    REQUESTS: Counter<Count> = "helpdesk_requests_total" ["operation", "outcome"];
    /// How long requests to helpdesks took.
    REQUEST_DURATION: Histogram<Seconds> = "helpdesk_request_duration_seconds" ["operation"];
}
