"""Compiles contracts and makes their modules importable."""

import atexit
import shutil
import sys
import tempfile
from pathlib import Path

from drawbridge.build import compile_contract


def compiled(*folders: Path) -> None:
    """Compiles the contracts below these folders."""
    out = Path(tempfile.mkdtemp(prefix="drawbridge-"))
    atexit.register(shutil.rmtree, out)
    for folder in folders:
        compile_contract(folder, out)
    sys.path.insert(0, str(out))
