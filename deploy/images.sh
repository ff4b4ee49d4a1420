#!/usr/bin/env bash
# Builds the images from binaries that are built here once, with podman or docker, and prints their
# sizes. An image of a service that is larger than 40 MB is an error, or of the mesh than 100 MB.
#
#   deploy/images.sh [TARGET…]    all: edge auth idp code invoices tickets drawbridge
#
# Variables: ENGINE (podman or docker), REGISTRY (localhost), BINARIES (a folder with binaries that
# were built before), LTO (the profile's: thin; `off` takes less time).
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly here root=${here%/*}
readonly registry=${REGISTRY:-localhost}
readonly size_max_mb=40 mesh_size_max_mb=100
readonly authorities=/etc/ssl/certs/ca-certificates.crt

fail() {
  echo "images: $1" >&2
  exit 1
}

engine() {
  local one
  for one in ${ENGINE:-podman docker}; do
    command -v "$one" >/dev/null && "$one" info >/dev/null 2>&1 && { echo "$one"; return; }
  done
  fail "neither podman nor docker runs here: tests/setup.sh images installs podman"
}

# Prints the folder of the binaries.
binaries() {
  local target=${CARGO_TARGET_DIR:-$root/target} triple packages=() one
  triple=$(rustc --print host-tuple)
  for one in "${targets[@]}"; do
    packages+=(--package "drawbridge-${one/drawbridge/cli}")
  done
  (cd "$root" && DRAWBRIDGE_COMMIT=$revision RUSTFLAGS="-C target-feature=+crt-static" \
    CARGO_PROFILE_DIST_LTO=${LTO:-thin} \
    cargo build --locked --profile dist --target "$triple" --bins "${packages[@]}") >&2
  echo "$target/$triple/dist"
}

targets=("$@")
((${#targets[@]})) || targets=(edge auth idp code invoices tickets drawbridge)
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' "$root/Cargo.toml" | head -n 1)
revision=$(git -C "$root" rev-parse --short HEAD 2>/dev/null || echo unknown)
program=$(engine)
built=${BINARIES:-$(binaries)}
[[ -f $authorities ]] || fail "$authorities is missing: install ca-certificates"
context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
cp "$authorities" "$context/ca-certificates.crt"
for target in "${targets[@]}"; do
  name=drawbridge-$target
  name=${name/drawbridge-drawbridge/drawbridge}
  [[ -x $built/$name ]] || fail "$built/$name is missing"
  ! readelf --program-headers "$built/$name" | grep -q INTERP ||
    fail "$built/$name is not static: build it with RUSTFLAGS=\"-C target-feature=+crt-static\""
  cp "$built/$name" "$context"
done
for target in "${targets[@]}"; do
  image=$registry/drawbridge-$target
  image=${image/drawbridge-drawbridge/drawbridge}:$version
  # podman's cache would give an image the labels of an earlier revision.
  "$program" build --quiet --no-cache --file "$here/Dockerfile" --target "$target" --tag "$image" \
    --build-arg BINARIES=prebuilt --build-arg "VERSION=$version" --build-arg "REVISION=$revision" "$context" >/dev/null ||
    fail "$program could not build $image"
  bytes=$("$program" image inspect --format '{{.Size}}' "$image")
  printf '%-44s %5.1f MB\n' "$image" "$((bytes / 100000))e-1"
  max=$size_max_mb
  [[ $target != drawbridge ]] || max=$mesh_size_max_mb
  ((bytes < max * 1000000)) || fail "$image is larger than $max MB"
done
