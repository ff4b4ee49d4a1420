"""Refusals, policies, tokens, keys and certificates."""

from source.parts import OPERATIONS, dashboard, panel, rate, ratio, row


def security():
    return dashboard(
        "security",
        "security",
        "Who is refused and why, the policies in force, tokens, keys and certificates.",
        [
            panel(
                "Refusals",
                "Requests that the edge refused, by reason.",
                "reqps",
                (rate("edge_refusals_total{}", "reason") + " > 0", "{{reason}}"),
                stack=True,
            ),
            panel(
                "Decisions",
                "Decisions of auth, by operation and outcome.",
                "ops",
                (
                    rate("auth_decisions_total{}", "operation, outcome"),
                    "{{operation}}: {{outcome}}",
                ),
                stack=True,
            ),
            panel(
                "Denials",
                "Denials by policy and for a missing scope, as a share of all requests.",
                "percentunit",
                (
                    ratio(
                        'edge_refusals_total{reason=~"policy_denied|insufficient_scope"}',
                        f"{OPERATIONS}_count{{}}",
                    ),
                    "denied",
                ),
            ),
            panel(
                "Access tokens",
                "Tokens that auth refused, and those that could not be verified when they arrived.",
                "ops",
                (rate("auth_tokens_refused_total{}", "job"), "refused"),
                (rate("auth_tokens_unverified_total{}", "reason"), "unverified: {{reason}}"),
                (rate("auth_introspections_total{}", "job"), "introspected"),
            ),
            panel(
                "Where decisions come from",
                "Decisions that were requested from auth, repeated from the edge's cache, or"
                " refused for a token that was refused before.",
                "ops",
                (rate("edge_decisions_total{}", "source"), "{{source}}"),
                stack=True,
            ),
            panel(
                "Rate limits",
                "Requests that a rate limit rejected.",
                "reqps",
                (rate("edge_rate_limited_total{}", "limit"), "{{limit}}"),
            ),
            row("Policies and revocations"),
            panel(
                "Policies in force",
                "Replicas of auth by the revision of their policies. There should be one revision.",
                "short",
                (
                    "count by (revision, bundle) (auth_policy_revision_info{} == 1)",
                    "{{revision}} {{bundle}}",
                ),
            ),
            panel(
                "Age of the policies",
                "Since when the policies in force are.",
                "s",
                ("time() - auth_policies_since_timestamp_seconds{}", "{{instance}}"),
            ),
            panel(
                "Rejected changes",
                "Edits of policies, issuers, config files and certificates that were rejected.",
                "short",
                ("sum(increase(auth_policy_reloads_failed_total{}[1h]))", "policies"),
                ("sum(increase(auth_issuers_reloads_failed_total{}[1h]))", "issuers"),
                (
                    "sum(increase(edge_config_reloads_failed_total{}[1h]))",
                    "config and catalog lock",
                ),
                ("sum(increase(mtls_certificate_reloads_failed_total{}[1h]))", "certificates"),
            ),
            panel(
                "Revocations",
                "Revocations in force.",
                "short",
                ("max(auth_revocations{})", "revocations"),
            ),
            panel(
                "Policies that failed",
                "Decisions in which a policy could not be evaluated.",
                "ops",
                (rate("auth_policy_errors_total{}", "job"), "errors"),
            ),
            panel(
                "Catalog lock",
                "Items that tool services offer and the catalog lock does not have.",
                "short",
                ("max by (change) (edge_catalog_lock_violations{})", "{{change}}"),
                ("max by (kind) (edge_catalog_conflicts{})", "conflicts: {{kind}}"),
            ),
            row("Keys and certificates"),
            panel(
                "Certificates expire in",
                "The time to the expiry of each certificate, and of the first authority of the"
                " trust bundle.",
                "s",
                (
                    "certificate_expiry_timestamp_seconds{} - time()",
                    "{{job}} {{instance}}: {{certificate}}",
                ),
            ),
            panel(
                "Age of issuers' keys",
                "The time since the keys of each source were fetched.",
                "s",
                ("time() - jwks_fetched_timestamp_seconds{}", "{{job}}: {{source}}"),
            ),
            panel(
                "Failed handshakes",
                "Connections of services that failed authentication, by reason.",
                "ops",
                (
                    rate("grpc_server_handshakes_failed_total{}", "job, reason"),
                    "{{job}}: {{reason}}",
                ),
                (
                    rate("grpc_client_handshakes_failed_total{}", "job, reason"),
                    "from {{job}}: {{reason}}",
                ),
            ),
            panel(
                "Keys of transaction tokens",
                "Keys that each replica of auth publishes: its own and those of its peers.",
                "short",
                ("auth_transaction_keys{}", "{{instance}}"),
            ),
            panel(
                "Closed connections",
                "Connections that servers ended, by reason.",
                "ops",
                (rate("http_server_closed_connections_total{}", "reason"), "{{reason}}"),
            ),
            row("Audit"),
            panel(
                "Audit records",
                "Records that were written to the audit logs, by event.",
                "ops",
                (rate("audit_records_written_total{}", "event"), "{{event}}"),
                stack=True,
            ),
            panel(
                "Lost audit records",
                "Events that are missing in the audit logs, by reason.",
                "short",
                (
                    "sum by (job, reason) (increase(audit_records_lost_total{}[1h]))",
                    "{{job}}: {{reason}}",
                ),
            ),
            panel(
                "Checkpoints of other replicas",
                "Checkpoints of audit logs that replicas have shown to one another, by outcome.",
                "ops",
                (rate("audit_peer_checkpoints_total{}", "outcome"), "{{outcome}}"),
            ),
            panel(
                "Receivers of audit records",
                "The age of the oldest record that a receiver has not acknowledged.",
                "s",
                ("max by (job, sink) (audit_sink_lag_seconds{})", "{{job}}: {{sink}}"),
            ),
        ],
    )
