#!/usr/bin/env python3
"""Writes the JSON Schemas that kubeconform reads: those of Kubernetes, and of custom resources.

    schemas.py FOLDER KUBERNETES [CRD…]

KUBERNETES is the folder of the package kubernetes-validate with one folder per version, CRD a YAML
file of CustomResourceDefinitions. FOLDER gets `<version>/<kind>-<group>-<version>.json`, and
`crds/…` alike.
"""

import json
import pathlib
import sys

import yaml


def kubernetes(source: pathlib.Path, folder: pathlib.Path) -> None:
    """The schemas of one version's types. They refer to one file, by their own `$id`'s host."""
    folder.mkdir(parents=True)
    for file in source.glob("*.json"):
        schema = json.loads(file.read_text().replace("/api/_definitions.json#", "_definitions.json#"))
        if isinstance(schema, dict):
            schema.pop("$id", None)
            schema.pop("$schema", None)
        (folder / file.name).write_text(json.dumps(schema))


def strict(schema: object) -> object:
    """Refuses fields that a structural schema does not name, as the API server does."""
    if isinstance(schema, list):
        return [strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {key: strict(value) for key, value in schema.items()}
    is_open = schema.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in schema
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object" and not is_open:
        schema["additionalProperties"] = False
    return schema


def custom(file: pathlib.Path, folder: pathlib.Path) -> None:
    for definition in yaml.safe_load_all(file.read_text()):
        if not definition or definition["kind"] != "CustomResourceDefinition":
            continue
        spec = definition["spec"]
        for version in spec["versions"]:
            schema = strict(version["schema"]["openAPIV3Schema"])
            # An API server fills these in.
            for name in ("apiVersion", "kind", "metadata"):
                schema["properties"].setdefault(name, {})
            name = f"{spec['names']['kind'].lower()}-{spec['group']}-{version['name']}.json"
            (folder / name).write_text(json.dumps(schema))


def main() -> None:
    folder, source, *definitions = map(pathlib.Path, sys.argv[1:])
    for version in source.glob("v1.*-local-strict"):
        kubernetes(version, folder / version.name.removesuffix("-local-strict"))
    (folder / "crds").mkdir()
    for file in definitions:
        custom(file, folder / "crds")


main()
