#!/usr/bin/env bash
# Upgrades a mesh under load from the version before to this one, and back, service by service, and
# checks that the contracts of this version are compatible with those before: `make upgrade-test`.
#
#   tests/upgrade.sh [COMMIT]
#
# COMMIT is the version before: a tag or commit, by default HEAD~1. It is built in the target folder.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly here root=${here%/*}
readonly buf=${DRAWBRIDGE_TOOLS:-$root/.tools}/node/node_modules/.bin/buf
readonly services=(auth edge code invoices tickets)

main() {
  local commit folder
  cd "$root"
  commit=$(git rev-parse --verify --quiet "${1:-HEAD~1}^{commit}") || fail "there is no commit ${1:-HEAD~1}"
  [[ -x $buf ]] || fail "buf is missing: run tests/setup.sh lint"
  folder=${CARGO_TARGET_DIR:-$root/target}/upgrade
  build_before "$commit" "$folder"
  cargo run --quiet --locked --package drawbridge-proto --example descriptors |
    "$buf" breaking - --against "$folder/before.binpb" || fail "contracts are incompatible with $commit"
  DRAWBRIDGE_UPGRADE_BINARIES=$folder/target/debug \
    cargo test --workspace --locked --test e2e -- replicas::upgrade --ignored --nocapture
}

# Builds the services of a commit, and writes its contracts, into a folder.
build_before() {
  local commit=$1 folder=$2 service packages=()
  rm -rf "$folder/source"
  mkdir -p "$folder/source"
  git archive "$commit" | tar -x -C "$folder/source"
  for service in "${services[@]}"; do packages+=(--package "drawbridge-$service"); done
  (
    cd "$folder/source"
    export CARGO_TARGET_DIR=$folder/target
    cargo build --locked "${packages[@]}"
    cargo run --quiet --locked --package drawbridge-proto --example descriptors >"$folder/before.binpb"
  )
}

fail() {
  echo "upgrade: $1" >&2
  exit 1
}

main "$@"
