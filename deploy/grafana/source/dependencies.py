"""What the services need."""

from source.parts import dashboard, panel, quantile, rate, row


def dependencies():
    return dashboard(
        "dependencies",
        "dependencies",
        "What the services need: auth, tool services, Redis, Vault, databases, issuers.",
        [
            panel(
                "Conditions that are not met",
                "Conditions of readiness, by replica. A required one takes the replica out; see"
                " /readyz at its admin port.",
                "short",
                (
                    "drawbridge_dependency_up{} == 0",
                    "{{job}} {{instance}}: {{dependency}} ({{effect}})",
                ),
                width=12,
            ),
            panel(
                "Ready replicas",
                "Replicas that are ready, by job.",
                "short",
                ("sum by (job) (drawbridge_ready{})", "{{job}}"),
                ("sum by (job) (drawbridge_draining{})", "{{job}}, stopping"),
                width=12,
            ),
            row("Auth and tool services"),
            panel(
                "Replicas of auth",
                "Replicas that each edge knows, and those that it can ask.",
                "short",
                ("edge_auth_replicas{}", "{{instance}}: {{state}}"),
            ),
            panel(
                "Requests to another replica of auth",
                "Requests that were repeated because a replica of auth was lost or refused them.",
                "ops",
                (rate("edge_auth_failovers_total{}", "instance"), "{{instance}}"),
            ),
            panel(
                "Peers of auth",
                "Other replicas of auth, and those that did not answer the last poll of their"
                " keys.",
                "short",
                ("auth_peers{}", "{{instance}}"),
                ("auth_peers_silent{}", "{{instance}}, silent"),
            ),
            panel(
                "Tool services",
                "Whether each edge reaches a replica of each tool service: 1, or 0.",
                "short",
                (
                    'drawbridge_dependency_up{dependency=~"service:.+"}',
                    "{{instance}}: {{dependency}}",
                ),
                width=12,
            ),
            panel(
                "Redis",
                "Whether the edge uses Redis for limits and for its cache: 1, or 0.",
                "short",
                ("edge_limits_redis_available{}", "{{instance}}: limits"),
                ("edge_cache_redis_available{}", "{{instance}}: cache"),
                width=12,
            ),
            row("Credentials"),
            panel(
                "Operations at the source of credentials",
                "Logins, leases, secrets, renewals and revocations at Vault, by outcome.",
                "ops",
                (
                    rate("credentials_operations_total{}", "operation, outcome") + " > 0",
                    "{{operation}}: {{outcome}}",
                ),
            ),
            panel(
                "Latency of credentials, 95 %",
                "How long operations at the source of credentials took.",
                "s",
                (
                    quantile(0.95, "credentials_operation_duration_seconds_bucket{}", "operation"),
                    "{{operation}}",
                ),
            ),
            panel(
                "Sessions and leases",
                "Sessions with Vault and leases of databases that services have.",
                "short",
                ("sum by (job) (credentials_sessions{})", "{{job}}: sessions"),
                ("sum by (job) (credentials_leases{})", "{{job}}: leases"),
            ),
            panel(
                "First expiry of a lease",
                "The time to expiry of the lease that ends first.",
                "s",
                (
                    "credentials_expiry_min_seconds{} and credentials_sessions{} > 0",
                    "{{job}} {{instance}}",
                ),
            ),
            panel(
                "Issuers' keys that could not be fetched",
                "Fetches of keys that failed, by source.",
                "ops",
                (rate("jwks_fetches_failed_total{}", "source"), "{{source}}"),
            ),
            panel(
                "Latency of the helpdesk, 95 %",
                "How long requests to helpdesks took.",
                "s",
                (
                    quantile(0.95, "helpdesk_request_duration_seconds_bucket{}", "operation"),
                    "{{operation}}",
                ),
            ),
        ],
    )
