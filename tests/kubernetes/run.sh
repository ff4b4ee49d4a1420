#!/usr/bin/env bash
# Starts a Kubernetes cluster of one node with the images of `make images`, runs the checks in it, or
# COMMAND with its KUBECONFIG, and removes it. `make kubernetes-test` calls it; root is needed.
#
#   tests/kubernetes/run.sh [COMMAND…]
#
# The node has its own namespaces of processes, mounts and network: nothing outside changes but a
# temporary folder and control groups, which are removed.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly here root=${here%/tests/kubernetes}
tools=$(realpath --canonicalize-missing "${DRAWBRIDGE_TOOLS:-$root/.tools}")
readonly tools cgroup=drawbridge-kubernetes
# Version 2 has one hierarchy, version 1 one for each controller.
hierarchies=(/sys/fs/cgroup)
[[ -f /sys/fs/cgroup/cgroup.controllers ]] || hierarchies=(/sys/fs/cgroup/*)
readonly groups=("${hierarchies[@]/%//$cgroup}")
readonly services=(edge auth idp code tickets)

main() {
  ((EUID == 0)) || fail "only root can start a node"
  [[ -f $tools/kubernetes/stamp ]] || fail "Kubernetes is missing: run tests/setup.sh kubernetes"
  version=$(sed -n 's/^version = "\(.*\)"$/\1/p' "$root/Cargo.toml" | head -n 1)
  readonly version
  export DRAWBRIDGE_TOOLS=$tools DRAWBRIDGE_REGISTRY=${REGISTRY:-localhost} DRAWBRIDGE_VERSION=$version
  [[ -d /run/systemd/system ]] || export CONTAINERS_CONF=$root/tests/deploy/containers.conf
  remove_groups || true
  mkdir "${groups[@]}" || fail "another run is in progress"
  folder=$(mktemp -d)
  readonly folder
  trap clean EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
  images
  (($#)) || set -- "$here/checks.sh"
  # In the background, so that a signal is handled at once.
  unshare --mount --net --pid --fork --kill-child --mount-proc \
    "$here/node.sh" "$folder" "$cgroup" "$@" <&0 &
  node=$!
  wait "$node"
}

fail() {
  echo "kubernetes: $1" >&2
  exit 1
}

# What the node runs, as one archive.
images() {
  local all=() service
  for service in "${services[@]/#/drawbridge-}" drawbridge; do
    all+=("$DRAWBRIDGE_REGISTRY/$service:$version")
    podman image exists "${all[-1]}" || fail "no image ${all[-1]}: run make images"
  done
  "$root/tests/deploy/image.sh" "$folder/images" redis /usr/bin/redis-server /usr/bin/redis-cli </dev/null
  "$root/tests/deploy/image.sh" "$folder/images" pause /usr/bin/catatonit <<<'ENTRYPOINT ["catatonit", "-P"]'
  podman save --quiet --multi-image-archive --output "$folder/images.tar" \
    "${all[@]}" localhost/drawbridge-test-{redis,pause}:1 || fail "podman could not save the images"
}

# Fails if a process is in one of them.
remove_groups() {
  local group
  for group in "${groups[@]}"; do
    [[ ! -d $group ]] || find "$group" -depth -type d -exec rmdir {} + 2>/dev/null || return 1
  done
}

# When its first process ends, so does every other of the node, with mounts and network.
clean() {
  local status=$?
  trap - EXIT INT TERM
  if [[ -n ${node:-} ]]; then
    kill "$node" 2>/dev/null || true
    wait "$node" 2>/dev/null || true
  fi
  # Processes that were killed may take a moment to leave.
  for _ in {1..50}; do
    remove_groups && break || sleep 0.2
  done
  ! compgen -G "/sys/fs/cgroup/*/$cgroup" >/dev/null || status=1
  podman image rm --force localhost/drawbridge-test-pause:1 >/dev/null 2>&1 || true
  rm -rf --one-file-system "$folder" || status=1
  if [[ $(stat --format %a /dev/null) != 666 ]]; then
    echo "kubernetes: the node changed /dev/null" >&2
    chmod 666 /dev/null
    status=1
  fi
  exit "$status"
}

main "$@"
