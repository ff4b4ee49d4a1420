#!/usr/bin/env bash
# Deploys the chart as docs/how-to/deploy.md says, in the cluster of tests/kubernetes/run.sh, and checks
# what it does there. Each line of output was true, or the run fails.
#
#   tests/kubernetes/run.sh tests/kubernetes/checks.sh
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly here root=${here%/tests/kubernetes}
readonly edge=mesh-drawbridge-edge.drawbridge.svc.cluster.local
readonly release=app.kubernetes.io/instance=mesh
readonly search='{"query":"Drawbridge","max_results":1}'
export PUBLIC_URL=https://$edge:7180/mcp REGISTRY=$DRAWBRIDGE_REGISTRY VERSION=$DRAWBRIDGE_VERSION

main() {
  folder=$(mktemp -d)
  readonly folder
  trap ended EXIT
  cd "$folder"
  prepare
  deploy
  pods
  call
  upgrade
  label
  token
  policy
  account
}

ended() {
  local status=$?
  if ((status)); then
    kubectl get pods --all-namespaces --output wide
    kubectl get events --all-namespaces --field-selector type=Warning | tail -n 10
    mesh logs --selector "$release" --prefix --tail 4
  fi >&2
  rm -rf "$folder"
  exit "$status"
}

fail() {
  echo "kubernetes: $1" >&2
  exit 1
}

shown() {
  echo "  $1"
}

# The commands of step $1 in the documentation: its shell block number $2.
documented() {
  local text
  text=$(awk -v step="**$1. " -v number="$2" '
    /^## / {inside = /^## Kubernetes/}
    /^\*\*[0-9]/ {current = index($0, step) == 1}
    /^```$/ {block = 0}
    block && seen == number {print}
    /^```sh$/ && inside && current {block = 1; seen++}' "$root/docs/how-to/deploy.md")
  [[ -n $text ]] || fail "docs/how-to/deploy.md has no step $1 with commands"
  echo "$text"
}

# Applies a manifest with the environment's variables in it.
apply() {
  python3 -c 'import os, string, sys; print(string.Template(sys.stdin.read()).substitute(os.environ))' \
    <"$here/manifests/$1.yaml" | kubectl apply --filename - >/dev/null
}

# kubectl in the namespace of the release.
mesh() {
  kubectl --namespace drawbridge "$@"
}

# Waits up to $1 seconds until the command from $2 on succeeds.
eventually() {
  local since=$SECONDS
  until "${@:2}" >eventually.log 2>&1; do
    ((SECONDS - since < $1)) || fail "not within $1 s: ${*:2}: $(tail -n 3 eventually.log)"
    sleep 0.3
  done
}

# --- What the deployment needs ----------------------------------------------------------------------

prepare() {
  apply platform
  kubectl create namespace acme >/dev/null
  kubectl label namespace acme pod-security.kubernetes.io/enforce=restricted >/dev/null
  kubectl --namespace acme create serviceaccount nightly >/dev/null
  ln -s "$root/deploy" deploy
  cp -r "$root/policies" policies
  cp "$here/agents.cedar" policies
  cp "$here/values.yaml" test.yaml
  sed -n '/^```yaml values.yaml$/,/^```$/{//!p}' "$root/docs/how-to/deploy.md" >values.yaml
  certificate
  kubectl --namespace platform rollout status deployment --timeout 120s >/dev/null
}

# HTTPS at the edge, by an authority that only the clients here trust.
certificate() {
  local curve=(-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1)
  openssl req -x509 "${curve[@]}" -subj /CN=test -addext basicConstraints=critical,CA:true \
    -keyout authority.key -out authority.crt 2>/dev/null
  openssl req -x509 -CA authority.crt -CAkey authority.key "${curve[@]}" -subj /CN=edge \
    -addext basicConstraints=critical,CA:false -addext "subjectAltName=DNS:$edge" \
    -keyout tls.key -out tls.crt 2>/dev/null
  kubectl --namespace acme create configmap authority --from-file ca.crt=authority.crt >/dev/null
}

# --- The steps of the documentation -----------------------------------------------------------------

deploy() {
  local redis=redis://redis.platform.svc.cluster.local:6379/0
  documented 2 1 | sed "s#rediss://drawbridge:…@redis.acme.internal:6379/0#$redis#" >step-2.sh
  bash -euo pipefail step-2.sh >/dev/null
  kubectl label namespace drawbridge pod-security.kubernetes.io/warn=restricted >/dev/null
  mesh create secret tls edge-tls --cert tls.crt --key tls.key >/dev/null
  cp -r "$root/docs/how-to" source
  chmod -R a+rX source
  SOURCE=$folder/source apply source
  bash -euo pipefail -c "$(documented 3 1)" >/dev/null
  # The documented values come first, and the test's own after them.
  {
    cat <<'SHELL'
helm() {
  if [[ $1 == install ]]; then set -- "$@" --values test.yaml --set "image.registry=$REGISTRY"; fi
  command helm "$@"
}
SHELL
    documented 5 1
  } >step-5.sh
  bash -euo pipefail step-5.sh >install.log 2>&1 || fail "step 5 of docs/how-to/deploy.md: $(<install.log)"
  ! grep -i warn install.log || fail "helm install warned"
  grep -q 'Phase: *Succeeded' install.log || fail "helm test: $(<install.log)"
  bash -euo pipefail -c "$(documented 5 2)" >look.log 2>&1 || fail "after step 5: $(<look.log)"
  shown "the steps of docs/how-to/deploy.md deploy the chart; helm test succeeds"
  shown "the namespace enforces Pod Security restricted, and helm install prints no warning"
  control
}

# A pod that breaks the standard must be warned about, and refused: the check above can fail.
control() {
  local message
  message=$(helm install control deploy/helm/drawbridge --namespace drawbridge --values values.yaml \
    --values policies.yaml --values test.yaml \
    --set 'edge.volumes[0].name=host,edge.volumes[0].hostPath.path=/' 2>&1) || fail "helm: $message"
  grep -i warn <<<"$message" | grep -q hostPath || fail "no warning of a volume of the host: $message"
  eventually 20 refused
  helm uninstall control --namespace drawbridge >/dev/null
  shown "a pod with a folder of the host is warned about there, and refused"
}

refused() { mesh get events | grep -q 'violates PodSecurity.*restricted'; }

# --- Pods -------------------------------------------------------------------------------------------

pods() {
  local name address started ready restarts port memory
  mesh wait --for=condition=Ready pod --selector "$release" --timeout 60s >/dev/null
  running >pods.before
  [[ $(wc -l <pods.before) == 6 ]] || fail "not two edges, two auths and two of code: $(<pods.before)"
  while read -r name _ address started ready restarts port; do
    [[ $restarts == 0 ]] || fail "$name was restarted"
    memory=$(curl -sf "http://$address:$port/metrics" | sed -n 's/^process_resident_memory_bytes //p')
    shown "$(printf '%-40s ready %2d s after its start, %4.1f MiB resident' "$name" \
      "$(($(date -d "$ready" +%s) - $(date -d "$started" +%s)))" "$((memory / 104858))e-1")"
  done <pods.before
}

# Each pod of the release: name, uid, address, start, ready since, restarts, admin port.
running() {
  local columns=(
    .metadata.name .metadata.uid .status.podIP
    '.status.containerStatuses[0].state.running.startedAt'
    '.status.conditions[?(@.type=="Ready")].lastTransitionTime'
    '.status.containerStatuses[0].restartCount'
    '.spec.containers[0].ports[?(@.name=="admin")].containerPort'
  )
  mesh get pods --selector "$release" --no-headers \
    --output custom-columns="$(IFS=,; echo "${columns[*]/#/X:}")"
}

# --- Calls ------------------------------------------------------------------------------------------

# Runs `drawbridge tools` in a pod with the token $1, and prints its output.
client() {
  local phase COMMAND
  COMMAND=$(python3 -c 'import json, sys; print(json.dumps(sys.argv[1:])[1:-1])' \
    "$2" --url "$PUBLIC_URL" "${@:3}")
  TOKEN=$1 COMMAND=$COMMAND apply client
  for _ in {1..120}; do
    phase=$(kubectl --namespace acme get pod client --output jsonpath='{.status.phase}')
    [[ $phase != Succeeded && $phase != Failed ]] || break
    sleep 0.5
  done
  kubectl --namespace acme logs client
  kubectl --namespace acme delete pod client --now >/dev/null
  [[ $phase == Succeeded ]]
}

issued_token() {
  curl -sf http://idp.platform.svc.cluster.local:7100/token -u nightly:a-secret-of-a-test \
    -d grant_type=client_credentials -d "resource=$PUBLIC_URL" |
    python3 -c 'import json, sys; print(json.load(sys.stdin)["access_token"])'
}

# A token of the service account nightly for an audience.
account_token() {
  kubectl --namespace acme create token nightly --audience "$1" --duration 10m
}

call() {
  local result
  result=$(client "$(issued_token)" call code_search "$search") || fail "the call failed: $result"
  [[ $result == *Drawbridge* ]] || fail "the call found nothing: $result"
  shown "a client in the cluster called code_search through the edge"
}

# --- Upgrade under load -----------------------------------------------------------------------------

upgrade() {
  local load calls name began=$SECONDS
  DRAWBRIDGE_CLIENT_TOKEN=$(issued_token) "$here/load.py" "$PUBLIC_URL" authority.crt 50 \
    code_search "$search" >load.log 2>&1 &
  load=$!
  sleep 3
  helm upgrade mesh deploy/helm/drawbridge --namespace drawbridge --reset-then-reuse-values \
    --set telemetry.log=warn --wait --timeout 5m >upgrade.log 2>&1 || fail "helm upgrade: $(<upgrade.log)"
  while read -r name _; do
    mesh wait --for=delete "pod/$name" --timeout 60s >/dev/null
  done <pods.before
  sleep 3
  kill "$load"
  wait "$load" || fail "helm upgrade lost calls: $(<load.log)"
  running >pods.after
  [[ $(wc -l <pods.after) == 6 ]] || fail "not the same number of pods: $(<pods.after)"
  ! join <(sort pods.before) <(sort pods.after) | grep . || fail "helm upgrade did not replace every pod"
  calls=$(<load.log)
  began=$((SECONDS - began))
  ((${calls%% *} >= began * 40)) || fail "the load was less than 40 calls a second: $calls in $began s"
  shown "helm upgrade replaced every pod in $began s under 50 calls a second: $calls"
}

# --- Discovery by label -----------------------------------------------------------------------------

label() {
  deploy/mtls.sh mtls spiffe://acme.example/ns/drawbridge/sa/tickets
  mesh create secret generic tickets-mtls --from-file mtls/tickets >/dev/null
  lacks tickets_search || fail "tickets are listed before they are deployed"
  apply tickets
  mesh rollout status deployment tickets --timeout 60s >/dev/null
  eventually 30 lists tickets_search
  local result
  result=$(client "$(account_token "$PUBLIC_URL")" call tickets_search '{}') ||
    fail "the call failed: $result"
  shown "a tool service with the label drawbridge.dev/namespace was found, and called"
  mesh label service tickets drawbridge.dev/namespace- >/dev/null
  eventually 30 lacks tickets_search
  shown "without the label its tools are gone"
}

lists() { listed && [[ $tools == *"$1"* ]]; }

lacks() { listed && [[ $tools != *"$1"* ]]; }

# Sets `tools`, what the service account sees.
listed() {
  tools=$(client "$(account_token "$PUBLIC_URL")" list --json) && [[ $tools == *code_search* ]]
}

# --- Service accounts -------------------------------------------------------------------------------

token() {
  local result
  result=$(client "$(account_token "$PUBLIC_URL")" call code_search "$search") ||
    fail "the call failed: $result"
  shown "a token of a service account for the edge is accepted, and a policy permits code_search"
  ! result=$(client "$(account_token "$PUBLIC_URL")" call code_list_files '{}') ||
    fail "no policy permits code_list_files: $result"
  [[ $result == *"no tool code_list_files for this caller"* ]] || fail "code_list_files failed for another reason: $result"
  shown "no policy permits the same account code_list_files: it is denied"
  ! result=$(client "$(account_token https://another.example)" call code_search "$search") ||
    fail "a token for another audience is accepted: $result"
  [[ $result == *"for another audience"* ]] || fail "a token for another audience failed for another reason: $result"
  shown "a token for another audience is refused"
}

# The kubelet writes a changed ConfigMap within a minute or so, and auth follows the file.
policy() {
  local since=$SECONDS
  running >pods.before
  sed -i 's/Action::"code_search"/&, Action::"code_list_files"/' policies/agents.cedar
  deploy/helm/policies.sh policies >policies.yaml
  helm upgrade mesh deploy/helm/drawbridge --namespace drawbridge --reset-then-reuse-values \
    --values policies.yaml >policy.log 2>&1 || fail "helm upgrade: $(<policy.log)"
  eventually 150 client "$(account_token "$PUBLIC_URL")" call code_list_files '{}'
  running >pods.after
  cmp -s pods.before pods.after || fail "a changed policy replaced pods: $(<pods.after)"
  shown "a changed policy permitted it $((SECONDS - since)) s after helm upgrade, without a restart"
}

# What the edge's service account may do beyond an account without any role.
account() {
  local namespace more expected
  for namespace in drawbridge platform kube-system; do
    more=$(diff <(may default "$namespace") <(may mesh-drawbridge-edge "$namespace") | grep '^[<>]' || true)
    expected=
    [[ $namespace != drawbridge ]] || expected='> services [] [] [get list watch]'
    [[ $more == "$expected" ]] || fail "in $namespace the edge's account may do this beyond any other: $more"
  done
  shown "the edge's service account may get, list and watch Services of its namespace, and nothing else"
}

may() {
  kubectl auth can-i --list --namespace "$2" --as "system:serviceaccount:drawbridge:$1" \
    --as-group system:serviceaccounts --as-group system:serviceaccounts:drawbridge \
    --as-group system:authenticated | tr -s ' ' | sed 's/ $//' | sort
}

main "$@"
