#!/usr/bin/env bash
# Builds the programs of a Kubernetes node and CoreDNS from their Go modules into FOLDER/bin, once:
# about half an hour on two cores. tests/setup.sh kubernetes calls it.
#
#   tests/kubernetes/build.sh FOLDER
set -euo pipefail

readonly kubernetes_version=1.37.2 coredns_version=1.15.0
readonly programs=(kube-apiserver kube-controller-manager kube-scheduler kube-proxy kubelet)
readonly folder=${1:?usage: tests/kubernetes/build.sh FOLDER}

fail() {
  echo "kubernetes: $1" >&2
  exit 1
}

# Builds the packages, of one module, as programs in FOLDER/bin, with the linker's flags $1.
build() {
  local flags=$1 package
  shift
  go get -tool "$@"
  for package in "$@"; do
    package=${package%@*}
    CGO_ENABLED=0 go build -ldflags "-s -w $flags" -o "$folder/bin/${package##*/}" "$package"
  done
}

# Kubernetes publishes its parts as modules of their own: what its go.mod takes from its source tree
# comes from the module of the same version.
kubernetes() {
  local part parts paths=() version="-X k8s.io/component-base/version.git"
  parts=$(go mod download -json "k8s.io/kubernetes@v$kubernetes_version" |
    python3 -c 'import json, sys; print(json.load(sys.stdin)["GoMod"])')
  parts=$(sed -n 's|^\s*\(k8s.io/[a-z-]*\) => ./staging/.*|\1|p' "$parts")
  for part in $parts; do
    go mod edit -replace "$part=$part@v0.${kubernetes_version#*.}"
  done
  for part in "${programs[@]}"; do
    paths+=("k8s.io/kubernetes/cmd/$part@v$kubernetes_version")
  done
  build "${version}Version=v$kubernetes_version ${version}Major=1 ${version}Minor=37" "${paths[@]}"
}

coredns() {
  build "" "github.com/coredns/coredns@v$coredns_version"
}

stamp="$kubernetes_version $coredns_version"
if [[ -f $folder/stamp && $(<"$folder/stamp") == "$stamp" ]]; then exit 0; fi
command -v go >/dev/null || fail "Kubernetes is built with Go: install 1.26 or newer from https://go.dev/dl"
echo "building Kubernetes $kubernetes_version and CoreDNS $coredns_version, once" >&2
mkdir -p "$folder/bin"
for module in kubernetes coredns; do
  rm -rf "${folder:?}/$module"
  mkdir "$folder/$module"
  # Not followed by `||`, which would let it go on after an error.
  set +e
  (set -e; cd "$folder/$module"; go mod init "$module"; "$module") >"$folder/$module.log" 2>&1
  status=$?
  set -e
  ((status == 0)) || {
    tail -n 20 "$folder/$module.log" >&2
    fail "Go could not build $module"
  }
done
echo "$stamp" >"$folder/stamp"
echo "built Kubernetes $kubernetes_version and CoreDNS $coredns_version in $folder"
