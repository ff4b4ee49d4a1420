#!/usr/bin/env python3
"""Fails if a pod in rendered charts breaks the Pod Security standard `restricted`.

    restricted.py FILE…

https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted
"""

import sys

import yaml

VOLUMES = {
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"
}  # fmt: skip


def problems(pod: dict) -> list:
    own = pod.get("securityContext", {})
    found = [f"{name} is set" for name in ("hostNetwork", "hostPID", "hostIPC") if pod.get(name)]
    for volume in pod.get("volumes", []):
        found += [f"volume {volume['name']} is a {kind}" for kind in volume if kind not in VOLUMES | {"name"}]
    for container in pod.get("initContainers", []) + pod["containers"]:
        context = {**own, **container.get("securityContext", {})}
        capabilities = context.get("capabilities", {})
        rules = {
            "runAsNonRoot is not true": context.get("runAsNonRoot") is True,
            "runAsUser is root": context.get("runAsUser") != 0,
            "seccompProfile is not RuntimeDefault": context.get("seccompProfile", {}).get("type") == "RuntimeDefault",
            "allowPrivilegeEscalation is not false": context.get("allowPrivilegeEscalation") is False,
            "capabilities are not dropped": capabilities == {"drop": ["ALL"]},
            "it is privileged": not context.get("privileged"),
            # Of this project, beyond the standard.
            "the root file system is writable": context.get("readOnlyRootFilesystem") is True,
            "it has no memory limit": "memory" in container["resources"]["limits"],
        }
        found += [f"{container['name']}: {rule}" for rule, holds in rules.items() if not holds]
    return found


def main() -> int:
    seen, found = 0, []
    for file in sys.argv[1:]:
        for document in filter(None, yaml.safe_load_all(open(file))):
            spec = document.get("spec", {})
            pod = spec if document["kind"] == "Pod" else spec.get("template", {}).get("spec")
            if pod:
                seen += 1
                place = f"{file}, {document['kind']} {document['metadata']['name']}"
                found += [f"{place}: {problem}" for problem in problems(pod)]
    print("\n".join(found), file=sys.stderr, end="\n" if found else "")
    return 1 if found or not seen else 0


sys.exit(main())
