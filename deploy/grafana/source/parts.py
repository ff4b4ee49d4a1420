"""What dashboards are made of.

A selector is written with braces, `metric{…}`, and gets the variable `namespace`. Rates are over
Grafana's `$__rate_interval`.
"""

import re

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
COLUMNS, HEIGHT = 24, 8

OPERATIONS = "mcp_server_operation_duration_seconds"
TOOL_CALLS = 'mcp_method_name="tools/call",gen_ai_tool_name=~"$tool"'


def targets(queries):
    """The queries of a panel, each an expression with the legend of its series."""
    selector = re.compile(r"([a-z][a-z0-9_:]*)\{")
    return [
        {
            "refId": chr(ord("A") + index),
            "datasource": DATASOURCE,
            "expr": selector.sub(r'\1{namespace=~"$namespace",', expr).replace(",}", "}"),
            "legendFormat": legend,
        }
        for index, (expr, legend) in enumerate(queries)
    ]


def panel(
    title, description, unit, *queries, kind="timeseries", width=8, thresholds=(), stack=False
):
    """A panel. `thresholds` are pairs of a value and the color from it on."""
    steps = [{"value": None, "color": "green"}]
    steps += [{"value": value, "color": color} for value, color in thresholds]
    defaults = {"unit": unit, "min": 0, "thresholds": {"mode": "absolute", "steps": steps}}
    options = {}
    if kind == "timeseries":
        defaults["custom"] = {
            "lineWidth": 1,
            "fillOpacity": 20 if stack else 0,
            "stacking": {"mode": "normal" if stack else "none", "group": "A"},
        }
        options = {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
            "tooltip": {"mode": "multi", "sort": "desc"},
        }
    if kind == "stat":
        options = {
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "colorMode": "value",
            "graphMode": "area",
            "textMode": "auto",
        }
    return {
        "type": kind,
        "title": title,
        "description": description,
        "datasource": DATASOURCE,
        "targets": targets(queries),
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": options,
        "gridPos": {"w": width, "h": HEIGHT if kind == "timeseries" else HEIGHT // 2},
    }


def row(title):
    """A heading."""
    return {
        "type": "row",
        "title": title,
        "collapsed": False,
        "panels": [],
        "gridPos": {"w": COLUMNS, "h": 1},
    }


def variable(name, label, metric):
    """A variable with the values of the label with its name, or `label`."""
    query = f"label_values({metric}, {label})"
    return {
        "name": name,
        "type": "query",
        "label": name,
        "datasource": DATASOURCE,
        "query": {"query": query, "refId": name},
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]},
    }


def dashboard(uid, title, description, panels, variables=()):
    """A dashboard, with its panels placed from left to right."""
    x = y = line = 0
    for number, one in enumerate(panels, start=1):
        position = one["gridPos"]
        if x + position["w"] > COLUMNS:
            x, y, line = 0, y + line, 0
        position["x"], position["y"] = x, y
        x, line = x + position["w"], max(line, position["h"])
        one["id"] = number
    source = {
        "name": "datasource",
        "type": "datasource",
        "query": "prometheus",
        "label": "datasource",
    }
    namespace = variable("namespace", "namespace", "drawbridge_build_info")
    return {
        "uid": f"drawbridge-{uid}",
        "title": f"Drawbridge: {title}",
        "description": description,
        "tags": ["drawbridge"],
        "schemaVersion": 39,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "links": [
            {
                "type": "dashboards",
                "title": "Drawbridge",
                "tags": ["drawbridge"],
                "asDropdown": False,
                "icon": "external link",
                "includeVars": True,
                "keepTime": True,
                "targetBlank": False,
                "tooltip": "",
            }
        ],
        "templating": {"list": [source, namespace, *variables]},
        "panels": panels,
    }


def rate(counter, by):
    """The rate of a counter's selector, summed by labels."""
    return f"sum by ({by}) (rate({counter}[$__rate_interval]))"


def quantile(share, selector, by=""):
    """A quantile of a histogram's selector."""
    labels = f"{by}, le" if by else "le"
    return f"histogram_quantile({share}, {rate(selector, labels)})"


def ratio(part, whole):
    """The share of a rate in another."""
    return f"sum(rate({part}[$__rate_interval])) / sum(rate({whole}[$__rate_interval]))"
