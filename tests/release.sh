#!/usr/bin/env bash
# Checks that a release is complete, and says everything that is wrong with it:
#
#   tests/release.sh versions [ROOT]    one version everywhere: the workspace's
#   tests/release.sh notes [ROOT]       its section in CHANGELOG.md, and its tag
#   tests/release.sh artifacts FOLDER   images, packaged chart, bills of materials, checksums
#
# `make release-check` runs all of them.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly here
readonly tools=${DRAWBRIDGE_TOOLS:-${here%/*}/.tools}/deploy
root=${here%/*}
wrong=0

main() {
  case ${1:-} in
    versions | notes) root=$(realpath "${2:-$root}") ;;
    artifacts) folder=$(realpath --canonicalize-missing "${2:?usage: tests/release.sh artifacts FOLDER}") ;;
    *)
      echo "usage: tests/release.sh versions|notes|artifacts" >&2
      exit 2
      ;;
  esac
  version=$(field "$root/Cargo.toml" 's/^version = "\(.*\)"$/\1/p')
  [[ $version =~ ^[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.-]+)?$ ]] || {
    echo "release: Cargo.toml has the version \`$version\`: write one such as 1.2.3" >&2
    exit 1
  }
  "$1"
  exit "$wrong"
}

problem() {
  echo "release: $1" >&2
  wrong=1
}

# The first match of the sed script $2 in the file $1.
field() {
  sed -n "$2" "$1" | head -n 1
}

same() {
  [[ $2 == "$version" ]] || problem "$1 has the version \`$2\`, the workspace $version"
}

versions() {
  local chart=deploy/helm/drawbridge/Chart.yaml manifest
  same "$chart, version" "$(field "$root/$chart" 's/^version: "\{0,1\}\([^"]*\)"\{0,1\}$/\1/p')"
  same "$chart, appVersion" "$(field "$root/$chart" 's/^appVersion: "\{0,1\}\([^"]*\)"\{0,1\}$/\1/p')"
  same sdk/python/pyproject.toml "$(field "$root/sdk/python/pyproject.toml" 's/^version = "\(.*\)"$/\1/p')"
  # Crates inherit it; a version of their own would be a second place.
  while read -r manifest; do
    ! grep -q '^version = ' "$manifest" || problem "${manifest#"$root/"} has a version of its own: write version.workspace = true"
  done < <(find "$root" -name Cargo.toml -mindepth 2 ! -path '*/target/*' ! -path '*/.tools/*' ! -path '*/templates/*')
}

notes() {
  local tag head
  grep -qE "^## \[?${version//./\\.}\]?( |$)" "$root/CHANGELOG.md" ||
    problem "CHANGELOG.md has no section \`## $version\`: name the unreleased one so"
  head=$(git -C "$root" rev-parse HEAD)
  # The Go module in sdk/go has the version of its tag.
  for tag in "v$version" "sdk/go/v$version"; do
    [[ $(git -C "$root" rev-parse --quiet --verify "refs/tags/$tag^{commit}" || true) == "$head" ]] ||
      problem "the tag $tag is not at this commit: git tag --sign $tag"
  done
  [[ -z $(git -C "$root" status --porcelain) ]] || problem "the checkout has changes that are not committed"
}

artifacts() {
  rm -rf "$folder"
  mkdir -p "$folder/sbom"
  images
  "$tools/bin/helm" package "$root/deploy/helm/drawbridge" --destination "$folder" >/dev/null || problem "helm package"
  [[ -f $folder/drawbridge-$version.tgz ]] || problem "the chart is not packaged as drawbridge-$version.tgz"
  bills
  (cd "$folder" && find . -type f ! -name SHA256SUMS -printf '%P\n' | LC_ALL=C sort | xargs sha256sum >SHA256SUMS &&
    sha256sum --check --quiet SHA256SUMS) || problem "the checksums do not match"
  ((wrong)) || echo "release $version is complete in $folder"
}

images() {
  local name image found program=podman revision label='{{index .Config.Labels "org.opencontainers.image'
  command -v podman >/dev/null || program=docker
  revision=$(git -C "$root" rev-parse --short HEAD)
  for name in drawbridge drawbridge-{edge,auth,idp,code,invoices,tickets}; do
    image=${REGISTRY:-localhost}/$name:$version
    if ! found=$("$program" image inspect --format "$label.version\"}} $label.revision\"}}" "$image" 2>/dev/null); then
      problem "the image $image is missing: make images"
      continue
    fi
    [[ $found == "$version $revision" ]] ||
      problem "$image is labelled with version and revision \`$found\`, not \`$version $revision\`: make images"
    "$program" save --output "$folder/$name-$version.tar" "$image" >/dev/null 2>&1 || problem "$image cannot be saved"
  done
}

bills() {
  local bill
  "$here/sbom.sh" "$folder/sbom" >/dev/null || {
    problem "the bills of materials are incomplete"
    return
  }
  for bill in "$folder"/sbom/*.cdx.json; do
    same "${bill##*/}" "$(python3 -c 'import json, sys
print(json.load(open(sys.argv[1]))["metadata"]["component"].get("version"))' "$bill")"
  done
}

main "$@"
