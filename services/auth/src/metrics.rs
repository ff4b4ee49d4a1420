//! The metrics of auth.

drawbridge_runtime::metric_table! {
    /// Decisions, by operation and outcome.
    DECISIONS: Counter<Count> = "auth_decisions_total" ["operation", "outcome"];
    /// Decision records that could not be written.
    DECISION_LOG_ERRORS: Counter<Count> = "auth_decision_log_errors_total" [];

    /// 1 while the policies in force are those in the files.
    POLICIES_CURRENT: Gauge<Count> = "auth_policies_current" [];
    /// Edits of policies that were rejected.
    POLICY_RELOADS_FAILED: Counter<Count> = "auth_policy_reloads_failed_total" [];
    /// Decisions in which a policy could not be evaluated.
    POLICY_ERRORS: Counter<Count> = "auth_policy_errors_total" [];

    /// 1 while the issuers in force are those in the issuers file.
    ISSUERS_CURRENT: Gauge<Count> = "auth_issuers_current" [];
    /// Edits of the issuers file that were rejected.
    ISSUERS_RELOADS_FAILED: Counter<Count> = "auth_issuers_reloads_failed_total" [];
    /// Access tokens that were refused.
    TOKENS_REFUSED: Counter<Count> = "auth_tokens_refused_total" [];
    /// Access tokens that could not be verified when they arrived.
    TOKENS_UNVERIFIED: Counter<Count> = "auth_tokens_unverified_total" ["reason"];
    /// Introspections of opaque tokens.
    INTROSPECTIONS: Counter<Count> = "auth_introspections_total" [];
    /// Introspections of opaque tokens that were refused at once.
    INTROSPECTIONS_REFUSED: Counter<Count> = "auth_introspections_refused_total" [];

    /// Revocations in force.
    REVOCATIONS: Gauge<Count> = "auth_revocations" [];
    /// 1 while the list of revocations can be read.
    REVOCATIONS_READABLE: Gauge<Count> = "auth_revocations_readable" [];
}
