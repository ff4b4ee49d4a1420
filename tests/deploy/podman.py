#!/usr/bin/env python3
"""Makes the chart's output playable by `podman kube play`: one file for each Deployment.

    podman.py RENDERED MTLS TLS POLICIES OUTPUT

MTLS has a folder for each component, TLS the edge's certificate for clients, POLICIES is the folder
of policies. OUTPUT gets
<deployment>.yaml, and <deployment>.aliases, the Services' names by which others find it. Everything is
the chart's but for what podman cannot do:

- it runs HTTP probes by a shell in the container: they are left out, and the test probes;
- it publishes all ports on the host: they are left out, and the test calls addresses of containers;
- podman 4 writes no folders of a ConfigMap, and files of a Secret in base64: policies and certificates
  are mounted from folders.
"""

import pathlib
import sys

import yaml


def playable(deployment: dict, folders: dict) -> dict:
    pod = deployment["spec"]["template"]["spec"]
    for container in pod["containers"]:
        for name in ("ports", "readinessProbe", "livenessProbe"):
            del container[name]
    for volume in pod["volumes"]:
        if path := folders.get(volume["name"]):
            volume.pop("configMap", None)
            volume.pop("secret", None)
            volume["hostPath"] = {"path": path}
    return deployment


def configuration(deployment: dict, documents: list) -> list:
    names = {volume.get("configMap", {}).get("name") for volume in volumes(deployment)}
    return [one for one in documents if one["kind"] == "ConfigMap" and one["metadata"]["name"] in names]


def volumes(deployment: dict) -> list:
    return deployment["spec"]["template"]["spec"]["volumes"]


def aliases(deployment: dict, documents: list) -> list:
    labels = deployment["spec"]["template"]["metadata"]["labels"].items()
    services = [one for one in documents if one["kind"] == "Service"]
    return [one["metadata"]["name"] for one in services if one["spec"]["selector"].items() <= labels]


def main() -> None:
    rendered, mtls, tls, policies, output = sys.argv[1:]
    folder = pathlib.Path(output)
    documents = [one for one in yaml.safe_load_all(pathlib.Path(rendered).read_text()) if one]
    for deployment in [one for one in documents if one["kind"] == "Deployment"]:
        name = deployment["metadata"]["name"]
        folders = {"policies": policies, "mtls": f"{mtls}/{name}", "tls": tls}
        deployment = playable(deployment, folders)
        parts = configuration(deployment, documents)
        (folder / f"{name}.yaml").write_text(yaml.safe_dump_all([*parts, deployment]))
        (folder / f"{name}.aliases").write_text("\n".join(aliases(deployment, documents)))
    test = [one for one in documents if one["kind"] == "Pod"]
    (folder / "test.arguments").write_text("\n".join(test[0]["spec"]["containers"][0]["args"]))


main()
