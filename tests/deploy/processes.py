#!/usr/bin/env python3
"""Prints what deployments pass to services, as JSON: place, service, arguments and variables.

    processes.py FILE…    rendered charts and Compose files (.yaml), variables of units (.env)
"""

import json
import pathlib
import sys

import yaml


def value(variable: dict) -> str:
    """The value of a container's variable; an example of what a Secret has."""
    if "value" in variable:
        return variable["value"]
    return "redis://redis:6379/0" if variable["name"].endswith("_URL") else "x" * 32


def deployment(file: pathlib.Path, document: dict) -> list:
    containers = document["spec"]["template"]["spec"]["containers"]
    return [
        {
            "place": f"{file.name}, {document['metadata']['name']}",
            "service": one["name"],
            "arguments": one.get("args", []),
            "variables": {variable["name"]: value(variable) for variable in one["env"]},
        }
        for one in containers
    ]


def compose(file: pathlib.Path, document: dict) -> list:
    return [
        {
            "place": f"{file.name}, {name}",
            "service": name,
            "arguments": service.get("command", []),
            "variables": service["environment"],
        }
        for name, service in document["services"].items()
        if "drawbridge-" in service["image"]
    ]


def variables(file: pathlib.Path) -> list:
    lines = [line.removeprefix("# ") for line in file.read_text().splitlines()]
    pairs = dict(line.split("=", 1) for line in lines if line.startswith("DRAWBRIDGE_"))
    # An ellipsis stands for a secret.
    pairs = {name: text.replace("…", "x" * 32) for name, text in pairs.items()}
    return [{"place": file.name, "service": file.stem, "arguments": [], "variables": pairs}]


def processes(file: pathlib.Path) -> list:
    if file.suffix == ".env":
        return variables(file)
    found = []
    for document in yaml.safe_load_all(file.read_text()):
        if document and document.get("kind") == "Deployment":
            found += deployment(file, document)
        elif document and "services" in document:
            found += compose(file, document)
    return found


print(json.dumps([one for file in sys.argv[1:] for one in processes(pathlib.Path(file))]))
