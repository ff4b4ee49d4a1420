"""Compiles the contract of a service: `python -m drawbridge.build [PROTOS] [--out FOLDER]`.

Writes for each `.proto` below the folder PROTOS (default: `proto`) the module of its messages with
types (`<name>_pb2.py`, `<name>_pb2.pyi`), of its services (`<name>_pb2_grpc.py`), and its
descriptor with comments (`<name>_pb2.binpb`), which reflection serves: comments are the descriptions that AI
clients read. `drawbridge/mcp/v1` and `buf/validate` can be imported without a copy.

It needs grpcio-tools: `pip install 'drawbridge[build]'`.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import tempfile
from pathlib import Path

from google.protobuf import descriptor_pb2

__all__ = ["BuildError", "compile_contract", "main"]

_HERE = Path(__file__).parent


class BuildError(Exception):
    """The contract could not be compiled."""


def compile_contract(protos: Path, out: Path) -> list[Path]:
    """Compiles every `.proto` below `protos` into modules below `out`; returns what was compiled.

    Raises `BuildError`; protoc prints the mistakes of a contract.
    """
    if importlib.util.find_spec("grpc_tools") is None:
        raise BuildError("grpcio-tools is missing: pip install 'drawbridge[build]'")
    from grpc_tools import protoc

    files = sorted(file.relative_to(protos) for file in protos.rglob("*.proto"))
    if not files:
        raise BuildError(f"{protos} has no .proto file")
    google = Path(protoc.__file__).parent / "_proto"
    with tempfile.TemporaryDirectory() as folder:
        descriptors = Path(folder) / "descriptors.binpb"
        arguments = [
            *(f"-I{include}" for include in (protos, public_protos(), google)),
            *(f"--{kind}_out={out}" for kind in ("python", "pyi", "grpc_python")),
            f"--descriptor_set_out={descriptors}",
            "--include_source_info",
        ]
        out.mkdir(parents=True, exist_ok=True)
        if protoc.main(["protoc", *arguments, *map(str, files)]) != 0:
            raise BuildError("the contract could not be compiled")
        compiled = descriptor_pb2.FileDescriptorSet.FromString(descriptors.read_bytes())
    for file in compiled.file:
        module = file.name.removesuffix(".proto").replace("-", "_") + "_pb2.binpb"
        (out / module).write_bytes(file.SerializeToString(deterministic=True))
    return files


def public_protos() -> Path:
    """The folder of `drawbridge/mcp/v1` and `buf/validate`."""
    installed = _HERE / "_protos"
    # An editable install has them in the source folder.
    return installed if installed.is_dir() else _HERE.parent.parent / "protos"


def main(arguments: list[str] | None = None) -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        prog="python -m drawbridge.build", description="Compile the contract of a tool service."
    )
    parser.add_argument("protos", nargs="?", default="proto", type=Path, help="[default: proto]")
    parser.add_argument("--out", default=".", type=Path, help="where to write modules [default: .]")
    parsed = parser.parse_args(arguments)
    try:
        files = compile_contract(parsed.protos, parsed.out)
    except BuildError as error:
        sys.exit(f"error: {error}")
    print(f"compiled {', '.join(map(str, files))} into {parsed.out}")


if __name__ == "__main__":
    main()
