"""Adds the modules that are generated from `protos` to the package."""

import shutil
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class ProtoBuildHook(BuildHookInterface):
    """Compiles the protos of the public contract with grpcio-tools."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        root = Path(self.root)
        protos = root / "protos"
        # An editable install imports the package from its source folder.
        out = root / "src" if version == "editable" else Path(tempfile.mkdtemp())
        compile_protos(protos, out)
        # `python -m drawbridge.build` compiles services against them.
        build_data["force_include"][str(protos)] = "drawbridge/_protos"
        if version != "editable":
            self._generated = out
            build_data["force_include"][str(out / "drawbridge" / "mcp")] = "drawbridge/mcp"
            build_data["force_include"][str(out / "buf")] = "buf"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if version != "editable":
            shutil.rmtree(self._generated)


def compile_protos(protos: Path, out: Path) -> None:
    """Compiles the protos into modules with types."""
    from grpc_tools import protoc

    include = Path(protoc.__file__).parent / "_proto"
    files = sorted(str(file.relative_to(protos)) for file in protos.glob("*/*/*.proto"))
    files += sorted(str(file.relative_to(protos)) for file in protos.glob("*/*/*/*.proto"))
    arguments = [f"-I{protos}", f"-I{include}", f"--python_out={out}", f"--pyi_out={out}"]
    if protoc.main(["protoc", *arguments, *files]) != 0:
        raise SystemExit("the protos of drawbridge.mcp.v1 could not be compiled")
