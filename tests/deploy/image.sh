#!/usr/bin/env bash
# Makes the image localhost/drawbridge-test-NAME:1 with podman, of programs and folders that this
# machine has, what FOLDER/NAME has already, and lines of a Dockerfile from standard input: no registry
# is needed.
#
#   tests/deploy/image.sh FOLDER NAME [FILE…]
set -euo pipefail

readonly folder=${1:?usage: tests/deploy/image.sh FOLDER NAME [FILE…]} name=${2:?a name is missing}
readonly root=$folder/$name

fail() {
  echo "image: $1" >&2
  exit 1
}

mkdir -p "$root/tmp"
chmod 1777 "$root/tmp"
ln -sfn usr/bin "$root/bin"
for file in "${@:3}"; do
  [[ -e $file ]] || fail "$file is missing: run tests/setup.sh test"
  if [[ -d $file ]]; then
    mkdir -p "$root$file"
    cp -RL "$file/." "$root$file"
    continue
  fi
  install -D "$(realpath "$file")" "$root/usr/bin/$(basename "$file")"
  while read -r library; do
    install -D "$(realpath "$library")" "$root$library"
  done < <(ldd "$(realpath "$file")" 2>/dev/null | grep -o '/[^ ]*')
done
{ printf 'FROM scratch\nCOPY . /\nENV PATH=/usr/bin\n'; cat; } >"$folder/$name.Dockerfile"
podman build --quiet --file "$folder/$name.Dockerfile" --tag "localhost/drawbridge-test-$name:1" "$root" >/dev/null ||
  fail "podman could not build $name"
