#!/usr/bin/env bash
# The dependencies between crates point one way: tests, cli -> services -> sdk -> proto
# (ARCHITECTURE.md).
set -euo pipefail

# Whether the crate $1 depends on the crate $2.
depends() {
    cargo tree --locked --quiet --edges normal --package "$1" --invert "$2" >/dev/null 2>&1
}

broken=0
forbid() {
    if depends "$1" "$2"; then
        echo "$1 must not depend on $2"
        broken=1
    fi
}

services=(drawbridge-auth drawbridge-code drawbridge-edge drawbridge-idp drawbridge-invoices drawbridge-tickets)
for service in "${services[@]}"; do
    for other in "${services[@]}"; do
        [[ $service == "$other" ]] || forbid "$service" "$other"
    done
    forbid "$service" drawbridge-cli
    forbid drawbridge-sdk "$service"
    # Only the edge may use MCP, and only auth may use Cedar.
    [[ $service == drawbridge-edge ]] || forbid "$service" rmcp
    [[ $service == drawbridge-auth ]] || forbid "$service" cedar-policy
done
# Only services with leases may contain a Vault client.
for service in drawbridge-auth drawbridge-edge drawbridge-idp; do
    forbid "$service" vaultrs
done
forbid drawbridge-proto drawbridge-sdk
forbid drawbridge-sdk rmcp
forbid drawbridge-sdk cedar-policy

# The check itself must detect an existing dependency.
depends drawbridge-edge rmcp || { echo "cargo tree detects no dependency at all"; broken=1; }
exit "$broken"
