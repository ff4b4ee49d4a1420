"""Whether the mesh answers, how fast, and how much it has to do."""

from source.parts import OPERATIONS, dashboard, panel, quantile, rate, row


def overview():
    requests = f'{OPERATIONS}_count{{mcp_method_name!="subscriptions/listen"}}'
    buckets = f'{OPERATIONS}_bucket{{mcp_method_name!="subscriptions/listen"}}'
    return dashboard(
        "overview",
        "overview",
        "Whether the mesh answers, how fast, and how much it has to do.",
        [
            panel(
                "Availability, 30 minutes",
                "Requests that did not fail through a fault of the mesh or of a tool service. The"
                " objective is 99.9 % over 30 days.",
                "percentunit",
                ("1 - drawbridge:availability_errors:ratio30m{}", "availability"),
                kind="stat",
                width=6,
                thresholds=[(0, "red"), (0.994, "yellow"), (0.999, "green")],
            ),
            panel(
                "Within a second, 30 minutes",
                "Requests that were answered within a second. The objective is 99 % over 30 days.",
                "percentunit",
                ("1 - drawbridge:latency_errors:ratio30m{}", "within a second"),
                kind="stat",
                width=6,
                thresholds=[(0, "red"), (0.94, "yellow"), (0.99, "green")],
            ),
            panel(
                "Replicas that are ready",
                "Processes of all services whose readiness conditions are met.",
                "short",
                ("sum(drawbridge_ready{})", "ready"),
                kind="stat",
                width=6,
            ),
            panel(
                "Conditions that are not met",
                "Dependencies and files that replicas lack; the dashboard of dependencies names"
                " them.",
                "short",
                ("count(drawbridge_dependency_up{} == 0) or vector(0)", "not met"),
                kind="stat",
                width=6,
                thresholds=[(1, "red")],
            ),
            row("Requests"),
            panel(
                "Requests by method",
                "Requests of MCP that ended, by method.",
                "reqps",
                (rate(f"{OPERATIONS}_count{{}}", "mcp_method_name"), "{{mcp_method_name}}"),
                stack=True,
            ),
            panel(
                "Requests by outcome",
                "Requests of MCP by error type; without one, they succeeded.",
                "reqps",
                (rate(f"{OPERATIONS}_count{{}}", "error_type"), "{{error_type}}"),
                stack=True,
            ),
            panel(
                "Latency",
                "How long requests of MCP took, up to their response.",
                "s",
                *((quantile(share, buckets), f"p{share * 100:g}") for share in (0.5, 0.95, 0.99)),
            ),
            panel(
                "HTTP responses of the edge by status",
                "Responses by HTTP status. JSON-RPC errors of admitted requests have the status"
                " 200.",
                "reqps",
                (
                    rate(
                        'http_server_request_duration_seconds_count{http_route!=""}',
                        "http_response_status_code",
                    ),
                    "{{http_response_status_code}}",
                ),
                stack=True,
            ),
            panel(
                "Error budget burn",
                "Errors in an hour as a multiple of what uses up the budget of 30 days in 30 days."
                " From 14.4 on it is an alert.",
                "none",
                ("drawbridge:availability_errors:ratio1h{} / 0.001", "availability"),
                ("drawbridge:latency_errors:ratio1h{} / 0.01", "latency"),
            ),
            panel(
                "Sessions and streams",
                "What clients have open at the edge.",
                "short",
                ("sum(mcp_server_sessions{})", "sessions"),
                ("sum(mcp_server_streams{})", "listening streams"),
                ("sum(mcp_server_watched_resources{})", "watched resources"),
            ),
            row("Load"),
            panel(
                "Requests in progress",
                "Requests that the edge works on, those that are queued, and how many it admits at"
                " once.",
                "short",
                ("sum(edge_requests_running{})", "running"),
                ("sum(edge_requests_waiting{})", "queued"),
                ("sum(edge_requests_limit{})", "limit"),
            ),
            panel(
                "Time in the queue",
                "How long queued requests waited.",
                "s",
                *(
                    (quantile(share, "edge_request_wait_seconds_bucket{}"), f"p{share * 100:g}")
                    for share in (0.5, 0.95)
                ),
            ),
            panel(
                "Cache",
                "Lookups of results by outcome.",
                "ops",
                (rate("edge_cache_lookups_total{}", "outcome"), "{{outcome}}"),
                stack=True,
            ),
            panel(
                "CPU",
                "CPUs that each process uses.",
                "short",
                (
                    (
                        "rate(process_cpu_seconds_total{}[$__rate_interval]) and on (job, instance)"
                        " drawbridge_ready{}"
                    ),
                    "{{job}} {{instance}}",
                ),
            ),
            panel(
                "Memory",
                "Resident memory of each process.",
                "bytes",
                (
                    "process_resident_memory_bytes{} and on (job, instance) drawbridge_ready{}",
                    "{{job}} {{instance}}",
                ),
            ),
            panel(
                "Busy workers",
                "The share of time in which the runtime's workers run tasks.",
                "percentunit",
                (
                    "rate(tokio_workers_busy_seconds_total{}[$__rate_interval]) / tokio_workers{}",
                    "{{job}} {{instance}}",
                ),
            ),
            panel(
                "Tasks",
                "Tasks of the runtime that have not ended, and those that wait for a worker.",
                "short",
                ("tokio_alive_tasks{}", "{{job}} {{instance}}"),
                ("tokio_global_queue_depth{}", "{{job}} {{instance}}, queued"),
            ),
            panel(
                "Versions",
                "Replicas by version and commit.",
                "short",
                ("count by (version, commit) (drawbridge_build_info{})", "{{version}} {{commit}}"),
            ),
            panel(
                "Lost telemetry",
                "Spans, data points and log lines that could not be exported or written.",
                "ops",
                (
                    rate("telemetry_spans_lost_total{}", "job, reason"),
                    "spans of {{job}}: {{reason}}",
                ),
                (
                    rate("telemetry_log_records_lost_total{}", "job, reason"),
                    "log records of {{job}}: {{reason}}",
                ),
                (
                    rate("telemetry_data_points_lost_total{}", "job, reason"),
                    "data points of {{job}}: {{reason}}",
                ),
                (rate("telemetry_log_lines_lost_total{}", "job"), "log lines of {{job}}"),
            ),
        ],
    )
