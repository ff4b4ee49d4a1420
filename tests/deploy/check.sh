#!/usr/bin/env bash
# Checks the files in deploy/ that no service reads: the Helm chart with several values against the
# schemas of each supported Kubernetes, the Dockerfile, the Compose file and the systemd units.
#
#   tests/deploy/check.sh [OUTPUT]    OUTPUT gets the rendered charts, <values>.yaml, and in
#                                     processes.json what deployments pass to services
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly here root=${here%/tests/deploy}
readonly tools=${DRAWBRIDGE_TOOLS:-$root/.tools}/deploy
readonly chart=$root/deploy/helm/drawbridge
readonly versions=(1.28.0 1.29.0 1.30.0 1.31.0 1.32.0 1.33.0 1.34.0 1.35.0 1.36.0 1.37.0)

main() {
  [[ -f $tools/stamp ]] || fail "the tools are missing: run tests/setup.sh deploy"
  export PATH=$tools/bin:$PATH PYTHONPATH=$tools
  output=$(realpath --canonicalize-missing "${1:-$(mktemp -d)}")
  readonly output
  mkdir -p "$output"
  "$root/tests/release.sh" versions || fail "more than one version"
  render
  schemas
  python3 "$here/restricted.py" "$output"/{minimal,bundle,plaintext,full,documented}.yaml ||
    fail "a pod breaks the Pod Security standard restricted"
  misspelt
  mistakes
  hadolint "$root/deploy/Dockerfile" || fail "deploy/Dockerfile"
  compose
  certificates
  units
  python3 "$here/processes.py" "$output"/{minimal,bundle,plaintext,full,documented,compose.config}.yaml "$root"/deploy/systemd/*.env >"$output/processes.json"
}

fail() {
  echo "deploy: $1" >&2
  exit 1
}

render() {
  "$root/deploy/helm/policies.sh" "$root/policies" >"$output/policies.values"
  # The values that the documentation shows.
  sed -n '/^```yaml values.yaml$/,/^```$/{//!p}' "$root/docs/how-to/deploy.md" >"$output/documented.values.yaml"
  [[ -s $output/documented.values.yaml ]] || fail "docs/how-to/deploy.md has no values.yaml"
  local values name options
  for values in "$here"/values/*.yaml "$output/documented.values.yaml"; do
    name=$(basename "$values" .yaml)
    name=${name%.values}
    options=(--values "$values")
    [[ $name == minimal || $name == bundle ]] || options+=(--values "$output/policies.values")
    helm lint "$chart" --strict --quiet "${options[@]}" || fail "helm lint with $name.yaml"
    helm template mesh "$chart" --namespace tools "${options[@]}" >"$output/$name.yaml" ||
      fail "helm template with $name.yaml"
  done
}

schemas() {
  local version
  for version in "${versions[@]}"; do
    validate "$version" "$output"/{minimal,bundle,plaintext,full,documented}.yaml || fail "the chart is not valid in Kubernetes $version"
  done
}

# Validates files against the schemas of Kubernetes $1.
validate() {
  kubeconform -strict -kubernetes-version "$1" \
    -schema-location "$tools/schemas/{{ .NormalizedKubernetesVersion }}/{{ .ResourceKind }}{{ .KindSuffix }}.json" \
    -schema-location "$tools/schemas/crds/{{ .ResourceKind }}-{{ .Group }}-{{ .ResourceAPIVersion }}.json" "${@:2}"
}

# The check itself must detect a field that does not exist, in custom resources too.
misspelt() {
  local version=${versions[-1]} folder file
  folder=$(mktemp -d)
  sed 's/allowPrivilegeEscalation/allowPrivilegeEscalations/' "$output/minimal.yaml" >"$folder/deployment.yaml"
  sed 's/rotationPolicy/rotationPolicies/' "$output/full.yaml" >"$folder/certificate.yaml"
  ! python3 "$here/restricted.py" "$folder/deployment.yaml" 2>/dev/null || fail "restricted.py accepts it too"
  for file in "$folder"/*.yaml; do
    ! validate "$version" "$file" >/dev/null || fail "kubeconform accepts a misspelt field in $(basename "$file")"
  done
  rm -rf "$folder"
}

# Values that cannot work are refused with a reason.
mistakes() {
  refused 'set redis.existingSecret' --set edge.replicas=2
  refused 'edge.secret.existingSecret' --set redis.existingSecret=redis
  refused 'trustDomain' --set trustDomain=
  refused 'vault.url' --set 'tools[0].name=invoices,tools[0].vault=true'
  refused 'policies' --set policies.existingConfigMap=
  refused 'policies: set one of' --set 'policies.files.a\.cedar=x'
  refused 'policies.bundle.keys' --set policies.existingConfigMap=,policies.bundle.url=oci://registry/policies:1
  refused 'publicUrl' --set publicUrl=mcp.acme.example
  refused 'replica' --set edge.replica=2
  refused 'namespaces' --set 'edge.discovery.namespaces[0]=Tools'
  refused 'name' --set 'tools[0].name=Code'
}

refused() {
  local message
  if message=$(helm template mesh "$chart" --values "$here/values/minimal.yaml" "${@:2}" 2>&1); then
    fail "helm accepts ${*:2}"
  fi
  [[ $message == *"$1"* ]] || fail "helm refuses ${*:2} without naming $1: $message"
}

compose() {
  local environment=(DRAWBRIDGE_USER=1000:1000 DRAWBRIDGE_VERSION=0.1.0 "DRAWBRIDGE_EDGE_SECRET=$(printf 'x%.0s' {1..32})"
    DRAWBRIDGE_{POSTGRES_PASSWORD,VAULT_DATABASE_PASSWORD,VAULT_TOKEN}=secret)
  env "${environment[@]}" python3 -m podman_compose --file "$root/deploy/compose.yaml" config \
    >"$output/compose.config.yaml" || fail "deploy/compose.yaml"
}

certificates() {
  local folder message
  folder=$(mktemp -d)
  "$root/deploy/mtls.sh" "$folder" spiffe://acme.example/ns/mesh/sa/edge spiffe://acme.example/ns/mesh/sa/auth
  openssl verify -CAfile "$folder/ca.crt" "$folder"/{edge,auth}/tls.crt >/dev/null || fail "deploy/mtls.sh"
  openssl x509 -in "$folder/edge/tls.crt" -noout -ext subjectAltName | grep -qx ' *URI:spiffe://acme.example/ns/mesh/sa/edge' ||
    fail "deploy/mtls.sh writes another id"
  [[ $(stat -c %a "$folder/edge/tls.key") == 600 ]] || fail "deploy/mtls.sh writes a key that others can read"
  ! message=$("$root/deploy/mtls.sh" "$folder" edge 2>&1) || fail "deploy/mtls.sh accepts an id without a trust domain"
  [[ $message == *"invalid SPIFFE id edge"* ]] || fail "deploy/mtls.sh: $message"
  rm -rf "$folder"
}

# Without a program of that name, systemd would refuse any unit.
units() {
  local folder unit service level
  folder=$(mktemp -d)
  for service in edge auth code invoices tickets; do
    unit=$folder/drawbridge@$service.service
    sed 's#^ExecStart=.*#ExecStart=/bin/true#' "$root/deploy/systemd/drawbridge@.service" >"$unit"
    systemd-analyze verify --man=no "$unit" || fail "deploy/systemd/drawbridge@.service as $service"
    grep -q "^u drawbridge-$service " "$root/deploy/systemd/drawbridge.sysusers" || fail "no user for $service"
  done
  level=$(systemd-analyze security --offline=true --threshold=15 "$unit") || {
    tail -n 1 <<<"$level" >&2
    fail "deploy/systemd/drawbridge@.service is too exposed"
  }
  rm -rf "$folder"
}

main "$@"
