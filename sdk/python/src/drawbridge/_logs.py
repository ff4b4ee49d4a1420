"""Log lines on standard error: for people on a terminal, one JSON object per line elsewhere."""

from __future__ import annotations

import json
import logging
import sys
from datetime import datetime, timezone

from ._caller import request_id

FIELDS = "drawbridge_fields"
"""The attribute of a log record with further fields."""


class _Json(logging.Formatter):
    """The same fields as the log lines of Drawbridge's own services."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, timezone.utc)
        line: dict[str, object] = {
            "timestamp": time.isoformat(timespec="microseconds").replace("+00:00", "Z"),
            "level": _level(record),
            "message": record.getMessage(),
            **getattr(record, FIELDS, {}),
            "target": record.name,
        }
        current = request_id()
        if current is not None:
            line["request_id"] = current
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


class _Pretty(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created).strftime("%H:%M:%S")
        fields = dict(getattr(record, FIELDS, {}))
        if (current := request_id()) is not None:
            fields["request_id"] = current
        more = "".join(f" {name}={value}" for name, value in fields.items())
        line = f"{time} {_level(record):5} {record.getMessage()}{more}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def _level(record: logging.LogRecord) -> str:
    return {"WARNING": "WARN", "CRITICAL": "ERROR"}.get(record.levelname, record.levelname)


def install_logs(format: str, level: str) -> None:
    """Logs to standard error."""
    pretty = format == "pretty" or (format == "auto" and sys.stderr.isatty())
    handler = logging.StreamHandler()
    handler.setFormatter(_Pretty() if pretty else _Json())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
