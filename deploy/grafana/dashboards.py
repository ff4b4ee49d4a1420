#!/usr/bin/env python3
"""Writes the Grafana dashboards of this folder from those in `source/`.

deploy/grafana/dashboards.py           writes them
deploy/grafana/dashboards.py --check   fails if one is not as this program would write it
"""

import json
import sys
from pathlib import Path

sys.dont_write_bytecode = True

from source.dependencies import dependencies  # noqa: E402
from source.overview import overview  # noqa: E402
from source.security import security  # noqa: E402
from source.tools import tools  # noqa: E402

FOLDER = Path(__file__).parent


def main():
    stale = []
    for build in (overview, tools, security, dependencies):
        path = FOLDER / f"{build.__name__}.json"
        text = json.dumps(build(), indent=2, ensure_ascii=False) + "\n"
        if sys.argv[1:] == ["--check"]:
            if not path.exists() or path.read_text(encoding="utf-8") != text:
                stale.append(path.name)
        else:
            path.write_text(text, encoding="utf-8")
    if stale:
        sys.exit(f"run deploy/grafana/dashboards.py: not current: {', '.join(stale)}")


if __name__ == "__main__":
    main()
