#!/usr/bin/env bash
# Writes a software bill of materials (CycloneDX 1.5, JSON) for each shipped binary into a folder,
# by default target/sbom, and checks that each exists and lists its components.
#
#   tests/sbom.sh [FOLDER]
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly here root=${here%/*}
readonly cyclonedx=${DRAWBRIDGE_TOOLS:-$root/.tools}/cargo/bin/cargo-cyclonedx
readonly suffix=.cdx.json

main() {
  local folder binary manifest written
  folder=$(realpath --canonicalize-missing "${1:-${CARGO_TARGET_DIR:-$root/target}/sbom}")
  cd "$root"
  [[ -x $cyclonedx ]] || fail "cargo-cyclonedx is missing: run tests/setup.sh sbom"
  rm -rf "$folder"
  mkdir -p "$folder"
  # cargo-cyclonedx writes next to each manifest, for libraries and tests too.
  trap clean EXIT
  clean
  "$cyclonedx" cyclonedx --quiet --format json --spec-version 1.5 --describe binaries
  while read -r binary manifest; do
    written=${manifest%/*}/${binary}_bin$suffix
    [[ -s $written ]] || fail "no bill of materials for $binary: $written is missing"
    mv "$written" "$folder/$binary$suffix"
    check "$folder/$binary$suffix" "$binary"
  done < <(shipped)
  compgen -G "$folder/*$suffix" >/dev/null || fail "no shipped binary found"
}

fail() {
  echo "sbom: $1" >&2
  exit 1
}

clean() {
  find "$root" -path "$root/target" -prune -o -path "$root/.tools" -prune -o -name "*_bin$suffix" -type f -exec rm -f {} +
}

# The binaries of all crates outside of tests/, each with its manifest.
shipped() {
  cargo metadata --format-version 1 --no-deps --locked | node --eval '
    const { packages, workspace_root } = JSON.parse(require("fs").readFileSync(0, "utf8"));
    const shipped = packages.filter((one) => !one.manifest_path.startsWith(`${workspace_root}/tests/`));
    for (const { targets, manifest_path } of shipped)
      for (const target of targets)
        if (target.kind.includes("bin")) console.log(target.name, manifest_path);'
}

# Checks the file $1 against the binary $2.
check() {
  node --eval '
    const [file, binary] = process.argv.slice(1);
    const bom = JSON.parse(require("fs").readFileSync(file, "utf8"));
    const main = bom.metadata?.component;
    const known = new Set([main?.["bom-ref"], ...(bom.components ?? []).map((one) => one["bom-ref"])]);
    const wrong =
      bom.bomFormat !== "CycloneDX" ? "it is not CycloneDX" :
      main?.name !== binary ? `it describes ${main?.name}` :
      !bom.components?.length ? "it lists no components" :
      bom.components.some((one) => !one.name || !one.version || !one.purl) ? "a component has no purl" :
      !bom.dependencies?.length ? "it has no dependencies" :
      bom.dependencies.some((one) => one.dependsOn?.some((ref) => !known.has(ref))) ? "a component is missing" :
      undefined;
    if (wrong) { console.error(`sbom: ${file}: ${wrong}`); process.exit(1); }
    console.log(`${file}: ${bom.components.length} components`);' "$1" "$2"
}

main "$@"
