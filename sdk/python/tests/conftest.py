"""Compiles the tests' contract and makes its modules importable."""

import sys
import tempfile
from pathlib import Path

from drawbridge.build import compile_contract

_OUT = Path(tempfile.mkdtemp(prefix="drawbridge-tests-"))
compile_contract(Path(__file__).parent / "contract", _OUT)
sys.path.insert(0, str(_OUT))
