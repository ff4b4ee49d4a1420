#!/usr/bin/env bash
# The dependencies between crates point one way (ARCHITECTURE.md):
#
#   tests → cli → mesh → services → credentials → config → transport → runtime
#                                                                    → contract → proto
#   auth, edge, idp → audit → runtime
#
# Tool services depend on sdk, a face over the last five. No module imports, by a circle, one that
# imports it. With --draw this script draws the crates' direct dependencies instead.
set -euo pipefail
cd "$(dirname "$0")/.."

# The crates of this workspace that the crate $1 depends on directly.
dependencies() {
    cargo tree --locked --quiet --edges normal --package "$1" --depth 1 --prefix none --format '{p}' |
        tail -n +2 | grep -o '^drawbridge-[a-z]*' | sort -u || true
}

crates=$(cargo metadata --locked --quiet --no-deps --format-version 1 | grep -o '"name":"drawbridge-[a-z]*"' |
    cut -d'"' -f4 | sort -u)
if [[ ${1:-} == --draw ]]; then
    for crate in $crates; do
        echo "${crate#drawbridge-} → $(dependencies "$crate" | sed 's/drawbridge-//' | paste -sd' ')"
    done
    exit
fi

# All crates that the crate $1 is built with, one per line.
declare -A closures
closure() {
    if [[ -z ${closures[$1]:-} ]]; then
        closures[$1]=$(cargo tree --locked --quiet --edges normal --package "$1" --prefix none --format '{p}' |
            cut -d' ' -f1 | sort -u)
    fi
}

broken=0
forbid() {
    closure "$1"
    for other in "${@:2}"; do
        if [[ $1 != "$other" ]] && grep -qxF "$other" <<<"${closures[$1]}"; then
            echo "$1 must not depend on $other"
            broken=1
        fi
    done
}

tools=()
for folder in services/tools/*/; do
    tools+=("drawbridge-$(basename "$folder")")
done
core=(drawbridge-auth drawbridge-edge drawbridge-idp)
services=("${core[@]}" "${tools[@]}")
parts=(drawbridge-audit drawbridge-build drawbridge-config drawbridge-contract drawbridge-credentials
    drawbridge-runtime drawbridge-transport)

for service in "${services[@]}"; do
    # Services call one another over gRPC. Only mesh and tests contain more than one.
    forbid "$service" "${services[@]}" drawbridge-cli drawbridge-mesh
    # Only the edge may use MCP, and only auth may use Cedar.
    [[ $service == drawbridge-edge ]] || forbid "$service" rmcp
    [[ $service == drawbridge-auth ]] || forbid "$service" cedar-policy
done
# Only tool services have leases, and they alone use the face for their authors.
for service in "${core[@]}"; do
    forbid "$service" drawbridge-credentials drawbridge-sdk
done
# Only the services of Drawbridge itself write audit logs.
for other in "${tools[@]}" drawbridge-sdk drawbridge-config drawbridge-contract drawbridge-credentials \
    drawbridge-runtime drawbridge-transport; do
    forbid "$other" drawbridge-audit
done
forbid drawbridge-audit drawbridge-config drawbridge-contract drawbridge-credentials drawbridge-proto drawbridge-transport
for part in drawbridge-sdk "${parts[@]}"; do
    forbid "$part" "${services[@]}" drawbridge-mesh drawbridge-cli rmcp cedar-policy
done
forbid drawbridge-proto drawbridge-sdk "${parts[@]}"
forbid drawbridge-build drawbridge-proto drawbridge-sdk "${parts[@]}"
forbid drawbridge-config drawbridge-credentials
forbid drawbridge-contract drawbridge-config drawbridge-runtime drawbridge-transport drawbridge-credentials
forbid drawbridge-runtime drawbridge-config drawbridge-contract drawbridge-transport drawbridge-credentials
forbid drawbridge-transport drawbridge-config drawbridge-credentials
forbid drawbridge-mesh drawbridge-cli drawbridge-tests

# The check itself must detect an existing dependency.
closure drawbridge-edge
grep -qxF rmcp <<<"${closures[drawbridge-edge]}" || { echo "cargo tree detects no dependency at all"; broken=1; }

tests/modules.py audit/src config/src proto/src sdk/*/src services/{auth,edge,idp}/src services/tools/*/src mesh/src cli/src \
    tests/src || broken=1
exit "$broken"
