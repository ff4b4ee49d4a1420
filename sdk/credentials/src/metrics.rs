//! The metrics of credentials.

use drawbridge_runtime::metric;

/// Describes the metrics of credentials to the current recorder. Operations start at zero.
pub(crate) fn register() {
    metric::describe(METRICS);
    for operation in ["login", "lease", "certificate", "secret", "renew", "revoke"] {
        let outcomes = ["ok", "refused", "unavailable", "missing", "malformed", "closed"];
        OPERATIONS.start_at_zero(outcomes.map(|outcome| [operation.into(), outcome.into()]));
    }
}

drawbridge_runtime::metric_table! {
    /// Operations at the source of credentials: `login`, `lease`, `certificate`, `secret`, `renew`,
    /// `revoke`. Outcomes are `ok`, `refused`, `unavailable`, `missing`, `malformed`, `closed`.
    OPERATIONS: Counter<Count> = "credentials_operations_total" ["operation", "outcome"];
    /// How long such an operation took.
    OPERATION_DURATION: Histogram<Seconds> = "credentials_operation_duration_seconds"
        ["operation"];
    /// Uses of a `session`, `lease`, `certificate` or `secret`, from `cache` or from the `source`.
    USES: Counter<Count> = "credentials_uses_total" ["what", "from"];
    /// Sessions with Vault.
    SESSIONS: Gauge<Count> = "credentials_sessions" [];
    /// Leases of databases.
    LEASES: Gauge<Count> = "credentials_leases" [];
    /// The time to expiry of the lease that ends first.
    EXPIRY_MIN: Gauge<Seconds> = "credentials_expiry_min_seconds" [];
}
