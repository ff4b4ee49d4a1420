//! The metrics of auth.

use drawbridge_proto::auth::v1::unverified::Reason;
use drawbridge_runtime::metric;

/// Describes the metrics of auth to the current recorder. Counters whose labels are known start at
/// zero.
pub(crate) fn register() {
    metric::describe(METRICS);
    let reasons = [Reason::Keys, Reason::Introspection, Reason::Busy];
    let refused = ["kind", "thumbprint", "too_many"];
    PEER_KEYS_REFUSED.start_at_zero(refused.map(|reason| [reason.into()]));
    TOKENS_UNVERIFIED.start_at_zero(reasons.map(|reason| [reason.as_str_name().into()]));
}

drawbridge_runtime::metric_table! {
    /// Decisions, by operation and outcome.
    DECISIONS: Counter<Count> = "auth_decisions_total" ["operation", "outcome"];

    /// 1 while the policies in force are those of their source.
    POLICIES_CURRENT: Gauge<Count> = "auth_policies_current" [];
    /// 1 for the policies in force: their digest, the revision of their bundle (empty: none), and
    /// where they come from. 0 for those before them.
    POLICY_REVISION_INFO: Gauge<Count> = "auth_policy_revision_info" ["revision", "bundle", "source"];
    /// Since when the policies in force are, in seconds since 1970.
    POLICIES_SINCE: Gauge<Seconds> = "auth_policies_since_timestamp_seconds" [];
    /// 1 while the policy bundle is past its `not_after`, and no newer one has arrived.
    POLICY_BUNDLE_EXPIRED: Gauge<Count> = "auth_policy_bundle_expired" [];
    /// Edits of policies and bundles that were rejected.
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

    /// Keys of transaction tokens that this replica publishes: its own and those of its peers.
    TRANSACTION_KEYS: Gauge<Count> = "auth_transaction_keys" [];
    /// Other replicas of auth, by the addresses of `--peers`; this one may be among them.
    PEERS: Gauge<Count> = "auth_peers" [];
    /// Replicas of auth that did not answer the last poll of their keys.
    PEERS_SILENT: Gauge<Count> = "auth_peers_silent" [];
    /// Keys of other replicas that were refused, by reason.
    PEER_KEYS_REFUSED: Counter<Count> = "auth_peer_keys_refused_total" ["reason"];
    /// Keys that sign although a silent replica may not publish them.
    KEYS_UNCONFIRMED: Counter<Count> = "auth_keys_unconfirmed_total" [];

    /// Revocations in force.
    REVOCATIONS: Gauge<Count> = "auth_revocations" [];
    /// 1 while the list of revocations can be read.
    REVOCATIONS_READABLE: Gauge<Count> = "auth_revocations_readable" [];
}
