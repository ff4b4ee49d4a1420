"""Calls of each tool."""

from source.parts import OPERATIONS, TOOL_CALLS, dashboard, panel, quantile, rate, row, variable


def tools():
    calls = f"{OPERATIONS}_count{{{TOOL_CALLS}}}"
    failed = f'{OPERATIONS}_count{{{TOOL_CALLS},error_type!=""}}'
    buckets = f"{OPERATIONS}_bucket{{{TOOL_CALLS}}}"
    found = 'edge_cache_lookups_total{outcome!~"miss|bypassed"}'
    return dashboard(
        "tools",
        "tools",
        "Calls of each tool: how many, how they ended, how long they took and waited.",
        [
            panel(
                "Calls by tool",
                "Calls that ended.",
                "reqps",
                (rate(calls, "gen_ai_tool_name"), "{{gen_ai_tool_name}}"),
                width=12,
                stack=True,
            ),
            panel(
                "Calls by outcome",
                "Calls by error type; without one, they succeeded. A tool error is one that the"
                " tool's result reports.",
                "reqps",
                (rate(calls, "error_type"), "{{error_type}}"),
                width=12,
                stack=True,
            ),
            panel(
                "Errors by tool",
                "The share of calls that did not succeed, by tool.",
                "percentunit",
                (
                    f'{rate(failed, "gen_ai_tool_name")} / {rate(calls, "gen_ai_tool_name")}',
                    "{{gen_ai_tool_name}}",
                ),
                width=12,
            ),
            panel(
                "Latency by tool, 95 %",
                "95 % of the calls of a tool took less.",
                "s",
                (quantile(0.95, buckets, "gen_ai_tool_name"), "{{gen_ai_tool_name}}"),
                width=12,
            ),
            row("Tool services"),
            panel(
                "Calls in progress",
                "Calls that run and that are queued, by tool service.",
                "short",
                ("sum by (service) (edge_calls_running{})", "{{service}}"),
                ("sum by (service) (edge_calls_waiting{})", "{{service}}, queued"),
            ),
            panel(
                "Time in the queue, 95 %",
                "How long queued calls waited for a permit of their tool service.",
                "s",
                (quantile(0.95, "edge_call_wait_seconds_bucket{}", "service"), "{{service}}"),
            ),
            panel(
                "Calls without a permit",
                "Calls that got no permit, because of the limit of the principal or of the"
                " service.",
                "reqps",
                (rate("edge_calls_refused_total{}", "service, reason"), "{{service}}: {{reason}}"),
            ),
            panel(
                "RPCs by status",
                "RPCs that services served, by their gRPC status.",
                "reqps",
                (
                    rate("rpc_server_call_duration_seconds_count{}", "rpc_response_status_code"),
                    "{{rpc_response_status_code}}",
                ),
                stack=True,
            ),
            panel(
                "Latency of RPCs, 95 %",
                "How long RPCs took in the service that served them.",
                "s",
                (
                    quantile(0.95, "rpc_server_call_duration_seconds_bucket{}", "rpc_method"),
                    "{{rpc_method}}",
                ),
            ),
            panel(
                "Cache by item",
                "Lookups that found a result, as a share of all.",
                "percentunit",
                (
                    f'{rate(found, "item")} / {rate("edge_cache_lookups_total{}", "item")}',
                    "{{item}}",
                ),
            ),
            row("Content"),
            panel(
                "Guards",
                "What guards replaced in results, by what it was.",
                "ops",
                (rate("edge_guarded_total{}", "guard"), "{{guard}}"),
            ),
            panel(
                "Transformations that failed",
                "Calls that ended because a program failed.",
                "ops",
                (
                    rate("edge_transform_failures_total{}", "tool, direction"),
                    "{{tool}}: {{direction}}",
                ),
            ),
            panel(
                "Helpdesk",
                "Requests of the service tickets to helpdesks, by outcome.",
                "reqps",
                (rate("helpdesk_requests_total{}", "outcome"), "{{outcome}}"),
            ),
        ],
        [variable("tool", "gen_ai_tool_name", f"{OPERATIONS}_count")],
    )
